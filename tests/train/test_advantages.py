"""From rewards to what each sample teaches, by each algorithm, against sums in float64 and numbers by hand."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.algebra import combine
from rlhf_platform.learner.samples import Seen, TrainSample
from rlhf_platform.recipe.algorithms import (
    CISPO,
    DAPO,
    GDPO,
    GRPO,
    GSPO,
    PPO,
    RL_ALGORITHMS,
    RLOO,
    DrGRPO,
    OnlineConfig,
    OnlineDPO,
    ReinforcePP,
)
from rlhf_platform.recipe.schema import RewardConfig, ScoringConfig
from rlhf_platform.train.advantages import advantages_of, rewards_of
from rlhf_platform.types import Failed, Prompt, Sample, Scored, ScoredSample, StopReason

FAILED = Failed("timeout", "no answer in 30 s", "judge")
PROMPT = Prompt("p", "clip.wav", "alpha bravo", "en")


def scored(reward: float | Failed, length: int = 2) -> ScoredSample:
    outcome = reward if isinstance(reward, Failed) else Scored(reward, {})
    return ScoredSample(Sample(PROMPT, (1,) * length, (-0.5,) * length, "", StopReason.EOS, 0), outcome)


def seen(
    penalty: Sequence[float] | None, values: Sequence[float] | None = None, trained: Sequence[bool] | None = None
) -> Seen:
    length = len(penalty or values or trained or [])
    columns = [None if column is None else np.asarray(column, np.float32) for column in (penalty, values)]
    return Seen(np.asarray(trained or [True] * length), penalty=columns[0], values=columns[1])


def numbers(made: Sequence[TrainSample]) -> list[list[float]]:
    return [np.atleast_1d(m.advantage).tolist() for m in made]


def by_gae(
    reward: float, penalty: Sequence[float], values: Sequence[float], gamma: float, lam: float
) -> tuple[np.ndarray, np.ndarray]:
    """Equation 16 of 1506.02438, forwards: the sum over l of (gamma lambda)^l delta_(t+l)."""
    rewards = -np.asarray(penalty, np.float64)
    rewards[-1] += reward
    after = np.append(values[1:], 0.0)
    deltas = rewards + gamma * after - np.asarray(values)
    size = len(deltas)
    found = np.asarray([sum((gamma * lam) ** (j - t) * deltas[j] for j in range(t, size)) for t in range(size)])
    return found, found + np.asarray(values)


def test_ppo_pays_the_kl_per_token_asks_the_critic_and_whitens_over_what_is_learnt() -> None:
    samples = [scored(1.0, 3), scored(FAILED, 2), scored(-0.5, 2), scored(0.25, 1)]
    penalties = [[0.1, -0.2, 0.3], [9.0, 9.0], [0.0, 0.4], [0.05]]
    values = [[0.2, 0.5, 0.1], [9.0, 9.0], [-0.3, 0.7], [0.4]]
    trained = [[True, False, True], [True, True], [True, True], [True]]
    algorithm = PPO(gamma=0.9, gae_lambda=0.8)
    made = advantages_of(samples, algorithm, list(map(seen, penalties, values, trained)))

    rows = {i: by_gae([1.0, 0.0, -0.5, 0.25][i], penalties[i], values[i], 0.9, 0.8) for i in (0, 2, 3)}
    learnt = np.concatenate([rows[i][0][np.asarray(trained[i])] for i in rows])
    for i, (advantages, returns) in rows.items():
        expected = np.where(trained[i], (advantages - learnt.mean()) / learnt.std(ddof=1), 0.0)
        np.testing.assert_allclose(made[i].advantage, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(made[i].returns, returns, rtol=1e-5, atol=1e-6)
    assert [m.counts for m in made] == [True, False, True, True]
    assert numbers(made)[1] == [0.0, 0.0]


def test_ppo_by_hand() -> None:
    """gamma = lambda = 1: what is to come, less the value. 2 - 1, 2 - .5 and 0 - 1 are 1, 1.5 and -1, of mean .5; their
    deviations .5, 1, -1.5 have the spread sqrt(3.5 / 2)."""
    algorithm = PPO(gamma=1.0, gae_lambda=1.0)
    views = [seen([0.0, 0.0], [1.0, 0.5]), seen([0.0], [1.0])]
    made = advantages_of([scored(2.0, 2), scored(0.0, 1)], algorithm, views)
    spread = math.sqrt(1.75)
    assert numbers(made)[0] == pytest.approx([0.5 / spread, 1.0 / spread])
    assert numbers(made)[1] == pytest.approx([-1.5 / spread])
    assert [m.returns.tolist() for m in made if m.returns is not None] == [[2.0, 2.0], [0.0]]


def test_reinforce_pp_whitens_what_is_to_come_over_all_tokens() -> None:
    """Rewards to go, KL paid: .5, .75 and -.5, of mean .25 and deviations .25, .5, -.75."""
    views = [seen([0.25, 0.25]), seen([0.5]), seen([7.0, 7.0])]
    made = advantages_of([scored(1.0, 2), scored(0.0, 1), scored(FAILED, 2)], ReinforcePP(), views)
    spread = math.sqrt((0.25**2 + 0.5**2 + 0.75**2) / 2)
    assert numbers(made)[0] == pytest.approx([0.25 / spread, 0.5 / spread])
    assert numbers(made)[1] == pytest.approx([-0.75 / spread])
    assert numbers(made)[2] == [0.0, 0.0]
    assert [m.counts for m in made] == [True, True, False]
    assert all(m.returns is None for m in made)


def test_reinforce_pp_discounts_what_is_to_come_and_needs_no_penalty() -> None:
    """With gamma .5: .25, .5, 1 of a reward of 1, and 0 of none."""
    views = [seen(None, trained=[True] * 3), seen(None, trained=[True])]
    made = advantages_of([scored(1.0, 3), scored(0.0, 1)], ReinforcePP(gamma=0.5), views)
    to_go = np.asarray([0.25, 0.5, 1.0, 0.0])
    expected = (to_go - to_go.mean()) / to_go.std(ddof=1)
    np.testing.assert_allclose(np.concatenate(numbers(made)), expected, rtol=1e-6)


def test_rloo_pays_the_kl_of_the_whole_sample_and_compares_with_the_mean_of_the_others() -> None:
    """1 - .5, 0 - 0 and 2 - 1 against the means of the others, .5, .75 and .25; the failed one counts in none."""
    samples = [scored(1.0), scored(FAILED), scored(0.0, 3), scored(2.0, 1)]
    views = [seen([0.25, 0.25]), seen([5.0, 5.0]), seen([0.5, -0.5, 0.0]), seen([1.0])]
    made = advantages_of(samples, RLOO(group_size=4), views)
    assert [m.advantage for m in made] == pytest.approx([0.5 - 0.5, 0.0, 0.0 - 0.75, 1.0 - 0.25])
    assert [m.counts for m in made] == [True, False, True, True]


def test_the_kl_that_a_group_relative_reward_pays_is_normalised_with_it() -> None:
    """3 - 1, 1 - 0, 0 - 0 have the mean 1 and the spread 1."""
    views = [seen([0.5, 0.5]), seen([0.0, 0.0]), seen([0.25, -0.25])]
    made = advantages_of([scored(3.0), scored(1.0), scored(0.0)], GRPO(group_size=3, kl_in="reward"), views)
    assert [m.advantage for m in made] == pytest.approx([1.0, 0.0, -1.0])


def test_each_group_relative_algorithm_by_hand() -> None:
    """Two prompts, 2 apart each; the fourth sample of each failed. GDPO's whole batch 0, 2, 4, 6, 8, 10 has the mean 5
    and the variance 2 (25 + 9 + 1) / 5 = 14."""
    samples = [scored(r) for r in (0.0, 2.0, 4.0, FAILED, 6.0, FAILED, 8.0, 10.0)]
    standard = [-1.0, 0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 1.0]
    whole = [-5.0, -3.0, -1.0, 0.0, 1.0, 0.0, 3.0, 5.0]
    expected: dict[type[OnlineConfig], list[float]] = {
        GRPO: standard,
        DAPO: standard,
        GSPO: standard,
        CISPO: standard,
        DrGRPO: [2 * a for a in standard],
        RLOO: [3 * a for a in standard],
        GDPO: [a / math.sqrt(14) for a in whole],
    }
    for make, advantages in expected.items():
        made = advantages_of(samples, make(group_size=4))
        assert [m.advantage for m in made] == pytest.approx(advantages, abs=1e-6), make
        assert [m.counts for m in made] == [True, True, True, False, True, False, True, True]
    assert set(RL_ALGORITHMS) - {make().type for make in expected} == {"ppo", "reinforce_pp", "online_dpo"}


def test_gdpo_lets_a_term_of_small_spread_speak() -> None:
    """Two terms through the algebra, normalised each in its group, weighed, summed, and the sums over the batch."""
    large = np.asarray([[0.0, 1000.0, 500.0, 0.0], [200.0, 0.0, 0.0, 900.0]])
    small = np.asarray([[0.03, 0.0, 0.01, 0.02], [0.0, 0.0, 0.05, 0.01]])
    terms = [RewardConfig(fn="m:large"), RewardConfig(fn="m:small", weight=0.5)]
    answers = [large.flatten().tolist(), small.flatten().tolist()]
    outcomes = combine(terms, ScoringConfig(normalize="terms"), answers, 4, 1)
    made = advantages_of([ScoredSample(scored(0.0).sample, o) for o in outcomes], GDPO(group_size=4))

    standard = [(t - t.mean(1, keepdims=True)) / t.std(1, ddof=1, keepdims=True) for t in (large, small)]
    sums = (standard[0] + 0.5 * standard[1]).flatten()
    np.testing.assert_allclose([m.advantage for m in made], (sums - sums.mean()) / sums.std(ddof=1), rtol=1e-5)
    # By their plain sum the small term, of a 20,000th of the spread, would not be heard at all.
    assert made[3].advantage != pytest.approx(made[0].advantage, abs=0.1)


def test_online_dpo_makes_a_pair_of_the_best_and_the_worst_the_chosen_one_first() -> None:
    groups = [[0.5, 2.0, -1.0], [FAILED, 3.0, 4.0], [1.0, 1.0, 1.0], [FAILED, FAILED, 5.0], [FAILED] * 3]
    samples = [scored(r, length=1 + i) for i, r in enumerate(r for group in groups for r in group)]
    made = advantages_of(samples, OnlineDPO(group_size=3))
    assert len(made) == 2 * len(groups)
    assert [m.counts for m in made] == [True] * 4 + [False] * 6
    assert [m.advantage for m in made] == [1.0, -1.0] * len(groups)
    # By their lengths: the second and third sample of the first group, the third and second of the next.
    assert [len(m.sample.tokens) for m in made[:4]] == [2, 3, 6, 5]


def test_a_failure_is_no_zero() -> None:
    """Beside a zero the sample at -1 would be bad; beside a failure it is the best there is."""
    made = advantages_of([scored(-1.0), scored(FAILED), scored(-3.0)], GRPO(group_size=3))
    assert [m.advantage for m in made] == pytest.approx([math.sqrt(0.5), 0.0, -math.sqrt(0.5)])
    rewards, came_out = rewards_of([scored(-1.0), scored(FAILED), scored(-3.0)], 3)
    assert (rewards.tolist(), came_out.tolist()) == ([[-1.0, 0.0, -3.0]], [[True, False, True]])


REWARDS = st.lists(st.integers(-20, 20), min_size=6, max_size=6)


@pytest.mark.parametrize("name", RL_ALGORITHMS)
@settings(max_examples=40)
@given(rewards=REWARDS, places=st.lists(st.integers(0, 3), min_size=2, max_size=2), length=st.integers(1, 9))
def test_a_failed_sample_changes_nothing_of_the_others(
    name: str, rewards: list[int], places: list[int], length: int
) -> None:
    """Law 2: what two groups of three teach is the same with a failed sample in each, wherever it stands."""
    algorithm = RL_ALGORITHMS[name](group_size=3)
    healthy = [scored(r / 4, 1 + i % 4) for i, r in enumerate(rewards)]
    views = [seen([0.1 * i] * (1 + i % 4), [0.2 * i - 0.5] * (1 + i % 4)) for i in range(6)]
    mixed, beside = [], []
    for group, place in enumerate(places):
        for into, of, ill in (
            (mixed, healthy, scored(FAILED, length)),
            (beside, views, seen([50.0] * length, [-50.0] * length)),
        ):
            part = [*of[3 * group : 3 * group + 3]]
            into += [*part[:place], ill, *part[place:]]
    asks = name in ("ppo", "reinforce_pp", "rloo")
    alone = advantages_of(healthy, algorithm, views if asks else None)
    larger = RL_ALGORITHMS[name](group_size=4)
    found = [
        m for m in advantages_of(mixed, larger, beside if asks else None) if m.sample in [s.sample for s in healthy]
    ]
    by_sample = {id(m.sample): m for m in found if m.counts}
    assert len(by_sample) == sum(m.counts for m in alone)
    for m in alone:
        if m.counts:
            again = by_sample[id(m.sample)]
            np.testing.assert_allclose(again.advantage, m.advantage, rtol=1e-5, atol=1e-6)
            if m.returns is not None:
                np.testing.assert_array_equal(again.returns, m.returns)
