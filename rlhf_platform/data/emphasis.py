"""Which word of a clip is emphasised: clearly higher and louder than the speaker's own words at that place."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rlhf_platform.data.prosody import HOP, Contours

HIGHER, LOUDER = 3.0, 2.0
"""Semitones and dB above the speaker's line from which on a word is emphasised."""

_FEWEST = 4  # frames of voice, and of speech, without which a word has no value

WordValues = npt.NDArray[np.float64]
"""(words, 2): F0 in semitones and level in dB of each word, its higher parts; NaN where it has too little voice."""


@dataclass(frozen=True)
class Line:
    """How a speaker's words go down from the first to the last: what is expected before anything is emphasised."""

    slope: tuple[float, float]
    """Semitones and dB from the first word to the last."""


def word_values(frames: Contours, starts: Sequence[float]) -> WordValues:
    """F0 (80th percentile) and level (90th) of each word, which lasts until the next one starts."""
    word_of = np.searchsorted(starts, np.arange(len(frames.levels)) * HOP, side="right") - 1
    values = np.full((len(starts), 2), np.nan)
    for word in range(len(starts)):
        voice = frames.semitones[(word_of == word) & ~np.isnan(frames.semitones)]
        loudness = frames.levels[(word_of == word) & frames.spoken]
        if len(voice) >= _FEWEST and len(loudness) >= _FEWEST:
            values[word] = np.percentile(voice, 80), np.percentile(loudness, 90)
    return values


def line_of(clips: Sequence[WordValues]) -> Line:
    """The least-squares line over the words of all a speaker's clips, each relative to its clip's median."""
    places = np.concatenate([_places(values) for values in clips])
    relative = np.concatenate([values - np.nanmedian(values, axis=0) for values in clips if len(values)])
    known = ~np.isnan(relative[:, 0])
    if len(np.unique(places[known])) < 2:
        return Line((0.0, 0.0))
    pitch, loudness = np.polyfit(places[known], relative[known], 1)[0]
    return Line((float(pitch), float(loudness)))


def emphasised(values: WordValues, line: Line) -> int | None:
    """The index of the word that stands out most in F0, if it does by `HIGHER` and `LOUDER`."""
    if np.isnan(values).all():
        return None
    over = values - np.outer(_places(values), line.slope)
    over -= np.nanmedian(over, axis=0)
    word = int(np.nanargmax(over[:, 0]))
    return word if over[word, 0] >= HIGHER and over[word, 1] >= LOUDER else None


def _places(values: WordValues) -> npt.NDArray[np.float64]:
    """0 for the first word to 1 for the last."""
    return np.linspace(0, 1, len(values))
