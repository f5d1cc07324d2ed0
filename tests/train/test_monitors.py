import pytest

from rlhf_platform.errors import MonitorError
from rlhf_platform.recipe.schema import MonitorConfig
from rlhf_platform.train.monitors import check_monitors, steps_past


def history(*values: float | None) -> list[dict[str, float]]:
    return [{} if value is None else {"kl": value} for value in values]


@pytest.mark.parametrize(
    ("values", "expected"),
    [((), 0), ((2.0,), 1), ((1.0,), 0), ((2, 0.5, 3, 4), 2), ((2, None, 3), 1), ((2, None), 0), ((float("nan"), 2), 2)],
)
def test_the_steps_in_a_row_past_a_limit(values: tuple[float | None, ...], expected: int) -> None:
    assert steps_past(MonitorConfig("kl", above=1.0), history(*values)) == expected


def test_a_limit_from_below() -> None:
    assert steps_past(MonitorConfig("kl", below=1.0), history(1.0, 0.5, float("nan"))) == 2


def test_a_warning_is_said_once_when_it_has_lasted_long_enough() -> None:
    monitors = [MonitorConfig("kl", above=1.0, for_steps=2, action="warn")]
    said = [check_monitors(monitors, history(*[2.0] * steps)) for steps in range(1, 5)]
    assert said == [[], ["monitor: kl is 2, above 1 for 2 steps (monitors)"], [], []]


def test_a_limit_that_stops_says_the_metric_its_value_and_the_limit() -> None:
    monitors = [MonitorConfig("kl", below=0.1)]
    check_monitors(monitors, history(0.2))
    with pytest.raises(MonitorError, match=r"^monitor: kl is 0.05, below 0.1 for 1 step \(monitors\); resume with"):
        check_monitors(monitors, history(0.2, 0.05))
