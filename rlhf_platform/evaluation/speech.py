"""What an evaluation of speech found, and the table that compares several of the same prompts."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np
import soundfile as sf
from rich import box
from rich.table import Table

from rlhf_platform.data.audio import SAMPLE_RATE
from rlhf_platform.errors import DataError
from rlhf_platform.evaluation.arena import Duel, outcome, tally
from rlhf_platform.evaluation.bootstrap import Interval, wer_difference, wer_interval
from rlhf_platform.evaluation.utterances import System, find_utterances, read_utterances
from rlhf_platform.types import Scored, ScoredSample, Sounds, StopReason

QUALITY = "quality"
"""The score of `evaluation.rewards` in all, by which an answer wins against another."""
ENDED = "ended"
UNSCORED = "unscored"
"""Whether a prompt has no scores, as when its speech is silent: the means are of the others."""


@dataclass(frozen=True)
class SpeechResult:
    """What one policy said to the held-out prompts."""

    label: str
    said: System

    def values(self, name: str) -> list[float]:
        """A score of each prompt, in order; NaN where it did not come out."""
        if name == ENDED:
            return [float(each.whole) for each in self.said.values()]
        if name == UNSCORED:
            return [float(not each.scores) for each in self.said.values()]
        return [each.scores.get(name, float("nan")) for each in self.said.values()]

    @property
    def names(self) -> list[str]:
        """All scores, in order of appearance."""
        return list(dict.fromkeys(name for each in self.said.values() for name in each.scores))

    def mean(self, name: str) -> float:
        """Over the prompts that have it; NaN where none has."""
        found = [value for value in self.values(name) if isfinite(value)]
        return sum(found) / len(found) if found else float("nan")


def write_speech(folder: Path, label: str, scored: Sequence[ScoredSample], sounds: Sounds) -> SpeechResult:
    """Write what was said as `speech/<label>/*.wav` and `speech_<label>.jsonl`, and read it as others will."""
    name = label.replace(" ", "_")
    clips = folder / "speech" / name
    clips.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, each in enumerate(scored):
        wave, wav = sounds.wave(number), f"speech/{name}/{number:04d}.wav"
        if wave is not None:
            sf.write(folder / wav, wave, SAMPLE_RATE, subtype="PCM_16")
        sample, prompt = each.sample, each.sample.prompt
        found = each.outcome
        row = {
            "prompt_id": prompt.id,
            "text": prompt.reference,
            "instruction": str(prompt.metadata.get("instruction", "")),
            "wav": None if wave is None else wav,
            "ended": sample.stop_reason is StopReason.EOS,
            "reference": os.path.relpath(prompt.audio, folder),
            "language": prompt.language,
            "metadata": {key: value for key, value in prompt.metadata.items() if key != "codec"},
            "scores": {**found.parts, QUALITY: found.value} if isinstance(found, Scored) else {},
            "tokens": list(sample.tokens),
        }
        lines.append(json.dumps(row) + "\n")
    path = folder / f"speech_{name}.jsonl"
    draft = path.with_suffix(".new")
    draft.write_text("".join(lines), "utf-8")
    draft.replace(path)  # a run that goes on reads it whole or makes it anew
    return SpeechResult(label, read_utterances(path))


def hand_on(source: Path, label: str, folder: Path, as_label: str) -> None:
    """Make an evaluation of run `source` one of run `folder`, which lies beside it, under another label: the same
    policy need not speak to the same prompts again."""
    old, new = (each.replace(" ", "_") for each in (label, as_label))
    shutil.copytree(source / "speech" / old, folder / "speech" / new)
    said = (source / f"speech_{old}.jsonl").read_text("utf-8")
    (folder / f"speech_{new}.jsonl").write_text(said.replace(f'"speech/{old}/', f'"speech/{new}/'), "utf-8")


def read_speech(folder: Path, label: str) -> SpeechResult:
    """What `write_speech` wrote. Raises RunError when the folder has no such evaluation."""
    return SpeechResult(label, read_utterances(find_utterances(folder, label.replace(" ", "_"))))


def difference(
    before: SpeechResult, after: SpeechResult, name: str, confidence: float, resamples: int
) -> Interval | None:
    """Of the means, after minus before, over the prompts that both have the score of; paired bootstrap over prompts.

    None when there is none.
    """
    pairs = [
        (a, b) for a, b in zip(before.values(name), after.values(name), strict=True) if isfinite(a) and isfinite(b)
    ]
    if not pairs:
        return None
    first, second = (np.array(side) for side in zip(*pairs, strict=True))
    # A mean of scores is an error rate with one word to a prompt.
    return wer_difference(first, second, np.ones(len(pairs)), confidence=confidence, resamples=resamples)


def mean_interval(result: SpeechResult, name: str, confidence: float, resamples: int) -> Interval:
    """The mean of a score, with its bootstrap interval over prompts. Raises DataError when no prompt has it."""
    found = np.array([value for value in result.values(name) if isfinite(value)])
    if not len(found):
        raise DataError(f"{result.label}: no prompt has {name}")
    return wer_interval(found, np.ones(len(found)), confidence=confidence, resamples=resamples)


def win_rate(start: SpeechResult, other: SpeechResult, tie_margin: float = 0.0) -> Duel | None:
    """How often the other is better than the start, by `QUALITY`. What did not end or decode loses unheard.

    None when not one prompt can be judged. Raises DataError when the prompts differ.
    """
    if list(start.said) != list(other.said):
        raise DataError(f"{start.label} and {other.label}: evaluated on different prompts; use the same")
    outcomes = [
        outcome(a, b, a.scores.get(QUALITY), b.scores.get(QUALITY), tie_margin)
        for a, b in zip(other.said.values(), start.said.values(), strict=True)
    ]
    return tally(other.label, start.label, outcomes) if any(told is not None for told in outcomes) else None


def table(results: Mapping[str, SpeechResult], title: str, confidence: float, resamples: int) -> Table:
    """A row per score and a column per policy, the first of which is the start that the others are compared with."""
    (start_name, start), *others = results.items()
    shown = Table(title=title, box=box.SIMPLE_HEAD)
    shown.add_column("held-out score", no_wrap=True)
    shown.add_column(start_name, justify="right", no_wrap=True)
    for name, _ in others:
        shown.add_column(name, justify="right", no_wrap=True)
        shown.add_column(f"difference, {100 * confidence:g} %", justify="right", no_wrap=True)
    for score in [*start.names, ENDED, UNSCORED]:
        row = [score, f"{start.mean(score):.3f}"]
        for _, other in others:
            gap = difference(start, other, score, confidence, resamples)
            apart = f"{gap.point:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]" if gap else "-"
            row += [f"{other.mean(score):.3f}", apart]
        shown.add_row(*row)
    wins = ["win rate, %", ""]
    for _, other in others:
        duel = win_rate(start, other)
        wins += ["-", "-"] if duel is None else _percent(duel.rate)
    shown.add_row(*wins)
    return shown


def _percent(rate: Interval) -> list[str]:
    return [f"{100 * rate.point:.1f}", f"[{100 * rate.low:.1f}, {100 * rate.high:.1f}]"]
