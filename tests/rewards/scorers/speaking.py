"""Speech to judge: a neural voice, and ways of damaging it."""

from functools import cache

import numpy as np

from rlhf_platform.data.voices import Voice, speak
from rlhf_platform.types import Waveform

TEXTS = ("open the red box", "find the small white cup", "lift the heavy brown chair")
SILENCE = np.zeros(16_000, np.float32)
HISS = np.random.default_rng(1).normal(0, 1e-3, 16_000).astype(np.float32)
"""Of a quiet room: -60 dBFS."""


@cache
def spoken(text: str, rate: float = 1.0) -> Waveform:
    """About 1.1 s, with 30 ms of silence at both ends."""
    samples = speak(Voice("hibari", rate=rate), text, 16_000)
    loud = np.flatnonzero(np.abs(samples) > 0.005)
    return samples[max(0, loud[0] - 480) : loud[-1] + 480]


@cache
def another_voice(text: str) -> Waveform:
    return speak(Voice("espeak", "en-us", 170), text, 16_000)


def noisy(samples: Waveform, snr: float) -> Waveform:
    """With white noise, `snr` dB below the speech."""
    noise = np.random.default_rng(0).normal(size=len(samples))
    noise *= np.sqrt(np.square(samples).mean() / 10 ** (snr / 10))
    return np.clip(samples + noise, -1, 1).astype(np.float32)


def scrambled(samples: Waveform) -> Waveform:
    """Ten pieces in another order."""
    pieces = np.array_split(samples, 10)
    return np.concatenate([pieces[i] for i in (7, 2, 9, 0, 5, 3, 8, 1, 6, 4)])


def with_pause(samples: Waveform, at: float, seconds: float) -> Waveform:
    """Silence after the share `at` of the samples, nothing else changed."""
    place = round(at * len(samples))
    return np.concatenate([samples[:place], np.zeros(round(seconds * 16_000), np.float32), samples[place:]])
