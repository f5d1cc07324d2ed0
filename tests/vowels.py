"""Synthetic vowels with a known F0, level and pauses."""

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

from rlhf_platform.types import Waveform

RATE = 16_000
_FORMANTS = ((700, 80), (1200, 90), (2600, 120))


def vowel(f0: float | npt.NDArray[np.float64], seconds: float = 1.0, rms: float = 0.05) -> Waveform:
    """A pulse train through three resonances, at a constant F0 in Hz or one per sample."""
    phase = np.cumsum(np.broadcast_to(f0, round(seconds * RATE))) / RATE
    samples = (np.diff(np.floor(phase), prepend=0.0) > 0).astype(np.float64)
    for frequency, bandwidth in _FORMANTS:
        radius = np.exp(-np.pi * bandwidth / RATE)
        samples = lfilter([1.0], [1.0, -2 * radius * np.cos(2 * np.pi * frequency / RATE), radius**2], samples)
    return (samples * rms / np.sqrt(np.mean(samples**2))).astype(np.float32)


def silence(seconds: float) -> Waveform:
    return np.zeros(round(seconds * RATE), np.float32)
