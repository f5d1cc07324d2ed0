"""The moving-block bootstrap: exact means, blocks that matter, and intervals that hold what they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rlhf_platform.evaluation.blocks import block_length, mean_difference


def ar1(coefficient: float, steps: int, rng: np.random.Generator) -> np.ndarray:
    """A stationary series of mean 0: x_t = coefficient * x_(t-1) + noise."""
    values = [rng.normal() / (1 - coefficient**2) ** 0.5]
    for noise in rng.normal(size=steps - 1):
        values.append(coefficient * values[-1] + noise)
    return np.array(values)


def test_the_block_is_the_cube_root_rounded_up() -> None:
    assert [block_length(n) for n in (4, 8, 9, 27, 28, 64, 100, 125, 1000)] == [2, 2, 3, 3, 4, 4, 5, 5, 10]


def test_the_difference_is_that_of_the_means() -> None:
    a, b = [1.0, 2.0, 3.0, 6.0], [5.0, 5.0, 7.0, 7.0, 7.0, 11.0]
    assert mean_difference(a, b, paired=False).point == 7.0 - 3.0
    assert mean_difference(a, b[:4], paired=True).point == 6.0 - 3.0


def test_a_constant_difference_has_no_width_when_paired_and_some_when_not() -> None:
    a = np.sin(np.arange(24.0))
    paired = mean_difference(a, a + 2.0, paired=True)
    assert (paired.low, paired.high) == pytest.approx((2.0, 2.0))
    unpaired = mean_difference(a, a + 2.0, paired=False)
    assert unpaired.low < 2.0 < unpaired.high


def test_by_hand_two_blocks_of_four_steps() -> None:
    # Four values, blocks of two: (0, 0), (0, 8) and (8, 8) have the means 0, 4 and 8, so that two blocks drawn have the
    # means 0, 2, 4, 6, 8 in 1, 2, 3, 2, 1 of nine cases: the outermost hold more than 2.5 % each. Widened by
    # (4 / 2) ** .5 and by Student's t of one degree of freedom over the normal quantile, in its expansion.
    z = 1.959964
    student = z + (z**3 + z) / 4 + (5 * z**5 + 16 * z**3 + 3 * z) / 96
    interval = mean_difference([0.0] * 4, [0.0, 0.0, 8.0, 8.0], paired=True)
    assert interval.point == 4.0
    assert interval.high - 4.0 == pytest.approx(4.0 * 2**0.5 * student / z, rel=0.02)
    assert 4.0 - interval.low == pytest.approx(4.0 * 2**0.5 * student / z, rel=0.02)


@given(hnp.arrays(np.float64, st.integers(4, 40), elements=st.floats(-1e3, 1e3)), st.integers(0, 3))
def test_the_same_seed_gives_the_same_interval_around_the_point(series: np.ndarray, seed: int) -> None:
    first, second = (mean_difference(series, series**2, paired=True, resamples=200, seed=seed) for _ in range(2))
    assert first == second
    slack = 1e-9 * (1 + abs(first.point))
    assert first.low - slack <= first.point <= first.high + slack


@pytest.mark.parametrize("steps", [8, 20, 80])
def test_of_95_intervals_in_100_most_hold_the_mean_of_a_series_that_hangs_together(steps: int) -> None:
    rng = np.random.default_rng(0)
    held = {0.0: 0, 0.5: 0}
    for coefficient in held:
        for _ in range(300):
            interval = mean_difference(
                np.zeros(steps),
                ar1(coefficient, steps, rng),
                paired=True,
                resamples=400,
                seed=int(rng.integers(1 << 30)),
            )
            held[coefficient] += interval.low <= 0.0 <= interval.high
    assert held[0.0] / 300 > 0.92
    assert held[0.5] / 300 > 0.84  # independent draws of steps hold it in 67 to 75 %


def test_the_unpaired_interval_holds_the_difference_of_two_lengths() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(300):
        interval = mean_difference(ar1(0.5, 12, rng), 1.0 + ar1(0.5, 30, rng), paired=False, resamples=400)
        held += interval.low <= 1.0 <= interval.high
    assert held / 300 > 0.84


def test_what_has_no_interval_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 4 finite values"):
        mean_difference([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], paired=True)
    with pytest.raises(ValueError, match="at least 4 finite values"):
        mean_difference([1.0, 2.0, 3.0, float("nan")], [1.0] * 4, paired=False)
    with pytest.raises(ValueError, match="4 and 5 steps"):
        mean_difference([1.0] * 4, [1.0] * 5, paired=True)
