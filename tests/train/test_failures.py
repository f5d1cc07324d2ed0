"""When failed rewards stop a run."""

from dataclasses import replace

import pytest

from rlhf_platform.errors import RewardError
from rlhf_platform.recipe.schema import Recipe, RewardConfig, ScoringConfig
from rlhf_platform.train.failures import FailureWindow, failure_metrics
from rlhf_platform.types import Failed, Prompt, Sample, Scored, ScoredSample, StopReason

SAMPLE = Sample(Prompt("p", "clip.wav", "alpha", "en"), (1,), (-0.5,), "alpha", StopReason.EOS, 0)
LATE = Failed("timeout", "no answer within 30 s", "judge")


def scored(*outcomes: Failed | float) -> list[ScoredSample]:
    return [ScoredSample(SAMPLE, o if isinstance(o, Failed) else Scored(o, {"judge": o})) for o in outcomes]


def recipe(**scoring: object) -> Recipe:
    config = Recipe(name="a", rewards=[RewardConfig(fn="m:judge"), RewardConfig(fn="m:style")])
    return replace(config, scoring=replace(ScoringConfig(), **scoring))  # type: ignore[arg-type]


def test_more_failures_than_the_recipe_allows_stop_the_run_and_say_which() -> None:
    samples = scored(1.0, LATE, LATE, Failed("raised", "KeyError: 'x'", "style"))
    window = FailureWindow(recipe(max_failure_rate=0.75))
    window.new_step()
    window.check(samples)
    strict = FailureWindow(recipe(max_failure_rate=0.5))
    strict.new_step()
    with pytest.raises(RewardError) as caught:
        strict.check(samples)
    assert str(caught.value) == (
        "rewards: 3 of 4 samples failed, scoring.max_failure_rate is 0.5; "
        "in this step 2 judge: timeout, 1 style: raised; the first said: no answer within 30 s"
    )


def test_a_combination_without_a_value_is_told_as_such() -> None:
    window = FailureWindow(recipe(max_failure_rate=0.0))
    window.new_step()
    with pytest.raises(RewardError, match="in this step 1 their combination: out_of_range"):
        window.check(scored(1.0, Failed("out_of_range", "the product of wer -1 is not defined")))


def test_a_bad_step_among_good_ones_is_no_reason_to_stop_and_several_are() -> None:
    window = FailureWindow(recipe(max_failure_rate=0.25, failure_window=2))
    for outcomes in ([1.0] * 4, [1.0, 1.0, LATE, LATE]):
        window.new_step()
        window.check(scored(*outcomes))
    window.new_step()
    with pytest.raises(RewardError, match="4 of 8 samples in the last 2 steps failed"):
        window.check(scored(1.0, 1.0, LATE, LATE))


def test_a_run_that_goes_on_looks_back_over_the_steps_before() -> None:
    history = [{"samples": 4.0, "reward_failed": float(failed)} for failed in (4, 0, 2)]
    window = FailureWindow(recipe(max_failure_rate=0.25, failure_window=2), history)
    window.new_step()
    window.check(scored(1.0, 1.0, 1.0, 1.0))
    window.new_step()
    window.check(scored(1.0, 1.0, LATE, LATE))


def test_every_round_of_a_step_counts() -> None:
    window = FailureWindow(recipe(max_failure_rate=0.3))
    window.new_step()
    window.check(scored(1.0, 1.0, 1.0, LATE))
    with pytest.raises(RewardError, match="3 of 8 samples failed"):
        window.check(scored(1.0, 1.0, LATE, LATE))


def test_one_failure_of_a_reward_that_is_to_abort_ends_the_run() -> None:
    config = recipe(max_failure_rate=1.0)
    config.rewards[0].on_failure = "abort"
    window = FailureWindow(config)
    window.new_step()
    window.check(scored(1.0, Failed("raised", "KeyError: 'x'", "style")))
    with pytest.raises(
        RewardError, match=r"judge failed \(timeout: no answer within 30 s\) and its on_failure is abort"
    ):
        window.check(scored(1.0, 1.0, 1.0, LATE))


def test_failures_are_counted_by_kind_and_groups_too_small_to_compare_as_dropped() -> None:
    metrics = failure_metrics(scored(1.0, LATE, LATE, 1.0, 1.0, LATE), group_size=3)
    assert (metrics["samples"], metrics["reward_failed"], metrics["reward_failed/timeout"]) == (6, 3, 3)
    assert (metrics["reward_failed/crashed"], metrics["groups_dropped"]) == (0, 1)
