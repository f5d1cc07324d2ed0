"""Where a recording has speech, and how it is cut into pieces that a model takes whole.

The detector is Silero VAD (MIT), an ONNX model inside its package: nothing is fetched, and one thread hears an hour of
audio in some ten seconds. It imports torch, so this file waits with it until a recording is cut.
"""

import functools
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rlhf_platform.data.audio import SAMPLE_RATE
from rlhf_platform.types import Waveform

Span = tuple[int, int]
"""First sample, and the one after the last."""

SHORTEST_SPEECH = 0.1
"""Seconds; the detector's own 0.25 would leave out a short word that stands alone."""
MARGIN = 0.2
"""Seconds kept around speech, in a shorter silence half of it: a recogniser mishears a word that begins at once."""
_WINDOW = 0.1  # seconds whose energy tells where it is quiet: the closure of a stop is shorter, a pause is not
_HOP = 0.01


def segments(samples: Waveform, sample_rate: int, longest: float) -> list[Span]:
    """Spans of `samples` (n,), in order and apart, that hold all speech, none longer than `longest` seconds.

    Silence between them is left out. Empty when there is no speech. Raises `ValueError` when `sample_rate` is not
    16,000 Hz or `longest` is less than a sample.
    """
    if sample_rate != SAMPLE_RATE:
        raise ValueError(f"sample_rate is {sample_rate}: the detector takes {SAMPLE_RATE} Hz; resample first")
    return fitted(speech(samples), int(longest * sample_rate), functools.partial(quietest, samples))


def speech(samples: Waveform) -> list[Span]:
    """Spans of samples (n,) at 16 kHz that have speech, and MARGIN around it; in order and apart."""
    found = _silero().get_speech_timestamps_from_probs(
        _detector().audio_forward(np.ascontiguousarray(samples)),
        min_speech_duration_ms=round(1000 * SHORTEST_SPEECH),
        speech_pad_ms=round(1000 * MARGIN),
        audio_length_samples=len(samples),
    )
    return [(each["start"], each["end"]) for each in found]


def fitted(spans: Sequence[Span], longest: int, cut: Callable[[int, int], int]) -> list[Span]:
    """The spans in as few as a greedy pass makes of them, none longer than `longest` samples.

    Neighbours become one, the gap between them included, while they fit; a span that does not fit alone is cut at
    `cut(start, end)`, a place in (start, end]. All samples of the spans are in the result. Raises `ValueError` when
    `longest` is less than a sample.
    """
    if longest < 1:
        raise ValueError(f"longest is {longest} samples: a piece has at least one")
    pieces: list[Span] = []
    for start, end in spans:
        while end - start > longest:
            # Near its end, so that there are few pieces.
            place = cut(start + 2 * longest // 3, start + longest)
            pieces.append((start, place))
            start = place
        pieces.append((start, end))
    merged = pieces[:1]
    for start, end in pieces[1:]:
        if end - merged[-1][0] <= longest:
            merged[-1] = merged[-1][0], end
        else:
            merged.append((start, end))
    return merged


def quietest(samples: Waveform, start: int, end: int) -> int:
    """The middle of the 0.1 s with the least energy in `samples[start:end]`; `end` when that is shorter."""
    window, hop = round(_WINDOW * SAMPLE_RATE), round(_HOP * SAMPLE_RATE)
    if end - start < window:
        return end
    power = np.square(samples[start:end], dtype=np.float64)
    sums = np.concatenate([[0.0], np.cumsum(power)])
    energy = sums[window::hop] - sums[: len(sums) - window : hop]
    return start + int(np.argmin(energy)) * hop + window // 2


@functools.cache
def _detector() -> Any:
    """Loaded once a process."""
    return _silero().load_silero_vad(sequence=True)


@functools.cache
def _silero() -> Any:
    """The package. As it is imported it sets torch to one thread for the whole process, which is taken back."""
    import torch

    threads = torch.get_num_threads()
    package = importlib.import_module("silero_vad")
    torch.set_num_threads(threads)
    return package
