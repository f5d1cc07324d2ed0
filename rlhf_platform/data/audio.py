"""Law 1, the one decode path: trainer, rollout and rewards get samples from `load_audio` and nowhere else."""

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile as sf

from rlhf_platform.errors import DataError
from rlhf_platform.types import Waveform

SAMPLE_RATE = 16_000
"""Hz; what speech encoders are trained on."""

_STREAMED = 0x7FFF_F000
"""A WAV size from here on is what ffmpeg and sox write into a pipe, where they cannot know the length."""


def load_audio(path: str | Path, sample_rate: int = SAMPLE_RATE) -> Waveform:
    """The clip as mono float32 (n,) at `sample_rate` Hz; the same bits each time.

    Channels are averaged; a clip stored at another rate is resampled (torchaudio's windowed sinc). Samples
    are not scaled or clipped. Raises `DataError` for a file that is missing, unreadable, cut short, empty or
    holds NaN or infinite samples.
    """
    samples, stored_rate = decode(path)
    return resample(to_mono(samples), stored_rate, sample_rate)


def decode(path: str | Path) -> tuple[npt.NDArray[np.float32], int]:
    """All samples as stored, float32 (frames, channels), and their rate in Hz. Errors as `load_audio`."""
    path = Path(path)
    with _open(path) as file:
        promised, stored_rate, container = file.frames, file.samplerate, file.format
        try:
            samples: npt.NDArray[np.float32] = file.read(dtype="float32", always_2d=True)
        except sf.SoundFileError as error:
            raise DataError(f"{path}: cut short or damaged ({_reason(error)}); copy or make the file again") from None
    if container in (
        "WAV",
        "WAVEX",
    ):  # libsndfile mends a WAV header that promises too much, and does not say so
        present, stated = _wav_data_bytes(path)
        promised = round(len(samples) * stated / present) if present else promised
    if len(samples) < promised:
        raise DataError(
            f"{path}: cut short: the header promises {promised} frames and {len(samples)} can be read;"
            " copy or make the file again"
        )
    if len(samples) == 0:
        raise DataError(f"{path}: empty: it holds no samples; take it out of the manifest")
    if not np.isfinite(samples).all():
        bad = int(np.count_nonzero(~np.isfinite(samples)))
        raise DataError(f"{path}: {bad} of {samples.size} samples are NaN or infinite; make the file again")
    return samples, stored_rate


def to_mono(samples: npt.NDArray[np.float32]) -> Waveform:
    """(frames, channels) to (frames,): the mean over channels."""
    return samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)


def resample(samples: Waveform, rate: int, target: int) -> Waveform:
    """Mono samples from `rate` to `target` Hz by torchaudio's windowed sinc; unchanged if they are equal."""
    if rate == target:
        return np.ascontiguousarray(samples)
    import torch  # here, so that reading and checking a manifest needs no torch (law 9)
    import torchaudio.functional as AF

    resampled: Waveform = AF.resample(torch.from_numpy(np.ascontiguousarray(samples)), rate, target).numpy()
    return resampled


def _open(path: Path) -> sf.SoundFile:
    if not path.is_file():
        raise DataError(f"{path}: no such audio file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: empty: a file of 0 bytes; take it out of the manifest")
    try:
        return sf.SoundFile(path)
    except sf.SoundFileError as error:
        raise DataError(f"{path}: not readable as audio ({_reason(error)}); WAV, FLAC, OGG and MP3 are read") from None
    except OSError as error:
        raise DataError(f"{path}: not readable ({error.strerror})") from None


def _reason(error: Exception) -> str:
    """libsndfile's words without the path, which it repeats, and on one line."""
    return " ".join(str(getattr(error, "error_string", error)).split()).rstrip(".")


def _wav_data_bytes(path: Path) -> tuple[int, int]:
    """(bytes present, bytes stated) of a WAV file's data chunk; equal if it cannot be told."""
    with path.open("rb") as file:
        size = path.stat().st_size
        order = ">" if file.read(4) == b"RIFX" else "<"
        position = 12  # after RIFF, its size and WAVE
        while position + 8 <= size:
            file.seek(position)
            name, stated = struct.unpack(f"{order}4sI", file.read(8))
            if name == b"data":
                present = size - position - 8
                return present, stated if present < stated < _STREAMED else present
            position += 8 + stated + stated % 2
    return 0, 0
