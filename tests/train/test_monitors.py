"""Limits on synthetic histories, and the shipped sets."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_platform.errors import MonitorError
from rlhf_platform.recipe.load import load_recipe
from rlhf_platform.recipe.metrics import METRICS, PER_TERM
from rlhf_platform.recipe.schema import MonitorConfig
from rlhf_platform.recipe.validate import describe, problems
from rlhf_platform.train.hints import HINTS
from rlhf_platform.train.monitors import MISSED_AFTER, check_monitors, limit_of, steps_past

NAN = float("nan")
RECIPES = Path(__file__).parents[2] / "recipes"
SETS = sorted((RECIPES / "monitors").glob("*.yaml"))


def history(*values: float | None) -> list[dict[str, float]]:
    return [{} if value is None else {"kl": value} for value in values]


@pytest.mark.parametrize(
    ("values", "expected"),
    [((), 0), ((2.0,), 1), ((1.0,), 0), ((2, 0.5, 3, 4), 2), ((2, None, 3), 2), ((2, None), 0), ((NAN, 2), 2)],
)
def test_the_steps_in_a_row_past_a_limit(values: tuple[float | None, ...], expected: int) -> None:
    """A step that does not have the metric, as one without an evaluation, neither counts nor breaks the row."""
    assert steps_past(MonitorConfig("kl", above=1.0), history(*values)) == expected


def test_a_limit_from_below() -> None:
    assert steps_past(MonitorConfig("kl", below=1.0), history(1.0, 0.5, NAN)) == 2


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.1,), 0),
        ((4, 6, 2.6), 0),
        ((4, 6, 2.4), 1),
        ((4, 6, 2.4, 2.4, None, 1), 3),
        ((4, None, 6, 1), 1),
        ((4, NAN), 1),
        ((4, NAN, 6, 1), 1),
        ((1, 1, 1), 0),
    ],
)
def test_a_limit_that_is_a_share_of_the_start(values: tuple[float | None, ...], expected: int) -> None:
    """Half of the mean of the first two steps that have a number, 5 where they are 4 and 6; they trip nothing."""
    assert steps_past(MonitorConfig("kl", below=0.5, baseline=2), history(*values)) == expected


@pytest.mark.parametrize(
    ("start", "share", "limit"), [(0.4, 0.5, 0.2), (-0.4, 0.5, -0.6), (-0.4, 1.5, -0.2), (0.0, 0.5, None)]
)
def test_a_start_below_zero_leaves_the_limit_as_far_away(start: float, share: float, limit: float | None) -> None:
    found = limit_of(MonitorConfig("kl", below=share, baseline=1), history(start))
    assert found == (limit if limit is None else pytest.approx(limit))


def test_a_warning_is_said_once_when_it_has_lasted_long_enough() -> None:
    monitors = [MonitorConfig("groups_with_spread", above=1.0, for_steps=2, action="warn")]
    said = [check_monitors(monitors, [{"groups_with_spread": 2.0}] * steps) for steps in range(1, 5)]
    words = "monitor: groups_with_spread is 2, above 1, for 2 steps; at first 2 (monitors[0])"
    assert said == [[], [words], [], []]


def test_a_limit_that_stops_says_value_limit_start_meaning_and_way_out() -> None:
    monitors = [MonitorConfig("kl", above=9), MonitorConfig("completion_tokens", below=0.5, baseline=2, for_steps=2)]
    lengths = [{"completion_tokens": value} for value in (4.0, 6.0, 2.0, 1.5)]
    check_monitors(monitors, lengths[:3])
    with pytest.raises(MonitorError) as caught:
        check_monitors(monitors, lengths)
    assert str(caught.value) == (
        "monitor: completion_tokens is 1.5, below 2.5 (0.5 against a mean of 5 over its first 2 steps), for 2 steps; "
        "at first 4 (monitors[1]): short completions are what the reward pays for: gate it by WER "
        "(docs/monitors.md); resume with another limit, or mend the cause"
    )


def test_what_is_not_a_number_stops_before_there_is_a_baseline() -> None:
    with pytest.raises(MonitorError, match=r"^monitor: kl is nan, not a number, for 1 step; at first 4 \(monitors"):
        check_monitors([MonitorConfig("kl", above=2, baseline=9)], history(4, NAN))


def test_a_monitor_that_turns_out_to_watch_nothing_says_so_once() -> None:
    monitors = [
        MonitorConfig("kl", above=2, baseline=3),
        MonitorConfig("reward/a.f0", above=1),
        MonitorConfig("heldout_wer", above=1),
    ]
    said = [check_monitors(monitors, history(*[0] * steps)) for steps in range(1, MISSED_AFTER + 3)]
    assert [len(lines) for lines in said] == [0, 0, 1, 0, 1, 0, 0]
    assert said[2][0].startswith("monitor: kl was 0 over its first 3 steps")
    assert said[4][0].startswith("monitor: no step so far has reward/a.f0, so monitors[1] watches nothing")


def decisions(monitors: list[MonitorConfig], values: list[float | None], done: int = 0) -> list[object]:
    """What is said after each step past `done`, the error of one that stops included."""
    made: list[object] = []
    for steps in range(done + 1, len(values) + 1):
        try:
            made.append(check_monitors(monitors, history(*values[:steps])))
        except MonitorError as error:
            made.append(str(error))
    return made


@given(
    st.lists(st.sampled_from([None, NAN, 0.0, 0.5, 1.0, 2.0]), max_size=12),
    st.integers(0, 12),
    st.sampled_from(["above", "below"]),
    st.integers(0, 3),
    st.integers(1, 3),
    st.sampled_from(["warn", "stop"]),
)
def test_a_resumed_run_decides_the_same(
    values: list[float | None], cut: int, side: str, baseline: int, for_steps: int, action: str
) -> None:
    monitors = [MonitorConfig("kl", **{side: 1.0}, baseline=baseline, for_steps=for_steps, action=action)]
    assert decisions(monitors, values, done=cut) == decisions(monitors, values)[cut:]


@given(st.lists(st.sampled_from([1.0, 4.0, NAN]), max_size=20), st.integers(0, 4), st.integers(1, 4))
def test_a_row_is_warned_of_once(values: list[float], baseline: int, for_steps: int) -> None:
    """Against a count of the rows from the front."""
    monitor = MonitorConfig("kl", above=2.0, baseline=baseline, for_steps=for_steps, action="warn")
    start = [v for v in values if not math.isnan(v)][:baseline]
    limit = 2 * sum(start) / baseline if baseline and len(start) == baseline else 2.0 if not baseline else math.inf
    warned, row, seen = 0, 0, 0
    for value in values:
        in_baseline = seen < baseline
        seen += not math.isnan(value)
        row = row + 1 if math.isnan(value) or (not in_baseline and value > limit) else 0
        warned += row == for_steps
    assert sum(len(lines) for lines in decisions([monitor], list(values)) if isinstance(lines, list)) == warned


@pytest.mark.parametrize("monitors", SETS, ids=lambda path: path.stem)
def test_a_shipped_set_is_valid_under_a_recipe_and_each_limit_has_a_hint(monitors: Path, tmp_path: Path) -> None:
    quickstart = RECIPES / "asr" / "quickstart.yaml"
    (tmp_path / "r.yaml").write_text(f"extends: [{quickstart}, {monitors}]\nname: a\n")
    loaded = load_recipe(tmp_path / "r.yaml")
    assert problems(loaded) == []
    assert describe(loaded).endswith("reward 1 x wer_reward")
    sides = {(m.metric, "above" if m.above is not None else "below") for m in loaded.recipe.monitors}
    assert len(sides) == len(loaded.recipe.monitors) > 4
    assert sides <= HINTS.keys()


HEALTHY = {
    "completion_tokens": (20.0, 10.0),
    "cut": (0.3, 0.0),
    "empty_rate": (0.05, 0.0),
    "repeated_ngram_rate": (0.05, 0.0),
    "deletion_rate": (0.1, 0.2),
    "insertion_rate": (0.7, 0.1),
    "evasive_rate": (0.0, 0.0),
    "entropy": (1.0, 0.2),
    "importance_weight": (1.0, 0.99),
    "logprob_diff_max": (1e-5, 2e-4),
}
"""Start and end of a run like recipes/asr/whisper_tiny.yaml: it unlearns insertions, and half its length with them."""


@pytest.mark.parametrize(
    ("metric", "end", "stops"),
    [
        (None, 0.0, False),
        ("completion_tokens", 3.0, True),
        ("completion_tokens", 60.0, True),
        ("empty_rate", 0.9, True),
    ],
)
def test_the_set_for_asr_lets_a_healthy_run_pass_and_stops_a_collapse(
    metric: str | None, end: float, stops: bool
) -> None:
    recipe = load_recipe(RECIPES / "asr" / "whisper_tiny.yaml").recipe
    ends = {name: (a, end if name == metric else b) for name, (a, b) in HEALTHY.items()}
    assert ends.keys() >= {monitor.metric for monitor in recipe.monitors}
    steps = [{name: a + (b - a) * i / 29 for name, (a, b) in ends.items()} for i in range(30)]
    said: list[str] = []
    try:
        for count in range(1, 31):
            said += check_monitors(recipe.monitors, steps[:count])
        stopped = False
    except MonitorError:
        stopped = True
    assert (stopped, said) == (stops, [])


def test_a_run_too_short_for_a_monitor_is_valid_and_says_so(tmp_path: Path) -> None:
    overrides = [
        "monitors=[{metric: kl, above: 2, baseline: 3, for_steps: 2}, {metric: heldout_wer, above: 1, for_steps: 3}]",
        "evaluation.every=2",
    ]
    for steps, said in ((4, "; too short for its monitors of kl, heldout_wer"), (5, "wer_reward")):
        loaded = load_recipe(RECIPES / "asr" / "quickstart.yaml", [*overrides, f"steps={steps}"])
        assert problems(loaded) == []
        assert describe(loaded).endswith(said)


def test_every_hint_is_of_a_metric_and_its_side() -> None:
    assert {metric for metric, _ in HINTS} <= {*METRICS, *PER_TERM}
