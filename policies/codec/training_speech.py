"""What the codec `world` learns from: features of two voices, varied in pitch, loudness and speed."""

import math
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from policies.codec.features import LOG_F0, SILENCE, Features, analyse
from policies.codec.training_texts import sentence
from rlhf_platform.data.audio import SAMPLE_RATE, load_audio
from rlhf_platform.data.manifest import of_split, read_manifest
from rlhf_platform.data.prompts import build_prompts
from rlhf_platform.data.voices import Voice, speak

RECORDED_SHARE = 0.4
"""Of the crops; the recorded voice has less speech than that."""
SPEEDS = (0.7, 0.8, 0.9, 1.0, 1.0, 1.0, 1.1, 1.2, 1.35)
PITCH = (0.7, 1.4)
"""Factors on F0, even on a logarithmic scale."""
GAIN = (-12.0, 8.0)
"""Decibels, for GAIN_SHARE of the crops."""
GAIN_SHARE = 0.6
EDGES = (0.05, 0.2)
"""Seconds of silence before and after each utterance."""
_FLOOR = math.log(SILENCE)
_SOFT = 3.0  # nats above the floor, below which a gain fades out: silence stays silence


@dataclass(frozen=True)
class Corpus:
    """Features of each voice, end to end."""

    recorded: Features
    synthetic: Features


def build_corpus(minutes: float, seed: int) -> Corpus:
    """The recorded set's clips of the split `train`, and so much synthetic speech. The same seed, the same bits."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        rows = of_split(read_manifest(build_prompts(Path(folder) / "recorded")), "train")
        clean = [load_audio(row.audio) for row in rows if row.metadata["group"] == "clean"]
    recorded = [_features(clip, rng) for clip in clean]
    synthetic: list[Features] = []
    seconds = 0.0
    while seconds < 60 * minutes:
        voice = Voice("hibari", rate=rng.choice(SPEEDS))
        clip = speak(voice, sentence(rng), SAMPLE_RATE, seed=rng.randrange(2**31))
        synthetic.append(_features(clip, rng))
        seconds += len(clip) / SAMPLE_RATE
    return Corpus(np.concatenate(recorded), np.concatenate(synthetic))


def crops(corpus: Corpus, count: int, rows: int, rng: np.random.Generator) -> Features:
    """(count, rows, WIDTH), each varied."""
    drawn = []
    for _ in range(count):
        source = corpus.recorded if rng.random() < RECORDED_SHARE else corpus.synthetic
        start = int(rng.integers(len(source) - rows))
        log_factor = rng.uniform(*np.log(PITCH))
        decibels = rng.uniform(*GAIN) if rng.random() < GAIN_SHARE else 0.0
        drawn.append(varied(source[start : start + rows], log_factor, decibels))
    return np.stack(drawn)


def varied(features: Features, log_factor: float, decibels: float) -> Features:
    """A copy in another pitch and loudness, by what WORLD's parameters mean."""
    found = features.copy()
    found[:, LOG_F0] += log_factor
    level: npt.NDArray[np.float32] = found[:, 0]  # the mean of the log power spectrum
    louder = decibels / 10 * math.log(10) * np.clip((level - _FLOOR) / _SOFT, 0, 1)
    found[:, 0] = np.maximum(level + louder, _FLOOR)
    return found


def _features(clip: npt.NDArray[np.float32], rng: random.Random) -> Features:
    before, after = (round(rng.uniform(*EDGES) * SAMPLE_RATE) for _ in range(2))
    return analyse(np.pad(clip, (before, after)))
