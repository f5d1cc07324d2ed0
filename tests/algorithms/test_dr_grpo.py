"""Advantages that are not divided by the spread, against numpy on the scored samples alone."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_platform.algorithms.dr_grpo import centred_advantages

ROW = st.lists(st.tuples(st.integers(-400, 400).map(lambda n: n / 8), st.booleans()), min_size=1, max_size=9)


def test_a_group_by_hand() -> None:
    rewards = torch.tensor([[0.0, 2.0, 1000.0, 4.0], [0.25, float("nan"), float("inf"), 0.75], [1.0, 1.0, 1.0, 1.0]])
    scored = torch.tensor([[True, True, False, True], [True, False, False, True], [True, True, True, True]])
    expected = torch.tensor([[-2.0, 0.0, 0.0, 2.0], [-0.25, 0.0, 0.0, 0.25], [0.0, 0.0, 0.0, 0.0]])
    advantages = centred_advantages(rewards, scored)
    torch.testing.assert_close(advantages, expected, rtol=0, atol=0)
    assert advantages.dtype == rewards.dtype


@given(ROW)
def test_the_mean_is_that_of_the_scored_samples(row: list[tuple[float, bool]]) -> None:
    rewards, scored = torch.tensor([[r for r, _ in row]]), torch.tensor([[kept for _, kept in row]])
    values, kept = rewards.double().numpy()[0], scored.numpy()[0]
    expected = np.zeros(len(row))
    if kept.any():
        expected[kept] = values[kept] - values[kept].mean()
    np.testing.assert_allclose(centred_advantages(rewards, scored).numpy()[0], expected, atol=1e-5)


def test_rewards_that_differ_by_rounding_teach_nothing() -> None:
    rewards = torch.full((1, 4), 0.3)
    rewards[0, 0] = torch.nextafter(rewards[0, 0], torch.tensor(torch.inf))
    assert (centred_advantages(rewards, torch.ones(1, 4, dtype=torch.bool)) == 0).all()
