"""Held-out clips that are longer than the model's window: cut into pieces where nobody speaks, and put together again.

A clip is cut once: the cache knows it by its content, the window and the code that cuts.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import soundfile as sf

from rlhf_platform.data import voice_activity
from rlhf_platform.data.audio import SAMPLE_RATE, load_audio
from rlhf_platform.data.manifest import DURATION_TOLERANCE
from rlhf_platform.data.text import joined
from rlhf_platform.types import Prompt

T = TypeVar("T")


def cut(
    prompts: Sequence[Prompt],
    longest: float,
    cache: str | Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[list[Prompt]]:
    """Of each prompt what is decoded in its place: itself, or the pieces of a clip longer than `longest` seconds.

    A piece is a WAV file below the folder `cache`, mono at 16 kHz, bit for bit as its clip is decoded and at most
    `longest` seconds long. Its id is `ID#1`, `ID#2` and so on; its reference is empty, as nobody knows which words are
    in it. A clip in which no speech is found has no pieces. `progress(done, total)` is called after each prompt. Raises
    `DataError` for a clip that cannot be read.
    """
    parts: list[list[Prompt]] = []
    for done, prompt in enumerate(prompts, start=1):
        parts.append(_pieces(prompt, longest, Path(cache).resolve()) if _is_long(prompt, longest) else [prompt])
        progress(done, len(prompts))
    return parts


def stitch(prompts: Sequence[Prompt], pieces: Sequence[Sequence[Prompt]], texts: Sequence[str]) -> list[str]:
    """One text for each prompt. `pieces`: as `cut` gave them; `texts`: one for each piece, in order.

    A space stands between the texts of two pieces, or nothing in languages scored by character. A prompt without pieces
    has an empty text. Raises `ValueError` when the counts disagree.
    """
    return [joined(own, prompt.language) for prompt, own in zip(prompts, by_prompt(pieces, texts), strict=True)]


def by_prompt(pieces: Sequence[Sequence[Prompt]], found: Sequence[T]) -> list[list[T]]:
    """What was `found` for each piece, in order, in a list for each prompt. Raises `ValueError` as `stitch`."""
    total = sum(map(len, pieces))
    if total != len(found):
        raise ValueError(f"{total} pieces and {len(found)} answers: each piece has one")
    rest = iter(found)
    return [[next(rest) for _ in own] for own in pieces]


def _is_long(prompt: Prompt, longest: float) -> bool:
    """By the audio where the row's duration, which may be a little off, leaves it open."""
    if abs(prompt.duration - longest) > DURATION_TOLERANCE:
        return prompt.duration > longest
    return len(load_audio(prompt.audio)) / SAMPLE_RATE > longest


def _pieces(prompt: Prompt, longest: float, cache: Path) -> list[Prompt]:
    folder = cache / _digest(prompt, longest)
    if not folder.is_dir():
        _write(prompt, longest, folder)
    return [
        replace(prompt, id=f"{prompt.id}#{number}", audio=str(path), reference="", duration=_seconds(path))
        for number, path in enumerate(sorted(folder.glob("*.wav")), start=1)
    ]


def _digest(prompt: Prompt, longest: float) -> str:
    """All that decides what the pieces are."""
    settings = f"{longest} {version('silero-vad')}".encode()
    parts = settings, Path(voice_activity.__file__).read_bytes(), Path(prompt.audio).read_bytes()
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]


def _write(prompt: Prompt, longest: float, folder: Path) -> None:
    """The pieces as files in `folder`, which appears only when it is whole."""
    samples = load_audio(prompt.audio)
    spans = voice_activity.segments(samples, SAMPLE_RATE, longest)
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=folder.parent))
    try:
        draft.chmod(0o755)
        for number, (start, end) in enumerate(spans, start=1):
            sf.write(draft / f"{number:05d}.wav", samples[start:end], SAMPLE_RATE, subtype="FLOAT")
        try:
            os.rename(draft, folder)
        except OSError:
            if not folder.is_dir():  # else another process cut the same clip meanwhile
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _seconds(path: Path) -> float:
    found = sf.info(path)
    return found.frames / found.samplerate
