"""Adaptive entropy control, by hand."""

import pytest

from rlhf_platform.algorithms.entropy import entropy_bonus_acts, next_entropy_coef


@pytest.mark.parametrize(
    ("coef", "entropy", "expected"),
    [
        (0.01, 0.1, 0.015),  # too sure: raised
        (0.01, 0.3, 0.005),  # unsure enough: lowered
        (0.01, 0.2, 0.01),
        (0.003, 0.9, 0.0),  # never below 0: nothing pays a policy for growing sure
        (0.0, 0.1, 0.005),  # a weight of 0 comes back
        (0.999, 0.0, 1.0),
    ],
)
def test_the_weight_goes_one_step_towards_the_target(coef: float, entropy: float, expected: float) -> None:
    assert next_entropy_coef(coef, entropy, 0.2) == pytest.approx(expected)


def test_the_bonus_acts_up_to_the_target_and_always_without_one() -> None:
    assert [entropy_bonus_acts(entropy, 0.2) for entropy in (0.1, 0.2, 0.3)] == [True, True, False]
    assert entropy_bonus_acts(100.0, None)


def test_a_controlled_entropy_stays_about_its_target() -> None:
    """A policy that loses 0.02 nats a step, and gains as much per 0.01 of weight that acts."""
    entropy, coef = 1.0, 0.0
    course = []
    for _ in range(500):
        gained = 2 * coef if entropy_bonus_acts(entropy, 0.2) else 0.0
        coef = next_entropy_coef(coef, entropy, 0.2)
        entropy = max(0.0, entropy + gained - 0.02)
        course.append(entropy)
    assert sum(course[200:]) / 300 == pytest.approx(0.2, abs=0.05)
    assert max(course[200:]) < 0.4
