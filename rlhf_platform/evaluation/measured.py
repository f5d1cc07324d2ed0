"""All metrics of one evaluation, prompt by prompt, whatever the branch that it is of."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Self

from rlhf_platform.errors import RunError
from rlhf_platform.evaluation.dialogue import read_dialogue
from rlhf_platform.evaluation.gate_entries import OF_BRANCH, WER
from rlhf_platform.evaluation.regression import Column
from rlhf_platform.evaluation.report import EvalResult
from rlhf_platform.evaluation.speech import read_speech
from rlhf_platform.types import Scored, ScoredSample

LABEL = "evaluation"
"""Of what `rlhf eval` writes."""
_SCORES = "scores.jsonl"


@dataclass(frozen=True)
class Measured:
    """What an evaluation found."""

    folder: str
    """Where it lies."""
    columns: Mapping[str, Column]
    """By metric."""
    sessions: Mapping[str, str]
    """The session of each prompt that has others beside it."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads what `to_json` wrote."""
        found = json.loads(text)
        columns = {
            name: {prompt: (value, count) for prompt, (value, count) in column.items()}
            for name, column in found["columns"].items()
        }
        return cls(found["folder"], columns, found["sessions"])


def read_measured(folder: Path, branch: str) -> Measured:
    """What `rlhf eval` wrote to `folder` for a recipe of the branch. Raises RunError when it is not there."""
    if branch == "asr":
        return Measured(str(folder), _heard(folder), {})
    if branch == "tts":
        spoken = read_speech(folder, LABEL)
        names = dict.fromkeys([*spoken.names, *OF_BRANCH[branch]])
        return Measured(str(folder), {name: _column(spoken.said, spoken.values(name)) for name in names}, {})
    said = read_dialogue(folder, LABEL)
    ids = [each.prompt_id for each in said.replies]
    names = dict.fromkeys([*said.names, *OF_BRANCH[branch]])
    columns = {name: _column(ids, said.values(name)) for name in names}
    return Measured(str(folder), columns, {each.prompt_id: each.session for each in said.replies})


def write_scores(folder: Path, scored: Sequence[ScoredSample]) -> None:
    """Write `scores.jsonl`: what `evaluation.rewards` said of each held-out answer, one JSON object a line; of an
    answer that could not be scored, nothing."""
    lines = [
        json.dumps({"prompt_id": each.sample.prompt.id, "scores": dict(each.outcome.parts)}) + "\n"
        for each in scored
        if isinstance(each.outcome, Scored)
    ]
    (folder / _SCORES).write_text("".join(lines), "utf-8")


def _heard(folder: Path) -> dict[str, Column]:
    """Word errors of each clip, and its scores where they were written."""
    path, scored = folder / "evaluation.json", folder / _SCORES
    if not path.is_file():
        raise RunError(f"{folder}: no {path.name}: its evaluation is not complete; evaluate again")
    result = EvalResult.from_json(path.read_text("utf-8"))
    errors = {u.prompt_id: (float(u.errors.errors), float(u.errors.reference_words)) for u in result.utterances}
    rows = [json.loads(line) for line in scored.read_text("utf-8").splitlines()] if scored.is_file() else []
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        for name, value in row["scores"].items():
            found.setdefault(name, {})[row["prompt_id"]] = value
    return {WER: errors} | {name: _column(values, values.values()) for name, values in found.items()}


def _column(prompts: Iterable[str], values: Iterable[float]) -> Column:
    """Of each prompt its score; what is not a finite number is no score."""
    return {prompt: (float(value), 1.0) for prompt, value in zip(prompts, values, strict=True) if isfinite(value)}
