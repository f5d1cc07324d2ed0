"""Margins and ties against the probabilities of the papers, written out in strengths."""

import math

import pytest
import torch

from rlhf_platform.algorithms.bradley_terry import comparison_loss


def loss(difference: float, margin: float = 0.0, tie: bool = False, threshold: float = 0.0) -> float:
    values = [torch.tensor([value], dtype=torch.float64) for value in (difference, margin)]
    return float(comparison_loss(*values, torch.tensor([tie]), threshold))


@pytest.mark.parametrize("difference", [-3.0, 0.0, 0.4, 5.0])
def test_without_margin_and_ties_it_is_bradley_terry(difference: float) -> None:
    chosen, rejected = math.exp(difference), 1.0
    assert loss(difference) == pytest.approx(-math.log(chosen / (chosen + rejected)), rel=1e-12)


def test_a_margin_asks_for_as_much_more() -> None:
    assert loss(2.0, margin=1.5) == pytest.approx(loss(0.5), rel=1e-12)


@pytest.mark.parametrize("difference", [-2.0, 0.0, 1.0])
@pytest.mark.parametrize("theta", [1.5, 2.0, 10.0])
def test_ties_are_rao_and_kuppers(difference: float, theta: float) -> None:
    a, b = math.exp(difference), 1.0
    threshold = math.log(theta)
    won, lost = a / (a + theta * b), b / (b + theta * a)
    tied = a * b * (theta**2 - 1) / ((a + theta * b) * (theta * a + b))
    assert won + lost + tied == pytest.approx(1)
    assert loss(difference, threshold=threshold) == pytest.approx(-math.log(won), rel=1e-12)
    assert loss(difference, tie=True, threshold=threshold) == pytest.approx(-math.log(tied), rel=1e-12)
    assert loss(-difference, tie=True, threshold=threshold) == pytest.approx(-math.log(tied), rel=1e-12)


def test_at_the_recommended_threshold_equal_answers_win_lose_and_tie_alike() -> None:
    assert loss(0.0, threshold=math.log(2)) == pytest.approx(math.log(3))
    assert loss(0.0, tie=True, threshold=math.log(2)) == pytest.approx(math.log(3))


def test_a_tie_that_cannot_be_costs_the_earth_and_no_gradient_of_the_others() -> None:
    difference = torch.zeros(2, requires_grad=True)
    found = comparison_loss(difference, torch.zeros(2), torch.tensor([True, False]), 0.0)
    assert found[0] == math.inf
    found[1].backward()
    assert difference.grad is not None
    assert difference.grad.tolist() == [0.0, -0.5]
