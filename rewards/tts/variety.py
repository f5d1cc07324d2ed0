"""Signs of collapse: a flat voice, few tokens, loops, no end. To be watched, or to be held against it."""

from collections import Counter
from functools import lru_cache
from math import log

import numpy as np
import numpy.typing as npt

from rewards.tts.sound import audible, recording, reference_of
from rewards.types import RewardInput
from rlhf_platform.data.prosody import HOP, f0_semitones, f0_values, frame_levels, speech_frames
from rlhf_platform.types import StopReason, Waveform


def f0_spread(sample: RewardInput) -> dict[str, float]:
    """`semitones`, the standard deviation of F0 over voiced frames (0 where nothing is voiced), and `ratio`, that to
    the recording's.

    What shrinks first under a reward for being understood. Raises `ValueError` for silence, for less than 0.1 s,
    without sound, and for a row without a recording or whose recording has no melody.
    """
    own, other = _spread(audible(sample)), _spread_of(reference_of(sample))
    if other == 0.0:
        raise ValueError(f"reference {sample.audio} has no melody to compare with: name a recording of a voice")
    return {"semitones": own, "ratio": own / other}


def ended(sample: RewardInput) -> float:
    """1 when the policy wrote its end token, 0 when it was cut."""
    return float(sample.stop_reason == StopReason.EOS)


def token_diversity(sample: RewardInput) -> dict[str, float]:
    """`distinct`, kinds of tokens per token, and `entropy`, that of their distribution over its most, ln(tokens).

    Both in [0, 1], 0 without tokens; the entropy of one token is 0. The end token counts as any other.
    """
    total = len(sample.tokens)
    counts = Counter(sample.tokens).values()
    nats = -sum(count / total * log(count / total) for count in counts)
    return {
        "distinct": len(counts) / total if total else 0.0,
        "entropy": abs(nats) / log(total) if total > 1 else 0.0,
    }


def loops(sample: RewardInput, *, max_period: int = 64, min_repeats: int = 3) -> float:
    """Share of the tokens that are in the longest loop, in [0, 1]; 0 where there is none.

    A loop is an n-gram of at most `max_period` tokens, `min_repeats` times or more in a row, and what there is of a
    further one. A frame of K codebooks is K tokens: a held frame is a loop of period K, and so is a pause, so some of
    it is no fault. Raises `ValueError` unless `max_period` >= 1 and `min_repeats` >= 2.
    """
    if max_period < 1 or min_repeats < 2:
        raise ValueError(f"max_period {max_period} and min_repeats {min_repeats}: at least 1 and 2 are needed")
    tokens = np.asarray(sample.tokens)
    longest = 0
    for period in range(1, min(max_period, len(tokens) // min_repeats) + 1):
        run = _longest_run(tokens[period:] == tokens[:-period]) + period
        longest = max(longest, run if run >= period * min_repeats else 0)
    return longest / max(len(tokens), 1)


def _longest_run(repeats: npt.NDArray[np.bool_]) -> int:
    """The most True in a row."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], repeats, [False]))))
    return int((edges[1::2] - edges[::2]).max(initial=0))


@lru_cache(maxsize=4096)
def _spread_of(path: str) -> float:
    return _spread(recording(path))


def _spread(samples: Waveform) -> float:
    spoken = speech_frames(frame_levels(samples))
    return f0_values(f0_semitones(samples, spoken), HOP)["f0_spread"]
