"""What a system said in a speech evaluation: the rows of `<run>/speech_<label>.jsonl`."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from os.path import normpath
from pathlib import Path
from typing import Any

from rlhf_platform.data.manifest import kind_of, raise_if_any
from rlhf_platform.errors import DataError, RunError

_NEEDED = {"prompt_id": "text", "text": "text", "instruction": "text", "ended": "true/false", "reference": "text"}
_MAY_BE = {"wav": "text", "metadata": "object", "scores": "object", "tokens": "list", "language": "text"}


@dataclass(frozen=True)
class Utterance:
    """One prompt and what came of it."""

    prompt_id: str
    text: str
    """To speak."""
    instruction: str
    wav: Path | None
    """None where nothing could be decoded."""
    ended: bool
    """False where it was cut at the longest length."""
    reference: Path
    """The teacher's clip of the prompt."""
    language: str = "en"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    """Those that came out."""
    tokens: tuple[int, ...] | None = None
    """Of the completion."""

    @property
    def whole(self) -> bool:
        return self.wav is not None and self.ended


System = Mapping[str, Utterance]
"""What one system said, by prompt id."""


def find_utterances(run: Path, label: str) -> Path:
    """The file of a run's evaluation. Raises `RunError` when it has none of that label."""
    path = run / f"speech_{label}.jsonl"
    if not path.is_file():
        there = ", ".join(sorted(p.stem.removeprefix("speech_") for p in run.glob("speech_*.jsonl"))) or "none"
        raise RunError(f"{run}: no {path.name}; labels of its speech evaluations: {there}")
    return path


def read_utterances(path: Path) -> dict[str, Utterance]:
    """All rows by prompt id, in order. Raises one `DataError` that names the bad rows, or says that there are none."""
    found: dict[str, Utterance] = {}
    problems: list[tuple[int, str]] = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        row = _parse(path, line)
        if isinstance(row, str):
            problems.append((number, row))
        elif found.setdefault(row.prompt_id, row) is not row:
            problems.append((number, f"prompt_id {row.prompt_id!r} is there twice; a prompt counts once"))
    raise_if_any(path, problems, "cannot be used")
    if not found:
        raise DataError(f"{path}: empty: it has one JSON object per prompt")
    return found


def _parse(path: Path, line: bytes) -> Utterance | str:
    """The row, or what is wrong with it. Keys that nothing here reads are left alone."""
    try:
        values = json.loads(line)
    except ValueError as error:
        return f"not JSON: {error}"
    if not isinstance(values, dict):
        return f"a row is a JSON object, not {kind_of(values)}"
    for key in _NEEDED:
        if key not in values:
            return f"no {key!r}; every row has {', '.join(_NEEDED)} and wav"
    values = {key: value for key, value in values.items() if value is not None}
    for key, kind in (_NEEDED | _MAY_BE).items():
        if key in values and kind_of(values[key]) != kind:
            return f"{key} is {kind}, not {kind_of(values[key])} {values[key]!r}"
    wav = Path(normpath(path.parent / values["wav"])) if "wav" in values else None
    if wav and not wav.is_file():
        return f"wav {values['wav']!r} does not exist; paths are relative to the folder of the file"
    scores = {name: score for name, score in values.get("scores", {}).items() if score is not None}
    for name, score in scores.items():
        if kind_of(score) not in ("number", "whole number") or not math.isfinite(score):
            return f"score {name} is {score!r}, not a finite number"
    return Utterance(
        prompt_id=values["prompt_id"],
        text=values["text"],
        instruction=values["instruction"],
        wav=wav,
        ended=values["ended"],
        reference=Path(normpath(path.parent / values["reference"])),
        language=values.get("language", "en"),
        metadata=values.get("metadata", {}),
        scores={name: float(score) for name, score in scores.items()},
        tokens=tuple(values["tokens"]) if values.get("tokens") else None,
    )
