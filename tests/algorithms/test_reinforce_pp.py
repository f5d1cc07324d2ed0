"""REINFORCE++ as a whole, from rewards and KL to advantages, against numpy in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlhf_platform.algorithms.gae import token_rewards
from rlhf_platform.algorithms.kl import kl_estimate
from rlhf_platform.algorithms.reinforce_pp import globally_normalised_advantages

LOGPROBS = st.tuples(st.floats(-8, 0), st.floats(-8, 0))
SAMPLES = st.lists(
    st.tuples(st.floats(-3, 3), st.lists(LOGPROBS, min_size=1, max_size=6), st.booleans()), min_size=1, max_size=6
)
Samples = list[tuple[float, list[tuple[float, float]], bool]]


def tensors(samples: Samples, extra: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rewards (B,), log-probs of policy and reference, and mask, (B, T)."""
    size = max(len(tokens) for _, tokens, _ in samples) + extra
    policy = torch.full((len(samples), size), math.nan, dtype=torch.float64)
    reference, mask = policy.clone(), torch.zeros_like(policy)
    for row, (_, tokens, counts) in enumerate(samples):
        pairs = torch.tensor(tokens, dtype=torch.float64)
        policy[row, : len(tokens)], reference[row, : len(tokens)] = pairs.unbind(-1)
        mask[row, : len(tokens)] = float(counts)
    return torch.tensor([reward for reward, _, _ in samples], dtype=torch.float64), policy, reference, mask


def ours(samples: Samples, coef: float, gamma: float, extra: int = 0) -> Tensor:
    rewards, policy, reference, mask = tensors(samples, extra)
    paid = token_rewards(rewards, coef * kl_estimate(policy, reference, "k1"), mask)
    return globally_normalised_advantages(paid, mask, mask, gamma)


@given(SAMPLES, st.floats(0, 0.5), st.sampled_from([1.0, 0.9]), st.integers(0, 2))
def test_the_advantage_of_each_token_is_that_of_the_paper(
    samples: Samples, coef: float, gamma: float, extra: int
) -> None:
    found = ours(samples, coef, gamma, extra)
    expected = []
    for reward, tokens, counts in samples:
        for t in range(len(tokens) if counts else 0):
            kl = sum(gamma ** (i - t) * (tokens[i][0] - tokens[i][1]) for i in range(t, len(tokens)))
            expected.append(gamma ** (len(tokens) - 1 - t) * reward - coef * kl)
    kept = tensors(samples, extra)[3].bool()
    assert not found[~kept].any()
    if len(expected) > 1 and np.std(expected) > 1e-4:
        whole = np.array(expected)
        np.testing.assert_allclose(found[kept].numpy(), (whole - whole.mean()) / whole.std(ddof=1), atol=1e-6)


@given(SAMPLES, st.data())
def test_the_order_of_the_batch_changes_nothing(samples: Samples, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(samples))))
    shuffled = ours([samples[i] for i in order], 0.1, 1.0)
    torch.testing.assert_close(shuffled, ours(samples, 0.1, 1.0)[order], rtol=1e-6, atol=1e-6)


def test_a_failed_sample_leaves_no_trace() -> None:
    samples: Samples = [(1.0, [(-1.0, -1.5)] * 3, True), (0.0, [(-2.0, -1.5)] * 2, True)]
    without = ours(samples, 0.1, 1.0)
    with_it = ours([*samples, (99.0, [(-1.0, -7.0)] * 3, False)], 0.1, 1.0)
    assert torch.equal(with_it[:2], without)
    assert not with_it[2].any()


def test_two_samples_without_kl_by_hand() -> None:
    # To go: 3, 3, 3 and 0. Mean 2.25, squared deviations 3 x .5625 + 5.0625 = 6.75 over 3: standard deviation 1.5.
    found = ours([(3.0, [(-1.0, -1.0)] * 3, True), (0.0, [(-1.0, -1.0)], True)], 0.1, 1.0)
    assert found[0].tolist() == pytest.approx([0.5] * 3)
    assert found[1].tolist() == pytest.approx([-1.5, 0, 0])
