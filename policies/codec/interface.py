"""What every codec offers: speech to codes and back, and the same as flat tokens at 16 kHz."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from policies.codec.layout import CodecError, Codes, flatten, unflatten
from rlhf_platform.data.audio import SAMPLE_RATE, resample
from rlhf_platform.types import Waveform

__all__ = ["Codec", "CodecError", "Codes"]


class Codec(ABC):
    """Makes codes of speech and speech of codes. `decode` gives the same samples each time."""

    name: str
    sample_rate: int
    """Hz of what `encode` takes and `decode` gives."""
    frame_rate: float
    """Frames per second."""
    codebooks: tuple[int, ...]
    """Entries of each codebook of a frame, in order."""

    @abstractmethod
    def encode(self, samples: Waveform) -> Codes:
        """Codes (F, K) of samples (n,). Raises `CodecError` if they are too short or no finite mono samples."""

    @abstractmethod
    def decode(self, codes: Codes) -> Waveform:
        """Samples (n,) in [-1, 1] of codes (F, K). Raises `CodecError` for codes that are not this codec's."""

    def tokens_of(self, samples: Waveform) -> list[int]:
        """Samples (n,) at 16 kHz as flat indices (`policies.codec.layout`). Raises as `encode`."""
        check_samples(samples)
        return flatten(self.encode(resample(samples, SAMPLE_RATE, self.sample_rate)), self.codebooks)

    def speech_of(self, indices: Sequence[int]) -> Waveform:
        """Samples (n,) at 16 kHz in [-1, 1] of flat indices. Raises `CodecError` as `unflatten` does."""
        speech = resample(self.decode(unflatten(indices, self.codebooks)), self.sample_rate, SAMPLE_RATE)
        return np.clip(speech, -1, 1)


def check_samples(samples: Waveform, shortest: int = 1) -> None:
    """Raises `CodecError` unless `samples` are mono (n,), finite and `shortest` at least."""
    if samples.ndim != 1:
        raise CodecError(f"samples have the shape {samples.shape}: a codec takes mono, (n,)")
    if len(samples) < shortest:
        raise CodecError(
            f"{len(samples)} samples are shorter than a frame, which is {shortest}: there is nothing to code"
        )
    if not np.isfinite(samples).all():
        raise CodecError("samples are NaN or infinite: make the recording again")
