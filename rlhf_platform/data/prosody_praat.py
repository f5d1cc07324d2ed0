"""The same record of prosody, measured by Praat: for evaluation, so that what was trained on is not the judge.

Needs praat-parselmouth (GPL-3.0-or-later), which nothing else here does.
"""

import warnings
from importlib import import_module
from itertools import pairwise
from typing import Any

import numpy as np

from rlhf_platform.data.audio import SAMPLE_RATE
from rlhf_platform.data.prosody import (
    F0_RANGE,
    SHORTEST_PAUSE,
    Prosody,
    characters,
    f0_values,
    frame_levels,
    without_leaps,
)
from rlhf_platform.errors import DataError
from rlhf_platform.types import Waveform

_SILENCE = -32.0  # dB below the loudest moment
_SMOOTHING = 250.0  # Hz; Praat's intensity is smoothed over 6.4 periods of it
_SHORTEST = 0.02  # seconds of silence, or of sound, that Praat tells apart


def measure(samples: Waveform, text: str, language: str = "en") -> Prosody:
    """As `prosody.measure`, with F0 by autocorrelation (Boersma 1993) and silences by Praat's intensity.

    The closures of plosives count as speech in `energy`, which is a few tenths of a dB lower for it. Raises as
    `prosody.measure`, and `DataError` when praat-parselmouth is not installed.
    """
    praat = _praat()
    frame_levels(samples)  # raises for silence
    sound = praat.Sound(samples.astype(np.float64), SAMPLE_RATE)
    spoken = _sounding(sound)
    pauses = tuple((round(end, 3), round(start, 3)) for (_, end), (start, _) in pairwise(spoken))
    speech = praat.Sound.concatenate([sound.extract_part(start, end) for start, end in spoken])
    pitch = sound.to_pitch_ac(pitch_floor=F0_RANGE[0], pitch_ceiling=F0_RANGE[1])
    hertz = pitch.selected_array["frequency"]
    semitones = without_leaps(12 * np.log2(np.where(hertz > 0, hertz, np.nan)))
    low, high = (
        praat.praat.call(speech.to_spectrum(), "Get band energy", *band) for band in ((50, 1000), (1000, 5000))
    )
    return Prosody(
        rate=characters(text, language) / sum(end - start for start, end in spoken),
        pauses=pauses,
        energy=float(20 * np.log10(speech.get_rms())),
        tilt=float(10 * np.log10(max(low, 1e-12) / max(high, 1e-12))),
        **f0_values(semitones, pitch.dt),
    )


def _sounding(sound: Any) -> list[tuple[float, float]]:
    """Start and end in seconds of each stretch of speech, with `SHORTEST_PAUSE` at least between two."""
    praat = _praat()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", praat.PraatWarning)  # that a sound is as loud throughout
        grid = praat.praat.call(
            sound, "To TextGrid (silences)", _SMOOTHING, 0.0, _SILENCE, _SHORTEST, _SHORTEST, "", "speech"
        )
    stretches: list[tuple[float, float]] = []
    for at in range(1, praat.praat.call(grid, "Get number of intervals", 1) + 1):
        label, start, end = (
            praat.praat.call(grid, f"Get {what} of interval", 1, at) for what in ("label", "start time", "end time")
        )
        if label and stretches and start - stretches[-1][1] < SHORTEST_PAUSE:
            stretches[-1] = (stretches[-1][0], end)
        elif label:
            stretches.append((start, end))
    return stretches


def _praat() -> Any:
    try:
        return import_module("parselmouth")
    except ImportError:
        raise DataError(
            "the evaluation's own measure of prosody needs the package 'praat-parselmouth';"
            " install rlhf-platform with its extra `speech`"
        ) from None
