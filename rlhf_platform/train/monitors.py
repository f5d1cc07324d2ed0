"""The limits that a run watches itself by. Everything is read from the history, so a resumed run decides the same."""

from collections.abc import Mapping, Sequence
from itertools import takewhile
from math import isfinite, isnan

from rlhf_platform.errors import MonitorError
from rlhf_platform.recipe.metrics import comes_seldom
from rlhf_platform.recipe.schema import MonitorConfig
from rlhf_platform.train.hints import NOT_A_NUMBER, Side, hint

History = Sequence[Mapping[str, float]]
"""The metrics of each step so far, the latest last."""

MISSED_AFTER = 5
"""Steps after which a run says that it has no such metric: by then each reward has answered with all its parts."""


def check_monitors(monitors: Sequence[MonitorConfig], history: History) -> list[str]:
    """A line for each warning that is new in the latest step. Raises MonitorError when one is to stop the run."""
    tripped = [(index, monitor, steps_past(monitor, history)) for index, monitor in enumerate(monitors)]
    for index, monitor, steps in tripped:
        if monitor.action == "stop" and steps >= monitor.for_steps:
            raise MonitorError(
                f"monitor: {_said(monitor, index, steps, history)}; resume with another limit, or mend the cause"
            )
    warned = [
        _said(monitor, index, steps, history)
        for index, monitor, steps in tripped
        if monitor.action == "warn" and steps == monitor.for_steps
    ]
    idle = [line for index, monitor in enumerate(monitors) for line in _idle(monitor, index, history)]
    return [f"monitor: {line}" for line in warned + idle]


def steps_past(monitor: MonitorConfig, history: History) -> int:
    """How many steps in a row, up to the latest, were past the limit, of those that have the metric; 0 if it has not.

    What is not a number is past every limit, before there is a baseline too. The steps of the baseline are past none.
    """
    if not history or monitor.metric not in history[-1]:
        return 0
    values = _values(monitor, history)
    limit = limit_of(monitor, history)
    first = _baseline_end(values, monitor.baseline)
    side, _ = _given(monitor)
    past = [isnan(v) or (i >= first and limit is not None and _beyond(side, v, limit)) for i, v in enumerate(values)]
    return len(list(takewhile(bool, reversed(past))))


def limit_of(monitor: MonitorConfig, history: History) -> float | None:
    """What the metric is held against: the recipe's number, or with `baseline` that share of the mean at the start.

    None before the run has `baseline` steps with a finite value, and for a mean of 0, of which every share is 0. Of a
    mean below 0 the limit is as far from it as above 0: -0.4 and `below: 0.5` make -0.6, half its size lower.
    """
    _, limit = _given(monitor)
    if monitor.baseline == 0:
        return limit
    mean = _baseline_mean(monitor, history)
    if not mean:
        return None
    return limit * mean if mean > 0 else (2 - limit) * mean


def _baseline_mean(monitor: MonitorConfig, history: History) -> float | None:
    start = [value for value in _values(monitor, history) if isfinite(value)][: monitor.baseline]
    return sum(start) / len(start) if len(start) == monitor.baseline else None


def _baseline_end(values: Sequence[float], baseline: int) -> int:
    """The index after that of the last value of the baseline."""
    finite = [index for index, value in enumerate(values) if isfinite(value)][:baseline]
    return finite[-1] + 1 if finite else 0


def _values(monitor: MonitorConfig, history: History) -> list[float]:
    return [metrics[monitor.metric] for metrics in history if monitor.metric in metrics]


def _given(monitor: MonitorConfig) -> tuple[Side, float]:
    """The one limit of a checked recipe."""
    if monitor.above is not None:
        return "above", monitor.above
    assert monitor.below is not None
    return "below", monitor.below


def _beyond(side: Side, value: float, limit: float) -> bool:
    return value > limit if side == "above" else value < limit


def _said(monitor: MonitorConfig, index: int, steps: int, history: History) -> str:
    values, (side, given) = _values(monitor, history), _given(monitor)
    past, meaning = f"{side} {limit_of(monitor, history) or 0:g}", hint(monitor.metric, side)
    if isnan(values[-1]):
        past, meaning = "not a number", NOT_A_NUMBER
    elif monitor.baseline > 0:
        mean = _baseline_mean(monitor, history)
        past += f" ({given:g} against a mean of {mean:g} over its first {monitor.baseline} steps)"
    row = f"for {steps} step{'s' if steps > 1 else ''}"
    meant = f": {meaning} (docs/monitors.md)" if meaning else ""
    return f"{monitor.metric} is {values[-1]:g}, {past}, {row}; at first {values[0]:g} (monitors[{index}]){meant}"


def _idle(monitor: MonitorConfig, index: int, history: History) -> list[str]:
    """A line, once, for a monitor that turns out to watch nothing."""
    values = _values(monitor, history)
    if not values and len(history) == MISSED_AFTER and not comes_seldom(monitor.metric):
        return [
            f"no step so far has {monitor.metric}, so monitors[{index}] watches nothing; metrics.jsonl has the names "
            "of this run's metrics"
        ]
    settled = bool(values) and monitor.baseline > 0 and len(values) == _baseline_end(values, monitor.baseline)
    if settled and monitor.metric in history[-1] and _baseline_mean(monitor, history) == 0:
        return [
            f"{monitor.metric} was 0 over its first {monitor.baseline} steps, and no share of that is a limit, so "
            f"monitors[{index}] watches nothing; give it a limit without baseline"
        ]
    return []
