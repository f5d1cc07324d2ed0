"""Whether a clip says its text, and when each word begins, by hama (Apache-2.0): a G2P and a phoneme recogniser.

The recogniser is a CTC without a language model, so that it hears what was said and not what is likely. English only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import import_module
from itertools import pairwise
from typing import Any

import numpy as np
from rapidfuzz.distance import Levenshtein

from rlhf_platform.data.audio import SAMPLE_RATE
from rlhf_platform.data.text import words
from rlhf_platform.errors import DataError
from rlhf_platform.types import Waveform

_LEAD = 0.02
"""Seconds by which a CTC's emission lags behind where the sound begins: a frame of hama's."""


@dataclass(frozen=True)
class Alignment:
    """What hama heard of a text."""

    error: float
    """Phoneme edits (Levenshtein) per phoneme of the text; 0 when all was heard, over 1 where much is inserted."""
    starts: tuple[float, ...]
    """Seconds at which each word begins, coarse to some 40 ms; one that was not heard lies between its neighbours."""


def align(samples: Waveform, text: str) -> Alignment:
    """Compare `samples` (16 kHz) with an English text; its words are what has spaces between.

    Raises `ValueError` for a text with a digit, which the G2P reads as another language, or without a letter, and
    `DataError` when hama is not installed.
    """
    spelt = [[each for word in words(token, "en") for each in phonemes_of(word)] for token in text.split()]
    reference = [phoneme for word in spelt for phoneme in word]
    if not reference:
        raise ValueError(f"text {text!r} has no letter")
    recogniser = _hama("ASRModel")
    spans = recogniser.phoneme_spans(recogniser.transcribe_waveform(samples, SAMPLE_RATE))
    heard = [span.phoneme for span in spans]
    times: dict[int, float] = {}
    for code in Levenshtein.opcodes(reference, heard):
        if code.tag in ("equal", "replace"):
            for at in range(code.src_start, code.src_end):
                times[at] = spans[code.dest_start + at - code.src_start].start_ms / 1000
    error = Levenshtein.distance(reference, heard) / len(reference)
    return Alignment(error, _word_starts([len(word) for word in spelt], times, len(samples) / SAMPLE_RATE))


@lru_cache(maxsize=65_536)
def phonemes_of(word: str) -> tuple[str, ...]:
    """The phonemes (IPA) of an English word. Raises as `align`."""
    if not word.replace("'", "").isalpha():
        raise ValueError(f"text has {word!r}: letters alone have phonemes here; spell out its numbers")
    return tuple(each.phoneme for each in _hama("G2PModel").predict(word).alignments)


def _word_starts(lengths: Sequence[int], times: Mapping[int, float], duration: float) -> tuple[float, ...]:
    """When each word starts, of the times of the phonemes that were heard; what was not is interpolated."""
    firsts = np.cumsum([0, *lengths])
    heard = [[times[at] for at in range(first, after) if at in times] for first, after in pairwise(firsts)]
    known = [word for word, phonemes in enumerate(heard) if phonemes]
    starts = [max(0.0, heard[word][0] - _LEAD) for word in known]
    places = [-1, *known, len(lengths)]
    return tuple(float(start) for start in np.interp(range(len(lengths)), places, [0.0, *starts, duration]))


@cache
def _hama(model: str) -> Any:
    try:
        return getattr(import_module("hama"), model)()
    except ImportError:
        raise DataError(
            "the check of what is said needs the package 'hama'; install rlhf-platform with its extra `speech`"
        ) from None
