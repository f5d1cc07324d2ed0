"""The delay pattern: the picture of MusicGen's paper, and as inverses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from policies.codec.delay import delay, delay_mask, per_codebook, undelay
from policies.codec.layout import CodecError, Codes

PAD = -7
codes_of_any_size = hnp.arrays(
    np.int64, st.tuples(st.integers(1, 12), st.integers(1, 6)), elements=st.integers(0, 2**40)
)


def test_each_codebook_is_a_step_later_than_the_one_before() -> None:
    codes = np.array([[10, 20, 30], [11, 21, 31]])
    steps = [[10, PAD, PAD], [11, 20, PAD], [PAD, 21, 30], [PAD, PAD, 31]]
    assert delay(codes, PAD).tolist() == steps
    assert delay_mask(2, 3).tolist() == [[code != PAD for code in step] for step in steps]


@given(codes_of_any_size)
def test_undelay_is_the_inverse(codes: Codes) -> None:
    np.testing.assert_array_equal(undelay(delay(codes, PAD)), codes)


@given(codes_of_any_size)
def test_the_mask_is_true_where_there_is_a_code(codes: Codes) -> None:
    np.testing.assert_array_equal(delay_mask(*codes.shape), delay(codes, PAD) != PAD)


def test_too_few_steps_for_a_frame_are_refused() -> None:
    with pytest.raises(CodecError, match="2 steps of 3 codebooks"):
        undelay(np.zeros((2, 3), np.int64))


def test_means_by_codebook() -> None:
    assert per_codebook([1.0, 10.0, 3.0, 20.0, 8.0], 2) == (4.0, 15.0)
    first, second, third = per_codebook([5.0, 6.0], 3)
    assert (first, second) == (5.0, 6.0)
    assert np.isnan(third)
