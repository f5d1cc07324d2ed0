"""One text spoken in many ways: the contours of a synthetic voice changed and resynthesised by WORLD (pyworld)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from rlhf_platform.data.audio import SAMPLE_RATE
from rlhf_platform.data.phonemes import align
from rlhf_platform.data.prosody import F0_RANGE, HOP, characters, frame_levels, speech_frames, without_leaps, world
from rlhf_platform.data.voices import Voice, speak
from rlhf_platform.types import Waveform

_Frames = npt.NDArray[np.float64]

MARGIN = 0.03
"""Seconds of silence at both ends."""
_FRAME_MS = HOP * 1000
_LOWEST = 95.0
"""Hz; the voice is higher. From here on WORLD's spectra have half the size and take half the time."""
_PEAK = 0.95
_EMPHASIS_PITCH, _EMPHASIS_GAIN = 6.0, 6.0  # semitones and dB at the middle of an emphasised word
_FADE = 0.01  # seconds over which speech goes out before a pause and comes in after it


@dataclass(frozen=True)
class Delivery:
    """How to speak. What comes out differs a little; it is measured."""

    speed: float
    """The engine's, about 1; above 1.3 it swallows phonemes."""
    rate: float
    """Characters per second of speech: WORLD stretches or shortens what the engine speaks to it."""
    f0: float
    """Hz, the median."""
    change: float
    """Semitones by which the last third of the voice rises, or falls below 0."""
    level: float
    """dBFS of speech, as far as no sample clips."""
    emphasis: int | None = None
    """Index of the word that is higher and louder."""
    pause: tuple[int, float] | None = None
    """Index of the word before which it is silent, and seconds."""


def deliver(text: str, delivery: Delivery, seed: int) -> Waveform:
    """`text` in hibari's voice, 16 kHz, with `MARGIN` at both ends; the same bits for the same arguments.

    Raises `DataError` when a package is not installed.
    """
    said = _with_comma(text, delivery.pause[0]) if delivery.pause else text
    spoken = trim(speak(Voice("hibari", rate=delivery.speed), said, SAMPLE_RATE, seed))
    stretch = characters(text, "en") / delivery.rate / (len(spoken) / SAMPLE_RATE - 2 * MARGIN)
    starts = _starts(said, delivery.speed) if delivery.pause or delivery.emphasis is not None else ()
    samples = _resynthesise(spoken.astype(np.float64), delivery, stretch, starts)
    if delivery.pause:
        word, seconds = delivery.pause
        samples = _with_silence(samples, starts[word] * stretch, seconds)
    return trim(_at_level(samples, delivery.level))


def trim(samples: Waveform) -> Waveform:
    """Without the silence at both ends, but for `MARGIN`, which is made up of zeros where there is less."""
    at = np.flatnonzero(speech_frames(frame_levels(samples)))
    margin = round(MARGIN * SAMPLE_RATE)
    first, last = (round(float(frame) * HOP * SAMPLE_RATE) for frame in (at[0], at[-1]))
    return np.pad(samples, margin)[first : last + 2 * margin]


def _with_comma(text: str, word: int) -> str:
    """The engine lengthens what is before a comma, as speakers do before a pause, but does not pause."""
    words = text.split()
    return " ".join([*words[: word - 1], words[word - 1] + ",", *words[word:]])


@cache
def _starts(said: str, speed: float) -> tuple[float, ...]:
    return align(trim(speak(Voice("hibari", rate=speed), said, SAMPLE_RATE)), said).starts


def _resynthesise(samples: _Frames, delivery: Delivery, stretch: float, starts: Sequence[float]) -> Waveform:
    tools = world()
    rough, times = tools.dio(samples, SAMPLE_RATE, f0_floor=F0_RANGE[0], f0_ceil=F0_RANGE[1], frame_period=_FRAME_MS)
    f0 = tools.stonemask(samples, rough, times, SAMPLE_RATE)
    envelope = tools.cheaptrick(samples, f0, times, SAMPLE_RATE, f0_floor=_LOWEST)
    # The noise changes slowly and takes half of the time: at every other frame is enough.
    every_other = np.ascontiguousarray(f0[::2]), np.ascontiguousarray(times[::2])
    noise = tools.d4c(samples, *every_other, SAMPLE_RATE, fft_size=2 * envelope.shape[1] - 2)
    noise = np.repeat(noise, 2, axis=0)[: len(f0)]
    with np.errstate(divide="ignore"):
        semitones = without_leaps(np.where(f0 > 0, 12 * np.log2(f0), np.nan))
    semitones = _ending(semitones, times, delivery.change)
    semitones += 12 * np.log2(delivery.f0) - np.nanmedian(semitones)
    if delivery.emphasis is not None:
        start, end = (*starts, len(samples) / SAMPLE_RATE)[delivery.emphasis :][:2]
        bump = _bump(times, start, end)
        semitones = semitones + _EMPHASIS_PITCH * bump
        envelope = envelope * 10 ** (_EMPHASIS_GAIN * bump[:, None] / 10)
    f0 = np.nan_to_num(np.clip(2 ** (semitones / 12), *F0_RANGE))
    made: Waveform = tools.synthesize(f0, envelope, noise, SAMPLE_RATE, _FRAME_MS * stretch).astype(np.float32)
    return made


def _ending(semitones: _Frames, times: _Frames, change: float) -> _Frames:
    """The contour with a straight line added to its last third, so that its slope there makes up `change`."""
    at = np.flatnonzero(~np.isnan(semitones))
    last = at[len(at) - len(at) // 3 :]
    slope = np.polyfit(times[last], semitones[last], 1)[0]
    wanted = change / (times[last[-1]] - times[last[0]])
    bent: _Frames = semitones + (wanted - slope) * np.maximum(times - times[last[0]], 0)
    return bent


def _bump(times: _Frames, start: float, end: float) -> _Frames:
    """1 over a word, 0 elsewhere, with raised-cosine flanks over its first and last quarters."""
    place = np.clip((times - start) / (end - start), 0, 1)
    bump: _Frames = 0.5 - 0.5 * np.cos(np.pi * np.clip(4 * np.minimum(place, 1 - place), 0, 1))
    return bump


def _with_silence(samples: Waveform, at: float, seconds: float) -> Waveform:
    """Silence at the quietest moment within 50 ms of `at`."""
    levels = frame_levels(samples)
    around = np.arange(len(levels))
    near = np.flatnonzero(np.abs(around * HOP - at) <= 0.05)
    cut = round(float(near[np.argmin(levels[near])]) * HOP * SAMPLE_RATE)
    fade = np.linspace(0, 1, round(_FADE * SAMPLE_RATE), dtype=np.float32)
    before, after = samples[:cut].copy(), samples[cut:].copy()
    before[-len(fade) :] *= fade[::-1]
    after[: len(fade)] *= fade
    return np.concatenate([before, np.zeros(round(seconds * SAMPLE_RATE), np.float32), after])


def _at_level(samples: Waveform, level: float) -> Waveform:
    levels = frame_levels(samples)
    power = np.mean(10 ** (levels[speech_frames(levels)] / 10))
    return samples * np.float32(min(10 ** (level / 20) / np.sqrt(power), _PEAK / np.abs(samples).max()))
