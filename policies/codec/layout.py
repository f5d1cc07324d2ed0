"""Codes of a codec as one flat list of indices, frame by frame, and back.

Entry e of codebook k is index offset_k + e, where offset_k is the sum of the sizes of the codebooks before it: an index
says which codebook it belongs to.
"""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from rlhf_platform.errors import PlatformError

Codes = npt.NDArray[np.int64]
"""(F, K): for each frame, the entry of each codebook."""


class CodecError(PlatformError):
    """Samples that cannot be encoded, codes that cannot be decoded, or a codec that cannot be loaded."""


def flatten(codes: Codes, codebooks: Sequence[int]) -> list[int]:
    """Codes (F, K) as F * K indices. Raises `CodecError` for another shape or an entry outside its codebook."""
    check_codes(codes, codebooks)
    return [int(index) for index in (codes + offsets(codebooks)).reshape(-1)]


def unflatten(indices: Sequence[int], codebooks: Sequence[int]) -> Codes:
    """The codes (F, K) that `flatten` made `indices` of.

    Raises `CodecError` for no indices, a last frame that is not whole, and an index that is not of the codebook whose
    turn it is; the message says the place, counted from 0.
    """
    if not len(indices):
        raise CodecError("no codec tokens: there is nothing to decode")
    if unfinished := len(indices) % len(codebooks):
        raise CodecError(
            f"{len(indices)} codec tokens: the last frame has {unfinished} of {len(codebooks)}; "
            f"finish it or leave its tokens out"
        )
    entries = np.asarray(indices, dtype=np.int64).reshape(-1, len(codebooks)) - offsets(codebooks)
    wrong = np.flatnonzero((entries < 0) | (entries >= np.asarray(codebooks)))
    if len(wrong):
        place = int(wrong[0])
        book = place % len(codebooks)
        first = int(offsets(codebooks)[book])
        raise CodecError(
            f"codec token {place} is {int(indices[place])}: it is the turn of codebook {book}, whose tokens are "
            f"{first} to {first + codebooks[book] - 1}"
        )
    return entries


def offsets(codebooks: Sequence[int]) -> Codes:
    """Index (K,) of the first entry of each codebook."""
    return np.asarray([0, *accumulate(codebooks)][:-1], dtype=np.int64)


def check_codes(codes: Codes, codebooks: Sequence[int]) -> None:
    """Raises `CodecError` unless `codes` is (F, K) with a frame at least, each entry within its codebook."""
    if codes.ndim != 2 or codes.shape[1] != len(codebooks) or not len(codes):
        raise CodecError(
            f"codes have the shape {codes.shape}, expected (frames, {len(codebooks)}) and a frame at least"
        )
    wrong = np.argwhere((codes < 0) | (codes >= np.asarray(codebooks)))
    if len(wrong):
        frame, book = wrong[0]
        raise CodecError(
            f"frame {frame} has entry {codes[frame, book]} of codebook {book}, whose entries are 0 to "
            f"{codebooks[book] - 1}"
        )
