"""Codes as flat indices: by hand, and as inverses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from policies.codec.layout import CodecError, Codes, flatten, offsets, unflatten

BOOKS = (4, 2, 3)


@st.composite
def coded(draw: st.DrawFn) -> tuple[Codes, tuple[int, ...]]:
    """Codes, and the codebooks that they are of."""
    books = tuple(draw(st.lists(st.integers(1, 600), min_size=1, max_size=8)))
    frames = draw(st.integers(1, 12))
    columns = [draw(hnp.arrays(np.int64, frames, elements=st.integers(0, size - 1))) for size in books]
    return np.stack(columns, axis=1), books


def test_indices_of_a_frame_follow_each_other_and_each_codebook_has_its_own() -> None:
    assert flatten(np.array([[3, 0, 2], [0, 1, 0]]), BOOKS) == [3, 4, 8, 0, 5, 6]
    assert offsets(BOOKS).tolist() == [0, 4, 6]


@given(coded())
def test_unflatten_is_the_inverse(given_codes: tuple[Codes, tuple[int, ...]]) -> None:
    codes, books = given_codes
    found = unflatten(flatten(codes, books), books)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, codes)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([], "no codec tokens"),
        ([3, 4, 8, 0, 5], "5 codec tokens: the last frame has 2 of 3"),
        ([3, 4, 8, 0, 6, 6], "codec token 4 is 6: it is the turn of codebook 1, whose tokens are 4 to 5"),
        ([4, 4, 8], "codec token 0 is 4: it is the turn of codebook 0, whose tokens are 0 to 3"),
        ([3, 4, 9], "codec token 2 is 9: it is the turn of codebook 2, whose tokens are 6 to 8"),
        ([-1, 4, 8], "codec token 0 is -1"),
    ],
)
def test_what_is_no_codes_is_refused_with_its_place(indices: list[int], message: str) -> None:
    with pytest.raises(CodecError, match=message):
        unflatten(indices, BOOKS)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros((0, 3), np.int64), r"shape \(0, 3\)"),
        (np.zeros((2, 2), np.int64), r"shape \(2, 2\), expected \(frames, 3\)"),
        (np.zeros(3, np.int64), r"shape \(3,\)"),
        (np.array([[0, 0, 0], [0, 2, 0]]), "frame 1 has entry 2 of codebook 1, whose entries are 0 to 1"),
        (np.array([[0, 0, -1]]), "frame 0 has entry -1 of codebook 2"),
    ],
)
def test_codes_of_another_codec_are_not_flattened(codes: Codes, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        flatten(codes, BOOKS)
