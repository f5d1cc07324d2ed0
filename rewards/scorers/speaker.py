"""Whose voice it is, by Resemblyzer (Apache-2.0): the speaker encoder of 1710.10467, trained for verification."""

from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from rewards.scorers.packages import require
from rewards.scorers.sound import check_sound
from rlhf_platform.data.audio import SAMPLE_RATE, load_audio
from rlhf_platform.types import Waveform

SHORTEST_REFERENCE = 0.5
"""Seconds of a reference recording: less does not say whose voice it is."""

Embedding = npt.NDArray[np.float32]
"""(256,), of length 1, no number below 0."""


def similarity(first: Waveform, second: Waveform) -> float:
    """Cosine of two voices, 0 to 1. Raises `ValueError` for silence and for less than 0.1 s."""
    return cosine(embedding(first), embedding(second))


def cosine(first: Embedding, second: Embedding) -> float:
    """Of two embeddings, at most 1."""
    return min(float(first @ second), 1.0)


def embedding(samples: Waveform) -> Embedding:
    """The voice of a clip, brought to a common level first. Silences stay in: cutting them by WebRTC's voice activity
    made no voices easier to tell apart, and may leave nothing.

    Raises `ValueError` for silence and for less than 0.1 s, `RecipeError` when resemblyzer is not installed.
    """
    check_sound(samples)
    encoder = _encoder()
    from resemblyzer.audio import audio_norm_target_dBFS, normalize_volume

    loud = normalize_volume(samples, audio_norm_target_dBFS, increase_only=True)
    found: Embedding = encoder.embed_utterance(loud)
    return found


@lru_cache(maxsize=4096)
def reference_embedding(path: str) -> Embedding:
    """The voice of a recording, found once per path.

    Raises `ValueError` for a recording that is silent or shorter than 0.5 s, `DataError` for one that cannot be read.
    """
    samples = load_audio(path)
    seconds = len(samples) / SAMPLE_RATE
    if seconds < SHORTEST_REFERENCE:
        raise ValueError(
            f"reference {path} is too short to tell a voice: {seconds:.2f} s, at least {SHORTEST_REFERENCE:g} s are "
            "needed; name a longer recording of the same voice as metadata.reference_voice"
        )
    check_sound(samples, f"reference {path}")
    return embedding(samples)


@cache
def _encoder() -> Any:
    for module in ("resemblyzer", "librosa", "webrtcvad"):
        require(module)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of scipy, for the name that resemblyzer imports
        from resemblyzer import VoiceEncoder

    return VoiceEncoder("cpu", verbose=False)
