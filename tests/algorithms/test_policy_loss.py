"""The clipped surrogate against its formula, worked by hand and in plain Python floats."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_platform.algorithms.policy_loss import clipped_surrogate


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (1.1, 2.0, -2.2, -2.2),  # within the range: the plain surrogate, whose gradient is the loss itself
        (0.9, -2.0, 1.8, 1.8),
        (1.25, 2.0, -2.5, -2.5),  # the upper bound is the wider one: DAPO's clip-higher
        (1.5, 2.0, -2.56, 0.0),  # gained more than 1 + high allows: no further push
        (0.5, -2.0, 1.6, 0.0),
        (1.5, -2.0, 3.0, 3.0),  # moved the wrong way: never clipped
        (0.5, 2.0, -1.0, -1.0),
        (1.5, 0.0, 0.0, 0.0),
    ],
)
def test_each_side_of_the_clip_range_by_hand(ratio: float, advantage: float, loss: float, gradient: float) -> None:
    log_ratio = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    value, clipped = clipped_surrogate(log_ratio, torch.tensor([[advantage]], dtype=torch.float64), 0.2, 0.28)
    value.sum().backward()
    assert value.item() == pytest.approx(loss)
    assert log_ratio.grad is not None
    assert log_ratio.grad.item() == pytest.approx(gradient)
    assert clipped.item() == (gradient == 0 and advantage != 0)


ROWS = st.lists(st.tuples(st.floats(-3, 3, width=32), st.floats(-3, 3, width=32)), min_size=1, max_size=8)


@given(ROWS, st.floats(0.01, 0.9), st.floats(0.01, 3))
def test_any_ratios_as_written_in_the_papers(rows: list[tuple[float, float]], low: float, high: float) -> None:
    log_ratio, advantage = (torch.tensor([column], dtype=torch.float64) for column in zip(*rows, strict=True))
    log_ratio.requires_grad_()
    loss, clipped = clipped_surrogate(log_ratio, advantage, low, high)
    expected = []
    for log_r, a in rows:
        r = math.exp(log_r)
        expected.append(-min(r * a, min(max(r, 1 - low), 1 + high) * a))
    torch.testing.assert_close(loss, torch.tensor([expected], dtype=torch.float64))
    loss.sum().backward()
    # Clipped is where nothing is left of a gradient that an advantage asked for.
    assert log_ratio.grad is not None
    assert torch.equal(clipped, (log_ratio.grad == 0) & (advantage * log_ratio.exp() != 0))


def test_an_advantage_per_sample_is_that_of_each_of_its_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    log_ratio, advantages = torch.randn(3, 5, generator=generator), torch.randn(3, 1, generator=generator)
    expected = clipped_surrogate(log_ratio, advantages.expand(3, 5), 0.2, 0.2)
    found = clipped_surrogate(log_ratio, advantages, 0.2, 0.2)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "clipped"),
    [
        (4.0, -2.0, 6.0, 0.0, True),  # would be 8: bounded at 3 x 2
        (2.5, -2.0, 5.0, 5.0, False),  # the wrong way, but not that far
        (0.5, -2.0, 1.6, 0.0, True),  # PPO's own clip
        (4.0, 2.0, -2.4, 0.0, True),  # for A > 0 as ever
        (0.1, 2.0, -0.2, -0.2, False),
        (4.0, 0.0, 0.0, 0.0, False),
    ],
)
def test_dual_clip_bounds_what_a_bad_token_costs(
    ratio: float, advantage: float, loss: float, gradient: float, clipped: bool
) -> None:
    log_ratio = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    advantages = torch.tensor([[advantage]], dtype=torch.float64)
    value, found = clipped_surrogate(log_ratio, advantages, 0.2, 0.2, dual_clip=3.0)
    value.sum().backward()
    assert value.item() == pytest.approx(loss)
    assert log_ratio.grad is not None
    assert log_ratio.grad.item() == pytest.approx(gradient)
    assert found.item() is clipped


@given(ROWS, st.floats(1.1, 10))
def test_dual_clip_as_written_in_its_paper(rows: list[tuple[float, float]], dual: float) -> None:
    log_ratio, advantage = (torch.tensor([column], dtype=torch.float64) for column in zip(*rows, strict=True))
    loss, _ = clipped_surrogate(log_ratio, advantage, 0.2, 0.28, dual)
    expected = []
    for log_r, a in rows:
        r = math.exp(log_r)
        gain = min(r * a, min(max(r, 0.8), 1.28) * a)
        expected.append(-max(gain, dual * a) if a < 0 else -gain)
    torch.testing.assert_close(loss, torch.tensor([expected], dtype=torch.float64))
