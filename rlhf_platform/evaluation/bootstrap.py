"""Confidence intervals of corpus WER by the bootstrap over utterances.

Bisani & Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP 2004:
utterances are drawn with replacement, the WER (or the difference of two systems' WER on the same draw) is
computed for each draw, and the interval holds the middle share of them.

Errors are arrays (N,), or (R, N) for R decodings of the same N utterances (training seeds, say). An utterance
is drawn with all its decodings: three decodings of one clip are not three independent clips. The interval
thus says what other clips would give, not what other seeds would.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_CELLS = 1 << 20
"""Indices drawn at a time: bounds memory to some tens of MB for test sets up to a million utterances."""

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A point estimate and the percentile interval around it."""

    point: float
    """On the test set itself."""
    low: float
    high: float
    confidence: float
    """Share of resamples inside [low, high], e.g. 0.95."""


def wer_interval(
    errors: npt.NDArray[Any],
    words: npt.NDArray[Any],
    *,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """WER of one system, in errors per reference word.

    `errors`: per utterance, (N,) or (R, N). `words`: reference words per utterance, (N,). Raises `ValueError`
    when shapes disagree or there is no reference word.
    """
    counts = _words(words)
    return _bootstrap(_per_utterance(errors, counts), counts, resamples, confidence, seed)


def wer_difference(
    before: npt.NDArray[Any],
    after: npt.NDArray[Any],
    words: npt.NDArray[Any],
    *,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """WER after minus WER before, paired: both on the same draw of utterances. Below 0 is better.

    `before`, `after`: errors per utterance, each (N,) or (R, N), R need not agree. `words`: (N,). Raises
    `ValueError` when shapes disagree or there is no reference word.
    """
    counts = _words(words)
    # WER is linear in the errors once the draw is fixed, so the difference of errors is all it takes.
    errors = _per_utterance(after, counts) - _per_utterance(before, counts)
    return _bootstrap(errors, counts, resamples, confidence, seed)


def _bootstrap(errors: _Floats, words: _Floats, resamples: int, confidence: float, seed: int) -> Interval:
    rates = _resampled_rates(errors, words, resamples, seed)
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(rates, [tail, 100.0 - tail])
    return Interval(float(errors.sum() / words.sum()), float(low), float(high), confidence)


def _resampled_rates(errors: _Floats, words: _Floats, resamples: int, seed: int) -> _Floats:
    """Errors per word of each resample (resamples,), less the few of a tiny set without a reference word."""
    rng = np.random.default_rng(seed)
    utterances = len(words)
    rows = max(1, _CELLS // utterances)
    rates: list[_Floats] = []
    for start in range(0, resamples, rows):
        drawn = rng.integers(0, utterances, size=(min(rows, resamples - start), utterances))
        drawn_words = words[drawn].sum(axis=1)
        some = drawn_words > 0
        rates.append(errors[drawn].sum(axis=1)[some] / drawn_words[some])
    return np.concatenate(rates)


def _words(words: npt.NDArray[Any]) -> _Floats:
    counts = np.asarray(words, dtype=np.float64)
    if counts.ndim != 1 or not np.isfinite(counts).all() or (counts < 0).any() or counts.sum() == 0:
        raise ValueError(f"words has shape {counts.shape}, sum {counts.sum():g}: (N,) counts, not all 0, expected")
    return counts


def _per_utterance(errors: npt.NDArray[Any], words: _Floats) -> _Floats:
    """Errors per utterance (N,), the mean over decodings."""
    counts = np.asarray(errors, dtype=np.float64)
    if counts.ndim not in (1, 2) or counts.shape[-1] != len(words) or counts.size == 0:
        raise ValueError(f"errors has shape {counts.shape}: (N,) or (R, N) with N = {len(words)} is needed")
    return counts if counts.ndim == 1 else counts.mean(axis=0)
