"""Two runs side by side: what their recipes say differently, held-out WER, the metrics of their last steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, isfinite, nan
from pathlib import Path
from typing import Any

from rlhf_platform.errors import RunError
from rlhf_platform.evaluation.blocks import LEAST, block_length, mean_difference
from rlhf_platform.evaluation.bootstrap import Interval
from rlhf_platform.evaluation.report import EvalResult, Row, compare
from rlhf_platform.recipe.resume import flattened
from rlhf_platform.tracking.history import Run, read_metrics

ABSENT = "(not there)"
"""Stands for the value of a key that a recipe does not have."""
LAST = 4
"""Metrics are compared over one in so many of a run's steps: the last quarter."""
_NOT_METRICS = {"step", "time", "weight_version"}


@dataclass(frozen=True)
class KeyDifference:
    """A recipe key and its two values."""

    key: str
    a: Any
    b: Any


@dataclass(frozen=True)
class MetricDifference:
    """A training metric: the means over the last steps of each run."""

    name: str
    a: float
    b: float
    difference: Interval | None
    """b minus a; None with too few steps for an interval."""


@dataclass(frozen=True)
class Training:
    """The last steps of two runs."""

    steps_a: tuple[int, int]
    """First and last of the steps compared, from 1."""
    steps_b: tuple[int, int]
    paired: bool
    """Whether they are the same steps; the difference is then taken step by step."""
    blocks: tuple[int, int]
    """Steps in a block of the bootstrap, of each run."""
    metrics: tuple[MetricDifference, ...]


def recipe_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[KeyDifference]:
    """The keys whose values differ, as `algorithm.kl_coef`, in the order of `a`; a list is one value."""
    first, second = dict(flattened(a)), dict(flattened(b))
    keys = [*first, *(key for key in second if key not in first)]
    pairs = [KeyDifference(key, first.get(key, ABSENT), second.get(key, ABSENT)) for key in keys]
    return [pair for pair in pairs if pair.a != pair.b]


def heldout(a: Run, b: Run, *, confidence: float = 0.95) -> list[Row]:
    """WER of the weights that each run ended with, on the same clips; `before` of a row is `a`, `after` is `b`.

    A row for all clips, then one per group. Raises RunError when a run has no such evaluation, or the clips, their
    transcripts or the normaliser differ.
    """
    first, second = (replace(_final_evaluation(run), label=str(run.path)) for run in (a, b))
    try:
        rows = compare([first], [second], confidence=confidence)
    except ValueError as error:
        raise RunError(str(error)) from None
    for one, other in zip(first.utterances, second.utterances, strict=True):
        if one.reference != other.reference:
            texts = f"{one.reference!r} and {other.reference!r}"
            raise RunError(
                f"{a.path} and {b.path}: clip {one.prompt_id} has the transcripts {texts}: use the same ones"
            )
    return rows


def training(a: Run, b: Run, *, confidence: float = 0.95, seed: int = 0) -> Training:
    """Means of every metric that both runs logged, over the last quarter of the steps that each has taken.

    Raises RunError when a run has taken no step.
    """
    first, second = _last_steps(a), _last_steps(b)
    steps_a, steps_b = [row["step"] for row in first], [row["step"] for row in second]
    paired = steps_a == steps_b
    names = [name for name in _names(first) if name in _names(second) and name not in _NOT_METRICS]
    found = [(name, *_values(first, second, name, paired)) for name in names]
    metrics = [
        MetricDifference(
            name=name,
            a=sum(x) / len(x),
            b=sum(y) / len(y),
            difference=mean_difference(x, y, paired=paired, confidence=confidence, seed=seed)
            if min(len(x), len(y)) >= LEAST
            else None,
        )
        for name, x, y in found
        if x and y
    ]
    return Training(
        steps_a=(steps_a[0], steps_a[-1]),
        steps_b=(steps_b[0], steps_b[-1]),
        paired=paired,
        blocks=(block_length(len(first)), block_length(len(second))),
        metrics=tuple(metrics),
    )


def _final_evaluation(run: Run) -> EvalResult:
    """Of the weights that the run ended with: without RL steps those that it began with."""
    name = "evaluation_after_RL.json" if run.steps != 0 else "evaluation_before_RL.json"
    return read_evaluation(run.path / name)


def read_evaluation(path: Path) -> EvalResult:
    """Raises RunError when the file is not there or not an evaluation."""
    if not path.is_file():
        raise RunError(f"{path.parent}: no {path.name}: the run has not come so far")
    try:
        return EvalResult.from_json(path.read_text("utf-8"))
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: not an evaluation of this version: {error}") from None


def _last_steps(run: Run) -> Sequence[Mapping[str, Any]]:
    rows = read_metrics(run.path)
    if not rows:
        raise RunError(f"{run.path}: no RL step in metrics.jsonl, so there are no training metrics to compare")
    return rows[-ceil(len(rows) / LAST) :]


def _names(rows: Sequence[Mapping[str, Any]]) -> dict[str, None]:
    """Every metric of the rows, in order of appearance: some are there at some steps only."""
    return dict.fromkeys(name for row in rows for name in row)


def _values(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]], name: str, paired: bool
) -> tuple[list[float], list[float]]:
    """A metric of both runs in order, without the steps that have no finite value (one of failed rewards has none)."""
    x, y = [_number(row.get(name)) for row in first], [_number(row.get(name)) for row in second]
    if paired:
        both = [(u, v) for u, v in zip(x, y, strict=True) if isfinite(u) and isfinite(v)]
        return [u for u, _ in both], [v for _, v in both]
    return [u for u in x if isfinite(u)], [v for v in y if isfinite(v)]


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else nan
