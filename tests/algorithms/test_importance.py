"""What rollout and learner compute differently: the weight that corrects it and the number that shows it."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_platform.algorithms.importance import max_mismatch, truncated_importance

PAIRS = st.lists(st.tuples(st.floats(-8, 0, width=32), st.floats(-8, 0, width=32)), min_size=1, max_size=10)


@given(PAIRS, st.floats(1, 100))
def test_the_weight_is_the_ratio_up_to_the_cap(pairs: list[tuple[float, float]], cap: float) -> None:
    learner, behaviour = (torch.tensor([column]) for column in zip(*pairs, strict=True))
    expected = [min(math.exp(ours - theirs), cap) for ours, theirs in pairs]
    weight = truncated_importance(learner, behaviour, cap)
    torch.testing.assert_close(weight, torch.tensor([expected]), rtol=1e-5, atol=1e-6)


def test_the_weight_carries_no_gradient() -> None:
    learner = torch.zeros(1, 2, requires_grad=True)
    assert not truncated_importance(learner, torch.zeros(1, 2), 2.0).requires_grad


def test_the_weighted_gradient_is_that_of_the_learners_own_distribution() -> None:
    """E over rollout of w * f = E over learner of f, by enumeration, as long as nothing is capped."""
    torch.manual_seed(0)
    learner = torch.randn(7, dtype=torch.float64).log_softmax(-1)
    behaviour = (learner + 0.1 * torch.randn(7, dtype=torch.float64)).log_softmax(-1)
    value = torch.randn(7, dtype=torch.float64)
    corrected = (behaviour.exp() * truncated_importance(learner, behaviour, 2.0) * value).sum()
    assert corrected.item() == pytest.approx((learner.exp() * value).sum().item(), abs=1e-12)


def test_the_largest_mismatch_is_over_completion_tokens_only() -> None:
    learner = torch.tensor([[-1.0, -2.0, 0.0], [-0.5, 0.0, -9.0]])
    behaviour = torch.tensor([[-1.5, -1.9, 0.0], [-0.5, 0.0, 0.0]])
    mask = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    assert max_mismatch(learner, behaviour, mask).item() == pytest.approx(0.5)
    assert max_mismatch(learner, behaviour, torch.zeros(2, 3)).item() == 0


def test_a_log_prob_that_is_no_number_shows_in_the_mismatch() -> None:
    learner = torch.tensor([[-1.0, float("nan")]])
    assert max_mismatch(learner, torch.zeros(1, 2), torch.ones(1, 2)).isnan()
