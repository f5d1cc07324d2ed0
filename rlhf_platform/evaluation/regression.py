"""Whether a checkpoint lost what another branch had learnt: a metric before and after, prompt by prompt."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite, nan
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from rlhf_platform.errors import DataError
from rlhf_platform.evaluation.bootstrap import Interval, wer_difference

Column = Mapping[str, tuple[float, float]]
"""A metric by prompt id, as what adds up and what it is divided by: errors and reference words, a score and 1. A prompt
without a score is not there."""

UNTOLD = 0.05
"""Share of the prompts scored before that may have no score after. Where more have none, the mean of the others says
nothing of the checkpoint: it may have lost just what it did badly."""
_LEAST = 1e-9
"""0.92 - 0.90 is a little more than 0.02."""


@dataclass(frozen=True)
class GateResult:
    """One metric of one recipe, before and after."""

    recipe: str
    metric: str
    higher_is_better: bool
    max_drop: float
    """The largest change for the worse that is let through, absolute: 0.02 of a WER is 2 points in percent."""
    before: float
    after: float
    difference: Interval
    """After minus before on the same prompts, with its paired bootstrap interval."""
    prompts: int
    """Scored before and after."""
    lost: int
    """Scored before, and not after."""
    evaluations: tuple[str, str] = ("", "")
    """Folders of the two evaluations."""

    @property
    def drop(self) -> tuple[float, float, float]:
        """The change for the worse, positive where it is one: its point, and the ends of its interval, the least
        first."""
        change = self.difference
        if self.higher_is_better:
            return -change.point, -change.high, -change.low
        return change.point, change.low, change.high

    @property
    def fell(self) -> bool:
        """Whether it is worse by more than `max_drop`."""
        return self.drop[0] > self.max_drop + _LEAST

    @property
    def certain(self) -> bool:
        """Whether the whole interval says what the point says."""
        _, least, most = self.drop
        return least > self.max_drop + _LEAST if self.fell else most <= self.max_drop + _LEAST

    @property
    def untold(self) -> bool:
        """Whether too many prompts have lost their score."""
        return self.lost > UNTOLD * (self.prompts + self.lost)

    @property
    def passed(self) -> bool:
        return not (self.fell or self.untold)

    @property
    def verdict(self) -> str:
        """In words, for a table."""
        if self.untold:
            return f"{self.lost} of {self.prompts + self.lost} prompts have no score any more"
        return ("fell" if self.fell else "held") + ("" if self.certain else ", not certain")


def judged(
    recipe: str,
    metric: str,
    before: Column,
    after: Column,
    *,
    higher_is_better: bool,
    max_drop: float,
    resamples: int = 10_000,
    confidence: float = 0.95,
    sessions: Mapping[str, str] | None = None,
) -> GateResult:
    """The result of two evaluations of the same prompts.

    `sessions`: by prompt id, what the prompt is drawn with by the bootstrap; one that is not there stands alone. Raises
    DataError when no prompt has the metric before, or one is counted differently after.
    """
    shared = [name for name in before if name in after]
    if not sum(count for _, count in before.values()):
        raise DataError(f"{recipe}: {metric}: no prompt has it before, so it cannot fall; take another metric")
    if not shared:
        nothing = Interval(nan, nan, nan, confidence)
        mean = sum(value for value, _ in before.values()) / sum(count for _, count in before.values())
        return GateResult(recipe, metric, higher_is_better, max_drop, mean, nan, nothing, 0, len(before))
    for name in shared:
        if before[name][1] != after[name][1]:
            raise DataError(f"{recipe}: prompt {name!r} has another reference after than before; evaluate again")
    # What is drawn together is one utterance with the sum of its errors and words.
    units: dict[str, list[float]] = {}
    for name in shared:
        sums = units.setdefault((sessions or {}).get(name, name), [0.0, 0.0, 0.0])
        for place, value in enumerate((before[name][0], after[name][0], before[name][1])):
            sums[place] += value
    first, second, counts = np.array(list(units.values())).T
    difference = wer_difference(first, second, counts, resamples=resamples, confidence=confidence)
    return GateResult(
        recipe,
        metric,
        higher_is_better,
        max_drop,
        float(first.sum() / counts.sum()),
        float(second.sum() / counts.sum()),
        difference,
        len(shared),
        len(before) - len(shared),
    )


def gate_table(results: Sequence[GateResult], title: str = "Regression gate") -> Table:
    """A row per metric."""
    shown = Table(title=title, box=box.SIMPLE_HEAD)
    for heading in ("recipe", "metric"):
        shown.add_column(heading, no_wrap=True)
    confidence = f"{100 * results[0].difference.confidence:g} % interval" if results else "interval"
    for heading in ("better", "prompts", "before", "after", "difference", confidence, "may fall by"):
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("verdict", no_wrap=True)
    for each in results:
        gap = each.difference
        shown.add_row(
            each.recipe,
            each.metric,
            "higher" if each.higher_is_better else "lower",
            str(each.prompts),
            f"{each.before:.4f}",
            f"{each.after:.4f}",
            f"{gap.point:+.4f}",
            f"[{gap.low:+.4f}, {gap.high:+.4f}]",
            f"{each.max_drop:g}",
            each.verdict,
        )
    return shown


def gate_json(results: Sequence[GateResult], before: str, after: str) -> str:
    """The results as one JSON document."""
    rows = []
    for each in results:
        said = {"fell": each.fell, "certain": each.certain, "passed": each.passed, "verdict": each.verdict}
        rows.append(_finite(asdict(each)) | said)
    passed = all(each.passed for each in results)
    return json.dumps({"before": before, "after": after, "passed": passed, "entries": rows}, indent=1) + "\n"


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """With null for what is not a number: JSON has no word for it."""
    return {
        name: _finite(value)
        if isinstance(value, dict)
        else None
        if isinstance(value, float) and not isfinite(value)
        else value
        for name, value in row.items()
    }
