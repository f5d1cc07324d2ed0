"""Leave-one-out baselines and the surrogate of whole sequences, against plain Python floats."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_platform.algorithms.normalization import token_shares, units
from rlhf_platform.algorithms.rloo import leave_one_out_advantages, whole_sequence_surrogate

GROUPS = st.integers(1, 7).flatmap(
    lambda size: st.lists(
        st.lists(st.tuples(st.integers(-400, 400).map(lambda n: n / 8), st.booleans()), min_size=size, max_size=size),
        min_size=1,
        max_size=4,
    )
)
Groups = list[list[tuple[float, bool]]]


def columns(groups: Groups, failed: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    rewards = torch.tensor([[reward if counts else failed for reward, counts in group] for group in groups])
    return rewards, torch.tensor([[counts for _, counts in group] for group in groups])


@given(GROUPS)
def test_each_sample_is_compared_with_the_mean_of_the_others(groups: Groups) -> None:
    expected = torch.zeros(len(groups), len(groups[0]))
    for row, group in enumerate(groups):
        for i, (reward, counts) in enumerate(group):
            others = [other for j, (other, scored) in enumerate(group) if scored and j != i]
            if counts and others:
                expected[row, i] = reward - sum(others) / len(others)
    torch.testing.assert_close(leave_one_out_advantages(*columns(groups)), expected, rtol=1e-5, atol=1e-5)


@given(GROUPS)
def test_what_stands_for_a_failed_reward_leaves_no_trace(groups: Groups) -> None:
    found = leave_one_out_advantages(*columns(groups))
    assert torch.equal(leave_one_out_advantages(*columns(groups, failed=math.nan)), found)


@given(GROUPS, st.data())
def test_the_order_of_groups_and_samples_changes_nothing(groups: Groups, data: st.DataObject) -> None:
    rewards, scored = columns(groups)
    rows = data.draw(st.permutations(range(len(groups))))
    order = data.draw(st.permutations(range(len(groups[0]))))
    shuffled = leave_one_out_advantages(rewards[rows][:, order], scored[rows][:, order])
    torch.testing.assert_close(shuffled, leave_one_out_advantages(rewards, scored)[rows][:, order])


def test_a_group_by_hand() -> None:
    rewards = torch.tensor([[1.0, 4.0, 9.0, 7.0], [5.0, 5.0, 5.0, 9.0], [3.0, 8.0, 1.0, 2.0]])
    scored = torch.tensor([[True, True, False, True], [True, True, True, False], [True, False, False, False]])
    expected = [[1 - 5.5, 0.0, 0.0, 7 - 2.5], [0.0] * 4, [0.0] * 4]
    assert leave_one_out_advantages(rewards, scored).tolist() == expected


def test_the_mean_over_samples_and_its_gradient_are_those_of_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    log_ratio = 0.15 * torch.randn(40, 6, generator=generator, dtype=torch.float64)
    lengths = torch.randint(1, 7, (40,), generator=generator)
    mask = (torch.arange(6) < lengths.unsqueeze(1)).double()
    log_ratio = log_ratio.masked_fill(mask == 0, 7.0).requires_grad_()
    advantages = torch.randn(40, 1, generator=generator, dtype=torch.float64)
    loss, clipped = whole_sequence_surrogate(log_ratio, mask, advantages, 0.2)
    total = (loss * token_shares(mask, "sequence", 6)).sum() / units(mask, "sequence")
    total.backward()

    mean, gradient = 0.0, torch.zeros_like(mask)
    for i in range(40):
        n, a = int(lengths[i]), advantages[i].item()
        s = math.prod(log_ratio[i, :n].exp().tolist())
        beyond = s > 1.2 if a > 0 else s < 0.8
        mean -= min(s * a, min(max(s, 0.8), 1.2) * a) / 40
        gradient[i, :n] = 0.0 if beyond else -s * a / 40
        assert clipped[i].all() == clipped[i].any() == beyond
    assert total.item() == pytest.approx(mean)
    assert log_ratio.grad is not None
    torch.testing.assert_close(log_ratio.grad, gradient)
    assert 0 < clipped[:, 0].sum() < 40


def test_a_ratio_beyond_float32_and_a_sample_that_does_not_count_are_finite() -> None:
    log_ratio = torch.full((3, 4), 50.0, requires_grad=True)
    mask = torch.tensor([[1.0] * 4, [1.0] * 4, [0.0] * 4])
    loss, clipped = whole_sequence_surrogate(log_ratio, mask, torch.tensor([[0.0], [-1.0], [0.0]]), 0.2)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert log_ratio.grad is not None
    assert torch.isfinite(log_ratio.grad).all()
    assert not clipped.any()
