"""The limits that a run watches itself by."""

from collections.abc import Mapping, Sequence

from rlhf_platform.errors import MonitorError
from rlhf_platform.recipe.schema import MonitorConfig

History = Sequence[Mapping[str, float]]
"""The metrics of each step so far, the latest last."""


def check_monitors(monitors: Sequence[MonitorConfig], history: History) -> list[str]:
    """A line for each warning that is new in the latest step. Raises MonitorError when one is to stop the run."""
    tripped = [(monitor, steps_past(monitor, history)) for monitor in monitors]
    for monitor, steps in tripped:
        if monitor.action == "stop" and steps >= monitor.for_steps:
            raise MonitorError(
                f"monitor: {_said(monitor, steps, history)}; resume with another limit, or mend the cause"
            )
    return [
        f"monitor: {_said(monitor, steps, history)}"
        for monitor, steps in tripped
        if monitor.action == "warn" and steps == monitor.for_steps
    ]


def steps_past(monitor: MonitorConfig, history: History) -> int:
    """How many steps in a row, up to the latest, were past the limit; a step without the metric breaks the row."""
    count = 0
    for metrics in reversed(history):
        value = metrics.get(monitor.metric)
        if value is None or _within(monitor, value):
            break
        count += 1
    return count


def _within(monitor: MonitorConfig, value: float) -> bool:
    """False for what is not a number too: no comparison with it holds."""
    above = monitor.above is None or value <= monitor.above
    below = monitor.below is None or value >= monitor.below
    return above and below and value == value


def _said(monitor: MonitorConfig, steps: int, history: History) -> str:
    limit = f"above {monitor.above:g}" if monitor.above is not None else f"below {monitor.below:g}"
    value = history[-1][monitor.metric]
    return f"{monitor.metric} is {value:g}, {limit} for {steps} step{'s' if steps > 1 else ''} (monitors)"
