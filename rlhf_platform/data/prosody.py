"""How a text was spoken: rate, pitch, pauses, loudness and timbre, measured in the sound alone.

F0 is by WORLD (pyworld): DIO (Morise et al. 2009) refined by StoneMask. `prosody_praat` measures the same record by
other means, so that what is trained is not judged by what trained it.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from rlhf_platform.data.audio import SAMPLE_RATE
from rlhf_platform.data.text import normalize
from rlhf_platform.errors import DataError
from rlhf_platform.types import Waveform

SHORTEST_PAUSE = 0.15
"""Seconds of inner silence that are a pause; the closure of a plosive is shorter, even in slow speech."""
SHORTEST, QUIETEST = 0.1, -50.0
"""Seconds, and dBFS of the loudest tenth of a second, below which there is nothing to measure."""
F0_RANGE = (70.0, 500.0)
"""Hz that are looked for."""

HOP = 0.005
_HOP, _WINDOW = round(HOP * SAMPLE_RATE), round(0.010 * SAMPLE_RATE)
_DEPTH = 35.0  # dB below the loudest tenth of a second: quieter frames are silence
_VOICED = 0.15  # share of speech frames; DIO finds up to half of that in noise, speech has two to five times as much
_LEAP = 12.0  # semitones from the median: further is an octave error of the tracker
Frames = npt.NDArray[np.float64]
"""One value per frame."""


@dataclass(frozen=True)
class Prosody:
    """What was measured in a clip."""

    rate: float
    """Characters of the normalised text, the spaces between words among them, per second of speech without pauses."""
    f0: float
    """Hz, the median of voiced frames; 0 where nothing is voiced, as are the next two."""
    f0_spread: float
    """Semitones, the standard deviation over voiced frames."""
    ending: float
    """Semitones per second, the slope of F0 over the last third of the voiced frames."""
    pauses: tuple[tuple[float, float], ...]
    """Start and end in seconds of each silence of `SHORTEST_PAUSE` at least between speech."""
    energy: float
    """dBFS, the RMS of speech frames."""
    tilt: float
    """dB, the energy of speech in 50-1,000 Hz over that in 1-5 kHz (alpha ratio, Eyben et al. 2016): high is dark."""


@dataclass(frozen=True)
class Contours:
    """A clip by frames, `HOP` seconds apart."""

    levels: Frames
    """dBFS."""
    spoken: npt.NDArray[np.bool_]
    semitones: Frames
    """F0 above 1 Hz; NaN where it is unvoiced or silent."""


@dataclass(frozen=True)
class Norms:
    """A speaker's own middle, which deliveries are compared with."""

    rate: float
    """Characters per second."""
    f0: float
    """Hz."""
    energy: float
    """dBFS."""


@dataclass(frozen=True)
class Scale:
    """An attribute's classes, in order, and the bounds between them."""

    classes: tuple[str, ...]
    bounds: tuple[float, ...]


SCALES: Mapping[str, Scale] = {
    "rate": Scale(("slow", "normal", "fast"), (-0.186, 0.182)),  # nepers: 0.83 and 1.2 times the norm
    "pitch": Scale(("low", "normal", "high"), (-2.5, 2.5)),  # semitones from the norm
    "energy": Scale(("soft", "normal", "loud"), (-4.0, 4.0)),  # dB from the norm
    "pause": Scale(("none", "one"), (SHORTEST_PAUSE,)),  # seconds of the longest pause
    "ending": Scale(("falling", "level", "rising"), (-15.0, 15.0)),  # semitones per second
}
"""What deliveries are told apart by; docs/speech_data.md gives the reasons."""

UNVOICED = "unvoiced"
"""Class of pitch and ending where nothing is voiced: nobody asks for it, so that noise never passes for speech."""


def measure(samples: Waveform, text: str, language: str = "en") -> Prosody:
    """The prosody of `samples` (16 kHz), in which `text` is spoken; within a hundredth of their duration.

    Raises `ValueError` for less than `SHORTEST` seconds, for silence and for a text without a letter or digit,
    `DataError` when pyworld is not installed.
    """
    return summarise(samples, contours(samples), text, language)


def contours(samples: Waveform) -> Contours:
    """The frames that everything is measured in. Raises as `measure`."""
    levels = frame_levels(samples)
    spoken = speech_frames(levels)
    return Contours(levels, spoken, f0_semitones(samples, spoken))


def summarise(samples: Waveform, frames: Contours, text: str, language: str = "en") -> Prosody:
    """`measure`, of contours that are there already."""
    pauses = inner_silences(frames.spoken)
    return Prosody(
        rate=characters(text, language) / spoken_seconds(frames.spoken, pauses),
        pauses=pauses,
        energy=float(10 * np.log10(np.mean(10 ** (frames.levels[frames.spoken] / 10)))),
        tilt=_alpha_ratio(samples, frames.spoken),
        **f0_values(frames.semitones, HOP),
    )


def discretise(prosody: Prosody, norms: Norms) -> dict[str, str]:
    """The class of each attribute of `SCALES`, relative to the speaker's norms."""
    found = {
        name: SCALES[name].classes[bisect_right(SCALES[name].bounds, place)]
        for name, place in places(prosody, norms).items()
    }
    return found if prosody.f0 else found | {"pitch": UNVOICED, "ending": UNVOICED}


def places(prosody: Prosody, norms: Norms) -> dict[str, float]:
    """Where a delivery lies on each of `SCALES`, in the unit of its bounds; pitch and ending are 0 if unvoiced."""
    return {
        "rate": float(np.log(prosody.rate / norms.rate)),
        "pitch": float(12 * np.log2(prosody.f0 / norms.f0)) if prosody.f0 else 0.0,
        "energy": prosody.energy - norms.energy,
        "pause": max((end - start for start, end in prosody.pauses), default=0.0),
        "ending": prosody.ending,
    }


def norms_of(clips: Sequence[Prosody]) -> Norms:
    """Medians over a speaker's clips; of F0 over those that are voiced. Raises `ValueError` if none is."""
    voiced = [clip.f0 for clip in clips if clip.f0]
    if not voiced:
        raise ValueError("no clip is voiced")
    return Norms(
        rate=float(np.median([clip.rate for clip in clips])),
        f0=float(np.median(voiced)),
        energy=float(np.median([clip.energy for clip in clips])),
    )


def characters(text: str, language: str) -> int:
    """What rate counts. Raises `ValueError` for a text without a letter or digit."""
    if not (count := len(normalize(text, language))):
        raise ValueError(f"text {text!r} has no letter or digit, so it has no rate")
    return count


def frame_levels(samples: Waveform) -> Frames:
    """dBFS of the 10 ms around each multiple of `HOP`. Raises `ValueError` for what is too short or silent."""
    seconds = len(samples) / SAMPLE_RATE
    if seconds < SHORTEST:
        raise ValueError(f"too short: {seconds:.3f} s, at least {SHORTEST:g} s can be measured")
    padded = np.pad(np.square(samples.astype(np.float64)), _WINDOW // 2)
    power = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP].mean(axis=1)
    levels: Frames = 10 * np.log10(np.maximum(power, 1e-12))
    if (loudest := _loudest(levels)) < QUIETEST:
        raise ValueError(f"silent: the loudest tenth of a second is at {loudest:.0f} dBFS, below {QUIETEST:g} dBFS")
    return levels


def speech_frames(levels: Frames) -> npt.NDArray[np.bool_]:
    """Which frames are speech rather than silence, relative to the loudest of the clip."""
    return levels > _loudest(levels) - _DEPTH


def inner_silences(spoken: npt.NDArray[np.bool_]) -> tuple[tuple[float, float], ...]:
    """Seconds from and to which it is silent, for `SHORTEST_PAUSE` at least, between frames of speech."""
    at = np.flatnonzero(spoken)
    gaps = np.flatnonzero(np.diff(at) * HOP > SHORTEST_PAUSE)
    return tuple((round(float(at[gap]) * HOP, 3), round(float(at[gap + 1]) * HOP, 3)) for gap in gaps)


def spoken_seconds(spoken: npt.NDArray[np.bool_], pauses: Sequence[tuple[float, float]]) -> float:
    """From the first frame of speech to the last, without the pauses."""
    at = np.flatnonzero(spoken)
    return float(at[-1] - at[0] + 1) * HOP - sum(end - start for start, end in pauses)


def f0_semitones(samples: Waveform, spoken: npt.NDArray[np.bool_]) -> Frames:
    """F0 of each frame in semitones above 1 Hz, NaN where it is unvoiced or silent; everywhere in noise."""
    tools, waveform = world(), samples.astype(np.float64)
    low, high = F0_RANGE
    rough, times = tools.dio(waveform, SAMPLE_RATE, f0_floor=low, f0_ceil=high, frame_period=HOP * 1000)
    f0: Frames = tools.stonemask(waveform, rough, times, SAMPLE_RATE)
    voiced = spoken & (f0 > 0)
    if voiced.sum() < _VOICED * spoken.sum():
        voiced[:] = False
    with np.errstate(divide="ignore"):
        return without_leaps(np.where(voiced, 12 * np.log2(f0), np.nan))


def without_leaps(semitones: Frames) -> Frames:
    """NaN instead of what is an octave or more from the median."""
    if np.isnan(semitones).all():
        return semitones
    return np.where(np.abs(semitones - np.nanmedian(semitones)) < _LEAP, semitones, np.nan)


def f0_values(semitones: Frames, hop: float) -> dict[str, float]:
    """`f0`, `f0_spread` and `ending` of a `Prosody`, of frames `hop` seconds apart with NaN where unvoiced."""
    at = np.flatnonzero(~np.isnan(semitones))
    if len(at) < 6:
        return {"f0": 0.0, "f0_spread": 0.0, "ending": 0.0}
    last = at[len(at) - len(at) // 3 :]
    return {
        "f0": float(2 ** (np.median(semitones[at]) / 12)),
        "f0_spread": float(np.std(semitones[at])),
        "ending": float(np.polyfit(last * hop, semitones[last], 1)[0]),
    }


def _loudest(levels: Frames) -> float:
    """dBFS of the loudest tenth of a second, so that no click decides."""
    length = round(SHORTEST / HOP)
    return float(10 * np.log10(np.convolve(10 ** (levels / 10), np.full(length, 1 / length), "valid").max()))


def _alpha_ratio(samples: Waveform, spoken: npt.NDArray[np.bool_]) -> float:
    """Over 32 ms Hann frames at every second hop that is speech."""
    length = 512
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(samples, length // 2), length)[::_HOP][: len(spoken)]
    power = np.square(np.abs(np.fft.rfft(frames[spoken][::2] * np.hanning(length), axis=1))).sum(axis=0)
    hertz = np.fft.rfftfreq(length, 1 / SAMPLE_RATE)
    low = power[(hertz >= 50) & (hertz < 1000)].sum()
    high = power[(hertz >= 1000) & (hertz < 5000)].sum()
    return float(10 * np.log10(max(low, 1e-12) / max(high, 1e-12)))


@cache
def world() -> Any:
    try:
        return import_module("pyworld")
    except ImportError:
        raise DataError(
            "measuring prosody needs the package 'pyworld'; install rlhf-platform with its extra `speech`"
        ) from None
