"""The delay pattern of MusicGen (arXiv 2306.05284): codebook k of a frame is written k steps later.

Also figures by codebook for completions that are written flat.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from policies.codec.layout import CodecError, Codes


def delay(codes: Codes, pad: int) -> Codes:
    """Codes (F, K) as steps (F + K - 1, K): step t holds codebook k of frame t - k, and `pad` where there is none."""
    frames, books = codes.shape
    steps = np.full((frames + books - 1, books), pad, dtype=np.int64)
    for book in range(books):
        steps[book : book + frames, book] = codes[:, book]
    return steps


def undelay(steps: Codes) -> Codes:
    """The codes (F, K) that `delay` made `steps` (F + K - 1, K) of. Raises `CodecError` if there is no whole frame."""
    books = steps.shape[1]
    frames = len(steps) - books + 1
    if frames < 1:
        raise CodecError(f"{len(steps)} steps of {books} codebooks hold no whole frame; {books} at least are needed")
    return np.stack([steps[book : book + frames, book] for book in range(books)], axis=1)


def delay_mask(frames: int, codebooks: int) -> npt.NDArray[np.bool_]:
    """(F + K - 1, K): which places of the delayed steps hold a code."""
    frame = np.arange(frames + codebooks - 1)[:, None] - np.arange(codebooks)
    mask: npt.NDArray[np.bool_] = (frame >= 0) & (frame < frames)
    return mask


def per_codebook(values: Sequence[float], codebooks: int) -> tuple[float, ...]:
    """Mean by codebook of one value per token of a flat completion; NaN for a codebook without a token.

    Leave the end token's value out: it belongs to no codebook.
    """
    return tuple(float(np.mean(own)) if len(own := values[book::codebooks]) else np.nan for book in range(codebooks))
