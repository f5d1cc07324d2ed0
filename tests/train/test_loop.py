"""The pure parts of the loop: failed rewards are data (law 2), metrics are means over what was scored."""

import math
from collections import Counter
from dataclasses import replace
from itertools import chain, count
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_platform.recipe.algorithms import DAPO, GRPO, AlgorithmConfig
from rlhf_platform.recipe.metrics import METRICS, PER_TERM
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.tracking.clock import PhaseClock
from rlhf_platform.train.advantages import advantages_of
from rlhf_platform.train.drafting import Drafting
from rlhf_platform.train.failures import FailureWindow, failure_metrics
from rlhf_platform.train.loop import collect
from rlhf_platform.train.measuring import sample_metrics
from rlhf_platform.train.sync import probe_difference
from rlhf_platform.types import Failed, Prompt, Sample, Scored, ScoredSample, StopReason


def scored(reward: float | Failed, text: str = "alpha", stop: StopReason = StopReason.EOS) -> ScoredSample:
    prompt = Prompt("p", "clip.wav", "alpha bravo", "en")
    outcome = reward if isinstance(reward, Failed) else Scored(reward, {"wer": reward})
    return ScoredSample(Sample(prompt, (1, 2), (-0.5, -0.25), text, stop, 3), outcome)


FAILED = Failed("timeout", "no answer in 30 s", "judge")


def test_advantages_are_relative_to_the_group_and_leave_failures_out() -> None:
    samples = [scored(1.0), scored(0.0), scored(FAILED), scored(0.3), scored(0.3), scored(0.3)]
    made = advantages_of(samples, GRPO(group_size=3))
    half = math.sqrt(0.5)
    assert [m.advantage for m in made] == pytest.approx([half, -half, 0, 0, 0, 0])
    assert [m.counts for m in made] == [True, True, False, True, True, True]


def test_a_sample_that_is_left_alone_in_its_group_is_left_out_with_it() -> None:
    made = advantages_of(
        [scored(1.0), scored(FAILED), scored(FAILED), scored(0.0), scored(1.0), scored(FAILED)], GRPO(group_size=3)
    )
    assert [m.counts for m in made] == [False, False, False, True, True, False]


@given(st.lists(st.booleans(), min_size=4, max_size=4), st.lists(st.floats(-5, 5), min_size=4, max_size=4))
def test_a_failure_changes_no_advantage_but_its_own(failed: list[bool], rewards: list[float]) -> None:
    """Advantages with failures are those of the group without the failed samples."""
    group = [scored(FAILED if f else r) for f, r in zip(failed, rewards, strict=True)]
    kept = [r for f, r in zip(failed, rewards, strict=True) if not f]
    alone = advantages_of([scored(r) for r in kept], GRPO(group_size=len(kept))) if kept else []
    made = [m for m in advantages_of(group, GRPO(group_size=4)) if m.counts]
    assert [m.advantage for m in made] == pytest.approx([m.advantage for m in alone if m.counts], abs=1e-3)


def test_metrics_never_count_a_failure_as_a_reward() -> None:
    metrics = sample_metrics(
        [scored(0.8, "alpha bravo"), scored(0.4, "alpha", StopReason.LENGTH), scored(FAILED, "")], "asr"
    )
    assert metrics["reward"] == metrics["reward/wer"] == pytest.approx(0.6)
    assert metrics["sample_wer"] == pytest.approx(3 / 6)  # 0, 1 and 2 errors on two words each
    assert metrics["cut"] == pytest.approx(1 / 3)
    assert math.isnan(sample_metrics([scored(FAILED)], "asr")["reward"])


def test_the_probe_sees_any_difference_and_any_nan() -> None:
    sample = scored(1.0).sample
    assert probe_difference([sample], [(-0.5, -0.25)]) == 0
    assert probe_difference([sample, sample], [(-0.5, -0.25), (-0.5, -0.5)]) == 0.25
    unlikely = replace(sample, logprobs=(-8.0, -0.25))
    assert probe_difference([unlikely], [(-8.5, -0.25)]) == 0.5 / 8
    assert math.isnan(probe_difference([sample], [(math.nan, -0.25)]))
    with pytest.raises(ValueError, match="shorter"):
        probe_difference([sample], [(-0.5,)])


class Cycle:
    """Prompts by number, a fixed count at a time."""

    def __init__(self, per_step: int) -> None:
        self._numbers, self._per_step = count(), per_step

    def next(self) -> list[Prompt]:
        return [Prompt(f"p{next(self._numbers)}", "", "a", "en") for _ in range(self._per_step)]


def team_with_spread_in(prompts: set[str]) -> Any:
    """Two samples a prompt, rewarded 1 and 0 where there is spread and 1 and 1 elsewhere; the second one is cut."""

    def sample(drawn: list[Prompt], seed: int) -> list[Sample]:
        stops = StopReason.EOS, StopReason.LENGTH
        return [Sample(p, (1,) * 8, (-1.0,) * 8, str(i), stop, 0) for p in drawn for i, stop in enumerate(stops)]

    def score(asked: list[list[Sample]], step: int, group_size: int) -> tuple[list[ScoredSample], Counter[str]]:
        samples = list(chain.from_iterable(asked))
        values = [0.0 if s.text == "1" and s.prompt.id in prompts else 1.0 for s in samples]
        scored = [ScoredSample(s, Scored(value, {"r": value})) for s, value in zip(samples, values, strict=True)]
        return scored, Counter({"reward_retried": 1})

    rollouts = SimpleNamespace(sample=sample, reply=None)
    rewards = SimpleNamespace(ask=lambda samples, group_size: samples, scored=score)
    return SimpleNamespace(rollouts=rollouts, rewards=rewards, user=None)


def collected(algorithm: AlgorithmConfig, prompts: set[str]) -> tuple[list[str], list[str], float, list[ScoredSample]]:
    recipe = Recipe(name="a", algorithm=replace(algorithm, group_size=2))
    recipe.rollout.prompts_per_step, recipe.rollout.max_new_tokens = 2, 10
    sampler: Any = Cycle(2)
    team = team_with_spread_in(prompts)
    drafting = Drafting(recipe, team, ())
    got = collect(recipe, team, sampler, 1, PhaseClock(), FailureWindow(recipe), drafting)
    assert got.metrics["reward_retried"] == len(got.prompts) / 2, "what each round took is added up"
    assert got.metrics["samples"] == 2 * len(got.prompts)
    kept = [s.sample.prompt.id for s in got.samples[::2]]
    return [p.id for p in got.prompts], kept, got.metrics["groups_with_spread"], list(got.samples)


def test_dapo_draws_until_enough_prompts_have_spread() -> None:
    drawn, kept, share, _ = collected(DAPO(max_rounds=5), {"p1", "p4", "p5"})
    assert drawn == ["p0", "p1", "p2", "p3", "p4", "p5"]
    assert (kept, share) == (["p1", "p4"], 0.5)


def test_dapo_fills_up_with_what_it_has_after_the_last_round() -> None:
    drawn, kept, share, _ = collected(DAPO(max_rounds=2), {"p3"})
    assert drawn == ["p0", "p1", "p2", "p3"]
    assert (kept, share) == (["p0", "p3"], 0.25)


def test_other_algorithms_draw_once_and_pay_nothing_for_length() -> None:
    drawn, kept, share, scored = collected(GRPO(), {"p1"})
    assert (drawn, kept, share) == (["p0", "p1"], ["p0", "p1"], 0.5)
    assert [s.outcome.parts for s in scored if isinstance(s.outcome, Scored)] == [{"r": v} for v in (1, 1, 1, 0)]


def test_dapo_takes_off_a_point_for_a_cut_sample_and_a_share_of_it_near_the_limit() -> None:
    """Of 10 tokens the last half is the zone; 8 of them are three fifths into it."""
    *_, scored = collected(DAPO(overlong_share=0.5), {"p0", "p1"})
    outcomes = [s.outcome for s in scored if isinstance(s.outcome, Scored)]
    assert [o.value for o in outcomes] == pytest.approx([0.4, -1.0, 0.4, -1.0])
    assert outcomes[1].parts == {"r": 0.0, "overlong": -1.0}


def test_a_monitor_may_name_every_metric_of_the_samples() -> None:
    names = set(sample_metrics([scored(1.0), scored(FAILED)], "asr") | failure_metrics([scored(FAILED)], 1))
    assert {n for n in names if n not in METRICS and not n.startswith(PER_TERM)} == set()
