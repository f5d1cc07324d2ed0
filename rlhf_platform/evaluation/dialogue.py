"""What a policy answered in a dialogue evaluation: its rows in a run's folder, means over sessions, wins.

The turns of a session are no independent prompts: what was said in one is the ground of the next. Intervals are by the
bootstrap over sessions, whose turns are drawn together.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os.path import normpath
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rlhf_platform.data.dialogue import Turn, session_of, split_reply
from rlhf_platform.data.evasive import is_evasive
from rlhf_platform.data.manifest import raise_if_any
from rlhf_platform.data.text import words
from rlhf_platform.errors import DataError, RunError
from rlhf_platform.evaluation.arena import Duel, outcome, tally
from rlhf_platform.evaluation.bootstrap import Interval, wer_difference, wer_interval
from rlhf_platform.evaluation.speech import ENDED, QUALITY, UNSCORED
from rlhf_platform.types import Scored, ScoredSample, StopReason

EVASIVE = "evasive"
"""Whether the reply excuses itself, by the phrases of `rlhf_platform.data.evasive`."""

COSTS = ("verdicts", "cached", "tokens")
"""Parts of a judge's answer that say what asking it took, and nothing of the reply."""


@dataclass(frozen=True)
class Reply:
    """One user turn and what the policy answered."""

    prompt_id: str
    session: str
    """What other turns of the same dialogue have too."""
    persona: str
    history: tuple[Turn, ...]
    """Before this turn; clips by absolute path."""
    said: str
    audio: str
    """Clip of what was said, absolute."""
    reasoning: str
    reply: str
    """Without the trace."""
    reference: str
    language: str
    ended: bool
    """False where it was cut at the longest length."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Those that came out."""

    @property
    def first_id(self) -> str:
        """The prompt that the dialogue was played from; later turns are called `first#2`, or `first~1.0#2`."""
        return _first(self.prompt_id)

    @property
    def turn(self) -> int:
        """Which user turn of the dialogue this is, counted from 1."""
        return len(self.history) // 2 + 1

    @property
    def whole(self) -> bool:
        """Whether it ended and says something."""
        return self.ended and bool(self.reply)


@dataclass(frozen=True)
class DialogueResult:
    """What one policy answered to the held-out turns."""

    label: str
    replies: tuple[Reply, ...]

    @property
    def names(self) -> list[str]:
        """All scores, in order of appearance, without `COSTS`."""
        names = dict.fromkeys(name for each in self.replies for name in each.scores)
        return [name for name in names if name.rpartition(".")[2] not in COSTS]

    def values(self, name: str) -> npt.NDArray[np.float64]:
        """A score, or `ENDED`, `UNSCORED` or `EVASIVE`, of each reply (N,), in order; NaN where it did not come out."""
        of = _OF_REPLY.get(name, lambda each: each.scores.get(name, float("nan")))
        return np.array([of(each) for each in self.replies], dtype=np.float64)

    def mean(self, name: str) -> float:
        """Over the replies that have it; NaN where none has."""
        found = self.values(name)
        return float(np.nanmean(found)) if np.isfinite(found).any() else float("nan")


_OF_REPLY: Mapping[str, Callable[[Reply], float]] = {
    ENDED: lambda each: float(each.ended),
    UNSCORED: lambda each: float(not each.scores),
    EVASIVE: lambda each: float(
        is_evasive(words(each.reply, each.language), words(each.reference, each.language), each.language)
    ),
}


def write_dialogue(folder: Path, label: str, scored: Sequence[ScoredSample]) -> DialogueResult:
    """Write the answers as `dialogue_<label>.jsonl`, and read it as others will.

    Turns are of one session where the row's `metadata.session` says so, or where one followed the other in play; else a
    row is a session of its own.
    """
    path = folder / _file(label)
    draft = path.with_suffix(".new")
    draft.write_text("".join(json.dumps(_row(folder, each)) + "\n" for each in scored), "utf-8")
    draft.replace(path)  # a run that goes on reads it whole or makes it anew
    return read_dialogue(folder, label)


def read_dialogue(folder: Path, label: str) -> DialogueResult:
    """What `write_dialogue` wrote. Raises `RunError` when the folder has no such file, `DataError` for bad rows."""
    path = folder / _file(label)
    if not path.is_file():
        there = ", ".join(sorted(p.stem.removeprefix("dialogue_") for p in folder.glob("dialogue_*.jsonl"))) or "none"
        raise RunError(f"{folder}: no {path.name}; labels of its dialogue evaluations: {there}")
    found, problems = [], []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        try:
            found.append(_reply(folder, json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            problems.append((number, f"not a row of a dialogue evaluation: {type(error).__name__} {error}"))
    raise_if_any(path, problems, "cannot be used")
    if not found:
        raise DataError(f"{path}: empty: it has one JSON object per turn")
    return DialogueResult(label, tuple(found))


def mean_interval(result: DialogueResult, name: str, confidence: float, resamples: int) -> Interval:
    """The mean of a score over the replies that have it. Raises `DataError` when none has."""
    found = result.values(name)
    if not np.isfinite(found).any():
        raise DataError(f"{result.label}: no reply has {name}")
    sums, counts = _by_session(result, found)
    return wer_interval(sums, counts, confidence=confidence, resamples=resamples)


def difference(
    before: DialogueResult, after: DialogueResult, name: str, confidence: float, resamples: int
) -> Interval | None:
    """Of the means, after minus before, over the turns of which both have the score; both on the same draws.

    None when there is none. Raises `DataError` when the turns differ.
    """
    _check_same(before, after)
    first, second = before.values(name), after.values(name)
    both = np.where(np.isfinite(first) & np.isfinite(second), 1.0, np.nan)
    if not np.isfinite(both).any():
        return None
    (sums, counts), (others, _) = (_by_session(before, values * both) for values in (first, second))
    return wer_difference(sums, others, counts, confidence=confidence, resamples=resamples)


def by_turn(result: DialogueResult, name: str, confidence: float, resamples: int) -> dict[int, Interval]:
    """The mean of a score by the number of the user's turn; turns without the score are left out."""
    numbers = sorted({each.turn for each in result.replies})
    parts = {n: DialogueResult(result.label, tuple(r for r in result.replies if r.turn == n)) for n in numbers}
    return {
        number: mean_interval(part, name, confidence, resamples)
        for number, part in parts.items()
        if np.isfinite(part.values(name)).any()
    }


def win_rate(
    start: DialogueResult,
    other: DialogueResult,
    name: str = QUALITY,
    *,
    tie_margin: float = 0.0,
    confidence: float = 0.95,
    resamples: int = 10_000,
) -> Duel | None:
    """How often the other is better than the start, by a score of each turn; `rate` has its interval over sessions.

    What was cut or says nothing loses unheard. None when not one turn can be judged. Raises `DataError` when the turns
    differ.
    """
    _check_same(start, other)
    outcomes = [
        outcome(a, b, a.scores.get(name), b.scores.get(name), tie_margin)
        for a, b in zip(other.replies, start.replies, strict=True)
    ]
    told = np.array([float("nan") if each is None else each for each in outcomes])
    if not np.isfinite(told).any():
        return None
    rate = wer_interval(*_by_session(start, told), confidence=confidence, resamples=resamples)
    return replace(tally(other.label, start.label, outcomes), rate=rate)


def _by_session(
    result: DialogueResult, values: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Sum and number (S,) of the finite values (N,) of each session: a mean of scores is an error rate with one word to
    a turn."""
    places = {session: i for i, session in enumerate(dict.fromkeys(each.session for each in result.replies))}
    of_reply = [places[each.session] for each in result.replies]
    finite = np.isfinite(values)
    sums, counts = np.zeros(len(places)), np.zeros(len(places))
    np.add.at(sums, of_reply, np.where(finite, values, 0.0))
    np.add.at(counts, of_reply, finite)
    return sums, counts


def _check_same(one: DialogueResult, other: DialogueResult) -> None:
    if [each.prompt_id for each in one.replies] != [each.prompt_id for each in other.replies]:
        raise DataError(f"{one.label} and {other.label}: evaluated on different turns; use the same")


def _first(prompt_id: str) -> str:
    return prompt_id.partition("#")[0].partition("~")[0]


def _file(label: str) -> str:
    return f"dialogue_{label.replace(' ', '_')}.jsonl"


def _row(folder: Path, scored: ScoredSample) -> dict[str, Any]:
    sample, prompt, found = scored.sample, scored.sample.prompt, scored.outcome
    session = session_of(prompt.audio, prompt.metadata)
    reasoning, reply = split_reply(sample.text)
    return {
        "prompt_id": prompt.id,
        "session": str(prompt.metadata.get("session", _first(prompt.id))),
        "persona": session.persona,
        "history": [_written(folder, turn) for turn in session.history],
        "said": session.said,
        "audio": os.path.relpath(prompt.audio, folder),
        "reasoning": reasoning,
        "reply": reply,
        "reference": prompt.reference,
        "language": prompt.language,
        "ended": sample.stop_reason is StopReason.EOS,
        "scores": {**found.parts, QUALITY: found.value} if isinstance(found, Scored) else {},
    }


def _written(folder: Path, turn: Turn) -> dict[str, Any]:
    audio = {"audio": os.path.relpath(turn.audio, folder)} if turn.audio else {}
    return {"role": turn.role, "text": turn.text, **audio, **({"reasoning": turn.reasoning} if turn.reasoning else {})}


def _reply(folder: Path, row: Mapping[str, Any]) -> Reply:
    def placed(path: str) -> str:
        return normpath(folder / path) if path else ""

    history = tuple(
        Turn(turn["role"], turn["text"], placed(turn.get("audio", "")), (), turn.get("reasoning", ""))
        for turn in row["history"]
    )
    return Reply(**{**row, "history": history, "audio": placed(row["audio"])})
