"""Levels, votes and their worth, by hand calculation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.judge.verdict import PHI, abstains, agreement, check_phi, expected_level, swapped, to_vote, worth

LEVELS = {"A": 1, "B": -1}


def test_the_expected_level_weighs_levels_by_probability() -> None:
    assert expected_level({"A": 0.9, "B": 0.1}, LEVELS) == pytest.approx(0.8)
    assert expected_level({"A": 3.0, "B": 1.0}, LEVELS) == pytest.approx(0.5)


def test_no_probability_is_no_level() -> None:
    with pytest.raises(ValueError, match="no label has any probability"):
        expected_level({"A": 0.0, "B": 0.0}, LEVELS)


def test_a_verdict_of_the_other_order_is_negated() -> None:
    assert swapped([2, -1, 0]) == [-2, 1, 0]


@pytest.mark.parametrize(
    ("first", "second", "least", "expected"),
    [
        ([1], [1], 0.0, False),
        ([1], [-1], 0.0, True),  # it likes what is shown first
        ([0.3], [-0.1], 0.0, True),
        ([1], [0], 0.0, False),
        ([1, 1, -1], [1, 1, -1], 0.6, False),  # four of six agree
        ([1, 1, -1], [1, 1, -1], 0.7, True),
        ([1, -1], [], 0.6, True),
        ([1], [], 1.0, False),
    ],
)
def test_a_judge_abstains_where_orders_contradict_or_votes_split(
    first: list[float], second: list[float], least: float, expected: bool
) -> None:
    assert abstains(first, second, [*first, *second], least) is expected


def test_agreement_is_the_share_of_the_commonest_sign() -> None:
    assert agreement([2, 1, -1, 0]) == 0.5
    assert agreement([]) == 1.0


@given(st.floats(-3, 3))
def test_worth_is_what_numpy_interpolates(level: float) -> None:
    assert worth(level, check_phi(PHI)) == pytest.approx(np.interp(level, [-2, -1, 0, 1, 2], [0, 0.25, 0.5, 0.75, 1]))


def test_a_map_from_yaml_may_have_text_for_levels() -> None:
    phi = check_phi({"1": 1, "-1": -0.5})
    assert phi == {-1.0: -0.5, 1.0: 1.0}
    assert worth(0.0, phi) == 0.25
    assert worth(2.0, phi) == 1.0


@pytest.mark.parametrize("phi", [{}, {0: 1}, {-1: 1, 1: 0}, {-1: float("nan"), 1: 0}, {"low": 0, "high": 1}])
def test_a_map_that_falls_or_is_too_short_is_refused(phi: dict[object, float]) -> None:
    with pytest.raises(ValueError, match="phi is"):
        check_phi(phi)


@pytest.mark.parametrize(("level", "vote"), [(0.4, 0), (0.6, 1), (0.5, 0), (-1.5, -1), (-1.6, -2), (2, 2)])
def test_a_mean_is_the_nearest_vote(level: float, vote: int) -> None:
    assert to_vote(level) == vote
