"""Margins and ties against the probabilities of the papers, written out in strengths."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_platform.algorithms.bradley_terry import BINS, calibration_counts, calibration_error, comparison_loss


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


@given(st.floats(-8, 8), st.floats(0, 0.49))
def test_smoothed_it_is_the_cross_entropy_with_labels_that_may_be_wrong(difference: float, smoothing: float) -> None:
    found = comparison_loss(
        torch.tensor([difference], dtype=torch.float64), torch.zeros(1).double(), torch.tensor([False]), 0.0, smoothing
    )
    won = 1 / (1 + math.exp(-difference))
    assert float(found) == pytest.approx(-(1 - smoothing) * math.log(won) - smoothing * math.log1p(-won), abs=1e-9)


def test_calibration_is_how_far_sureness_is_from_being_right() -> None:
    # Four pairs of which the model is 0.8 sure, right in three; two at 0.6, right in none.
    sure, unsure = math.log(0.8 / 0.2), math.log(0.6 / 0.4)
    differences = torch.tensor([sure, sure, sure, -sure, -unsure, -unsure])
    parts = calibration_counts(differences[:2]) + calibration_counts(differences[2:])
    assert parts.shape == (BINS, 3)
    torch.testing.assert_close(parts, calibration_counts(differences))
    assert calibration_error(parts) == pytest.approx((4 * abs(0.75 - 0.8) + 2 * 0.6) / 6, abs=1e-6)
