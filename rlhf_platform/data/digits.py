"""The demo data set `digits`: one to four spoken digits, such as "seven two nine".

One speaker is recorded, the others are synthetic; docs/data.md says what the set shows and what it does not.
"""

import os
import random
from collections.abc import Callable, Collection
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from rlhf_platform.data.audio import SAMPLE_RATE, load_audio
from rlhf_platform.data.build import Stamp, build_once, key_of
from rlhf_platform.data.manifest import Row, write_manifest
from rlhf_platform.data.voices import Voice, speak
from rlhf_platform.errors import DataError
from rlhf_platform.types import Waveform

BUILDER_VERSION = "5"
"""Raise it with every change that alters a clip; sets built before are then built anew."""

VOCABULARY = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""What is spoken: small enough to be learnt from nothing in minutes on two cores."""

WORD_COUNTS = {1: 3, 2: 4, 3: 4, 4: 2}
"""Words in an utterance, and how often in relation to each other. Held-out texts have two at least: to hold out a
single word would take away the only clips in which a beginner hears it alone."""

RECORDINGS = Path(__file__).parents[2] / "recipes" / "speech" / "digits"
"""One FLAC per word of the vocabulary, by one speaker; ATTRIBUTION.txt is beside them."""


@dataclass(frozen=True)
class Speaker:
    """Who speaks: the recorded speaker (no voice) or a synthetic one, whose rate and pitch vary by clip."""

    name: str
    licence: str
    voice: Voice | None = None


def _espeak(name: str, rate: int, pitch: int) -> Speaker:
    licence = "output of espeak-ng (GPL-3.0-or-later)"
    return Speaker(f"espeak-{name}", licence, Voice("espeak", name, rate, pitch))


GROUPS = {
    "human": "recorded voice",
    "neural": "neural voice",
    "seen": "formant voices",
    "unseen": "unheard voices",
}
"""How reports call the groups of speakers."""

SPEAKERS = {
    "human": (Speaker("allison", "CC-BY-SA-3.0"),),
    "neural": (Speaker("hibari", "output of hibari-tts (Apache-2.0)", Voice("hibari", rate=1.0)),),
    "seen": (
        _espeak("en-us", 150, 50),
        _espeak("en-us+f2", 160, 55),
        _espeak("en-gb-x-rp+m3", 155, 45),
        _espeak("en-us+m7", 170, 40),
        _espeak("en-gb-scotland+f4", 150, 60),
        _espeak("en-us+klatt2", 160, 50),
        _espeak("en-029+m1", 165, 50),
        _espeak("en+f5", 175, 65),
    ),
    "unseen": (_espeak("en-us+m4", 160, 45), _espeak("en+f1", 160, 50)),
}
"""The four groups of speakers; `unseen` speaks in the held-out split only."""

TRAIN_SHARES = {"human": 3, "neural": 3, "seen": 8}
"""How often each group speaks in the splits that are learnt from."""

_RATES = {"espeak": (0.9, 1.2), "hibari": (0.9, 1.25)}  # drawn anew for each clip, times the voice's own rate
_PITCH_SPREAD = 10  # either way
_LONGEST_GAP = 0.06  # seconds between two recorded words
_SILENCE, _MARGIN = 0.01, 0.025  # amplitude below which an end is cut off, and the seconds of it that stay
_TRIES = 1000


@dataclass(frozen=True)
class Plan:
    """What to build."""

    train: int = 3000
    """Clips of the split `train`, for the warm start."""
    rl: int = 1600
    """Clips of the split `rl`, by the same speakers."""
    human: int = 80
    """Clips of the held-out split by this group of speakers; so are the next three."""
    neural: int = 60
    seen: int = 80
    unseen: int = 80
    seed: int = 0
    longest: float = 4.0
    """Seconds; every clip is shorter."""


def build_digits(
    out_dir: str | Path,
    plan: Plan = Plan(),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Build the set in `out_dir` (16 kHz FLAC clips, manifest.jsonl) and return the manifest; about a minute.

    The same plan gives the same bits. A folder that holds the same build already is returned at once; the
    folder appears only when it is whole. `progress(done, total)` is called after each clip. Raises
    `DataError` if `out_dir` holds anything else, or a voice is not installed.
    """
    return build_once(out_dir, "digits", _stamp(plan), partial(_write_clips, plan=plan, progress=progress))


def build_key(plan: Plan = Plan()) -> str:
    """Names a build: eight hex digits that change with the plan and the builder's version."""
    return key_of(_stamp(plan))


def _stamp(plan: Plan) -> Stamp:
    return {"builder": BUILDER_VERSION, "plan": asdict(plan)}


def _write_clips(folder: Path, plan: Plan, progress: Callable[[int, int], None]) -> None:
    """Held-out clips first, each with a text of its own, since training clips avoid these texts."""
    held_out = [group for group in SPEAKERS for _ in range(getattr(plan, group))]
    rows: list[Row] = []
    for number, group in enumerate(held_out):
        rows.append(_write_clip(folder, plan, "heldout", number, group, frozenset(row.text for row in rows)))
        progress(len(rows), len(held_out) + plan.train + plan.rl)
    write = partial(_write_learnt_clip, folder, plan, frozenset(row.text for row in rows))
    # Processes, not threads: espeak-ng keeps its state in the process.
    learnt = [("train", i) for i in range(plan.train)] + [("rl", i) for i in range(plan.rl)]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), get_context("spawn"), initializer=_one_thread) as pool:
        for row in pool.map(write, learnt, chunksize=32):
            rows.append(row)
            progress(len(rows), len(held_out) + len(learnt))
    write_manifest(folder / "manifest.jsonl", [replace(row, number=i) for i, row in enumerate(rows, start=1)])


def _write_learnt_clip(folder: Path, plan: Plan, taken: Collection[str], place: tuple[str, int]) -> Row:
    split, number = place
    rng = random.Random(f"{plan.seed}/{split}/{number}/group")
    group = rng.choices(list(TRAIN_SHARES), list(TRAIN_SHARES.values()))[0]
    return _write_clip(folder, plan, split, number, group, taken)


def _write_clip(folder: Path, plan: Plan, split: str, number: int, group: str, taken: Collection[str]) -> Row:
    rng = random.Random(f"{plan.seed}/{split}/{number}")
    speaker = rng.choice(SPEAKERS[group])
    text, samples, metadata = _clip(rng, speaker, taken, plan.longest, shortest=1 if split == "train" else 2)
    name = f"{split}/{number:05d}"
    row = Row(
        manifest=folder / "manifest.jsonl",
        number=number,
        id=name,
        audio=folder / f"{name}.flac",
        text=text,
        language="en",
        speaker=speaker.name,
        duration=len(samples) / SAMPLE_RATE,
        split=split,
        licence=speaker.licence,
        sample_rate=SAMPLE_RATE,
        metadata={"group": GROUPS[group], **metadata},
    )
    row.audio.parent.mkdir(exist_ok=True)
    sf.write(row.audio, samples, SAMPLE_RATE, subtype="PCM_16")
    return row


def _clip(
    rng: random.Random, speaker: Speaker, taken: Collection[str], longest: float, shortest: int
) -> tuple[str, Waveform, dict[str, Any]]:
    """A text of `shortest` words at least that is not `taken`, samples for less than `longest` seconds, metadata."""
    counts = {words: share for words, share in WORD_COUNTS.items() if words >= shortest}
    for _ in range(_TRIES):
        count = rng.choices(list(counts), list(counts.values()))[0]
        text = " ".join(rng.choices(VOCABULARY, k=count))
        if text in taken:
            continue
        samples, metadata = _utterance(rng, speaker, text)
        if len(samples) < longest * SAMPLE_RATE:
            return text, samples, metadata
    raise DataError(f"digits: no clip by {speaker.name} is shorter than {longest:g} s; allow longer ones")


def _utterance(rng: random.Random, speaker: Speaker, text: str) -> tuple[Waveform, dict[str, Any]]:
    """The samples, and how they came about."""
    if speaker.voice is None:
        gaps = [round(rng.uniform(0, _LONGEST_GAP) * SAMPLE_RATE) for _ in text.split()]
        pieces = [np.pad(_recording(word), (gap, 0)) for word, gap in zip(text.split(), gaps, strict=True)]
        return np.concatenate(pieces), {"source": "recorded"}
    low, high = _RATES[speaker.voice.engine]
    voice = replace(speaker.voice, rate=round(speaker.voice.rate * rng.uniform(low, high), 2))
    metadata: dict[str, Any] = {"source": "synthetic", "engine": voice.engine, "rate": voice.rate}
    if voice.engine == "espeak":
        pitch = voice.pitch + rng.randint(-_PITCH_SPREAD, _PITCH_SPREAD)
        voice = replace(voice, rate=round(voice.rate), pitch=pitch)
        metadata |= {"rate": voice.rate, "pitch": pitch}
    return _trim(speak(voice, text, SAMPLE_RATE, rng.randrange(2**31))), metadata


def _trim(samples: Waveform) -> Waveform:
    """Without the silence at both ends, except for a margin."""
    loud = np.flatnonzero(np.abs(samples) > _SILENCE)
    margin = round(_MARGIN * SAMPLE_RATE)
    return samples[max(0, int(loud[0]) - margin) : int(loud[-1]) + margin]


@cache
def _recording(word: str) -> Waveform:
    return _trim(load_audio(RECORDINGS / f"{word}.flac"))


def _one_thread() -> None:
    """Torch on one thread: several take ten times longer to resample so little on a busy machine."""
    import torch

    torch.set_num_threads(1)
