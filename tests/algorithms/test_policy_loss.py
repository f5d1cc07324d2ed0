"""The clipped surrogate against its formula, worked by hand and in plain Python floats."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_platform.algorithms.policy_loss import clip_fraction, clipped_surrogate

LOGPROB = st.floats(-5, 0, width=32)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (1.1, 2.0, -2.2, -2.2),  # within the range: the plain surrogate, whose gradient is the loss itself
        (0.9, -2.0, 1.8, 1.8),
        (1.5, 2.0, -2.4, 0.0),  # gained more than 1 + c allows: no further push
        (0.5, -2.0, 1.6, 0.0),
        (1.5, -2.0, 3.0, 3.0),  # moved the wrong way: never clipped
        (0.5, 2.0, -1.0, -1.0),
        (1.5, 0.0, 0.0, 0.0),
    ],
)
def test_each_side_of_the_clip_range_by_hand(ratio: float, advantage: float, loss: float, gradient: float) -> None:
    old = torch.tensor([[-1.0]], dtype=torch.float64)
    logprobs = (old + math.log(ratio)).requires_grad_()
    value = clipped_surrogate(logprobs, old, torch.tensor([[advantage]], dtype=torch.float64), 0.2)
    value.sum().backward()
    assert value.item() == pytest.approx(loss)
    assert logprobs.grad is not None
    assert logprobs.grad.item() == pytest.approx(gradient)


@given(st.lists(st.tuples(LOGPROB, LOGPROB, st.floats(-3, 3, width=32)), min_size=1, max_size=8), st.floats(0.01, 0.9))
def test_any_tokens_as_written_in_the_paper(rows: list[tuple[float, float, float]], clip: float) -> None:
    new, old, advantage = (torch.tensor([column]) for column in zip(*rows, strict=True))
    expected = []
    for now, before, a in rows:
        r = math.exp(now - before)
        expected.append(-min(r * a, min(max(r, 1 - clip), 1 + clip) * a))
    loss = clipped_surrogate(new, old, advantage, clip)
    torch.testing.assert_close(loss, torch.tensor([expected]), rtol=1e-5, atol=1e-6)


def test_an_advantage_per_sample_is_that_of_each_of_its_tokens() -> None:
    torch.manual_seed(0)
    new, old, advantages = -torch.rand(3, 5), -torch.rand(3, 5), torch.randn(3, 1)
    expected = clipped_surrogate(new, old, advantages.expand(3, 5), 0.2)
    torch.testing.assert_close(clipped_surrogate(new, old, advantages, 0.2), expected, rtol=0, atol=0)


def test_before_any_update_the_gradient_is_that_of_the_policy_gradient() -> None:
    torch.manual_seed(0)
    logprobs, advantages = (-torch.rand(3, 5)).requires_grad_(), torch.randn(3, 1)
    clipped_surrogate(logprobs, logprobs.detach(), advantages, 0.2).sum().backward()
    torch.testing.assert_close(logprobs.grad, -advantages.expand(3, 5))


def test_clipped_tokens_are_counted_among_those_that_count() -> None:
    ratios = torch.tensor([[1.0, 1.19, 1.21, 0.81], [0.79, 5.0, 5.0, 1.0]])
    mask = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]])
    assert clip_fraction(ratios.log(), torch.zeros(2, 4), 0.2, mask).item() == 3
