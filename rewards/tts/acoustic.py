"""How far speech is from a recording of the same text in the same voice and delivery: spectrum, melody, pace, level."""

from dataclasses import dataclass
from functools import lru_cache
from math import exp, log2
from typing import Any

import numpy as np
import numpy.typing as npt

from rewards.scorers.packages import require
from rewards.tts.sound import audible, recording, reference_of
from rewards.types import RewardInput
from rlhf_platform.data.audio import SAMPLE_RATE
from rlhf_platform.data.prosody import f0_semitones, frame_levels, speech_frames
from rlhf_platform.types import Waveform

HOP = 160
"""Samples from frame to frame: 10 ms."""
BANDS, COEFFICIENTS = 80, 13
"""Mel bands, and cepstral coefficients that are compared: 1 to 13, not the level (MCD-13 of 1803.09047)."""
FLOOR = 50.0
"""dB below the loudest band of the clip; what is softer is as soft as that, so that silences are alike."""
OCTAVE = 12.0
"""Semitones; a pitch is not further off than that, and is that far off where no frames are voiced in both."""

SCALES = {"mcd": 3.0, "f0_semitones": 6.0, "stretch": 0.7, "energy_db": 12.0}
"""The distance in each measure that divides the reward by e."""

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Frames:
    """Of one clip, each 10 ms."""

    cepstra: Floats
    """(13, F), dB per square root of `BANDS`: the length of a difference is the RMS dB between two smooth spectra."""
    semitones: Floats
    """(F,), F0 above 1 Hz, NaN where unvoiced or silent."""
    energy: float
    """dBFS of the whole clip, the RMS of its speech."""


def teacher_distance(sample: RewardInput) -> dict[str, float]:
    """Distances from the prompt's recording, and `reward` in (0, 1], 1 for the recording itself.

    `mcd`: mel-cepstral distortion in dB (Kubichek, 1993), the mean over the path of dynamic time warping.
    `f0_semitones`: mean distance of pitch where both are voiced on that path, 0 to 12. `stretch`: how many times
    twice as long or as short, |log2(duration / reference's)|. `energy_db`: between the levels of speech.
    `reward`: exp(-sum(distance / scale)), ours. Raises `ValueError` for silence, for less than 0.1 s, without sound
    and for a row without a recording, `DataError` for one that cannot be read.
    """
    speech, path = audible(sample), reference_of(sample)
    own, other = frames(speech), _frames_of(path)
    import librosa  # after `frames`, which says so if it is missing

    _, warp = librosa.sequence.dtw(own.cepstra, other.cepstra)
    here, there = warp.T
    apart = np.linalg.norm(own.cepstra[:, here] - other.cepstra[:, there], axis=0)
    distances = {
        "mcd": float(apart.mean()),
        "f0_semitones": _melody(own.semitones[here] - other.semitones[there]),
        "stretch": abs(log2(len(speech) / len(recording(path)))),
        "energy_db": abs(own.energy - other.energy),
    }
    return {**distances, "reward": exp(-sum(distances[name] / scale for name, scale in SCALES.items()))}


def frames(samples: Waveform) -> Frames:
    """The frames of a clip that is not silent. Raises `RecipeError` when librosa or pyworld is not installed."""
    require("librosa")
    require("pyworld")
    import librosa

    bands = librosa.feature.melspectrogram(y=samples, sr=SAMPLE_RATE, n_fft=512, hop_length=HOP, n_mels=BANDS)
    decibels = librosa.power_to_db(bands, top_db=FLOOR)
    cepstra = librosa.feature.mfcc(S=decibels, n_mfcc=COEFFICIENTS + 1)[1:] / np.sqrt(BANDS)
    levels = frame_levels(samples)
    spoken = speech_frames(levels)
    every_other = slice(0, 2 * cepstra.shape[1], 2)  # prosody's frames are 5 ms
    energy = 10 * np.log10(np.mean(10 ** (levels[spoken] / 10)))
    return Frames(cepstra, f0_semitones(samples, spoken)[every_other], float(energy))


@lru_cache(maxsize=512)
def _frames_of(path: str) -> Frames:
    return frames(recording(path))


def _melody(apart: Floats) -> float:
    """Semitones, the mean where both are voiced."""
    voiced = apart[~np.isnan(apart)]
    return float(np.minimum(np.abs(voiced), OCTAVE).mean()) if len(voiced) else OCTAVE
