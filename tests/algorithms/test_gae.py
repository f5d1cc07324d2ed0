"""Rewards per token, rewards to go and generalised advantages, against the papers' sums in plain Python floats."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlhf_platform.algorithms.gae import generalised_advantages, rewards_to_go, token_rewards

NUMBERS = st.floats(-5, 5, width=32)
# Of each token: its reward, its value, whether it is of the policy. The others are stepped over.
SAMPLES = st.lists(
    st.lists(st.tuples(NUMBERS, NUMBERS, st.sampled_from([True, True, False])), min_size=1, max_size=7),
    min_size=1,
    max_size=5,
)
Samples = list[list[tuple[float, float, bool]]]
DISCOUNTS = st.floats(0.5, 1)


def tensors(samples: Samples, extra: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards, values and mask, (B, T) in float64; what is outside the mask is no number, and must not matter."""
    size = max(map(len, samples)) + extra
    rewards = torch.full((len(samples), size), math.nan, dtype=torch.float64)
    values, mask = rewards.clone(), torch.zeros_like(rewards)
    for row, sample in enumerate(samples):
        for t, (reward, value, counts) in enumerate(sample):
            if counts:
                rewards[row, t], values[row, t], mask[row, t] = reward, value, 1.0
    return rewards, values, mask


def places(sample: list[tuple[float, float, bool]]) -> list[int]:
    return [t for t, (_, _, counts) in enumerate(sample) if counts]


def by_definition(samples: Samples, size: int, gamma: float, lam: float) -> Tensor:
    """Equation 16, forwards: the sum over l of (gamma lambda)^l delta_(t+l), of the tokens in the mask alone."""
    expected = torch.zeros(len(samples), size, dtype=torch.float64)
    for row, sample in enumerate(samples):
        kept = places(sample)
        rewards, values = [sample[t][0] for t in kept], [sample[t][1] for t in kept] + [0.0]
        deltas = [rewards[i] + gamma * values[i + 1] - values[i] for i in range(len(kept))]
        for i, t in enumerate(kept):
            expected[row, t] = sum((gamma * lam) ** (j - i) * deltas[j] for j in range(i, len(kept)))
    return expected


@given(SAMPLES, DISCOUNTS, st.floats(0, 1), st.integers(0, 2))
def test_advantages_and_returns_are_those_of_the_paper(samples: Samples, gamma: float, lam: float, extra: int) -> None:
    rewards, values, mask = tensors(samples, extra)
    advantages, returns = generalised_advantages(rewards, values, mask, gamma, lam)
    expected = by_definition(samples, mask.shape[1], gamma, lam)
    torch.testing.assert_close(advantages, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(returns, expected + values.nan_to_num() * mask, rtol=1e-9, atol=1e-9)


@given(SAMPLES, DISCOUNTS)
def test_rewards_to_go_are_discounted_sums(samples: Samples, gamma: float) -> None:
    rewards, _, mask = tensors(samples)
    expected = torch.zeros_like(mask)
    for row, sample in enumerate(samples):
        kept = places(sample)
        for i, t in enumerate(kept):
            expected[row, t] = sum(gamma**j * sample[later][0] for j, later in enumerate(kept[i:]))
    torch.testing.assert_close(rewards_to_go(rewards, mask, gamma), expected, rtol=1e-9, atol=1e-9)


@given(SAMPLES)
def test_with_lambda_1_an_advantage_is_what_is_to_come_minus_the_value(samples: Samples) -> None:
    rewards, values, mask = tensors(samples)
    advantages, returns = generalised_advantages(rewards, values, mask, 1.0, 1.0)
    to_go = rewards_to_go(rewards, mask, 1.0)
    torch.testing.assert_close(advantages, to_go - values.nan_to_num() * mask, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(returns, to_go, rtol=1e-9, atol=1e-9)


@given(SAMPLES, st.data())
def test_samples_do_not_know_of_each_other(samples: Samples, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(samples))))
    whole = generalised_advantages(*tensors(samples), 0.9, 0.8)
    shuffled = generalised_advantages(*(column[order] for column in tensors(samples)), 0.9, 0.8)
    assert all(torch.equal(one[order], other) for one, other in zip(whole, shuffled, strict=True))


def test_a_sample_by_hand() -> None:
    # gamma .5, lambda .5; from the end: 2 - 1 = 1; 0 + .5 x 1 - 3 = -2.5, + .25 x 1 = -2.25; 1 + .5 x 3 - 2 = .5.
    rewards, values = torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[2.0, 3.0, 1.0]])
    advantages, returns = generalised_advantages(rewards, values, torch.ones(1, 3), 0.5, 0.5)
    assert advantages.tolist() == [[0.5 + 0.25 * -2.25, -2.25, 1.0]]
    assert returns.tolist() == [[2.0 + 0.5 + 0.25 * -2.25, 0.75, 2.0]]


def test_nothing_carries_a_gradient() -> None:
    values = torch.ones(1, 2, requires_grad=True)
    assert not any(t.requires_grad for t in generalised_advantages(values * 2, values, torch.ones(1, 2), 1.0, 0.9))


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.long])
def test_the_samples_own_reward_is_at_its_last_token(dtype: torch.dtype) -> None:
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]]).to(dtype)
    penalty = torch.tensor([[0.5, 0.25, 1.0, math.nan], [0.5, math.nan, 0.0, 9.0], [9.0] * 4, [9.0, 2.0, 9.0, 9.0]])
    found = token_rewards(torch.tensor([3.0, -1.0, 7.0, 1.0]), penalty, mask)
    expected = [[-0.5, -0.25, 2.0, 0.0], [-0.5, 0.0, -1.0, 0.0], [0.0] * 4, [0.0, -1.0, 0.0, 0.0]]
    assert found.tolist() == expected
