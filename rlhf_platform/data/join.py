"""Long recordings made of the clips of a split, to try long-form evaluation on when there are none at hand."""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import soundfile as sf

from rlhf_platform.data.audio import SAMPLE_RATE, load_audio
from rlhf_platform.data.build import Stamp, build_once
from rlhf_platform.data.manifest import Row, of_split, read_manifest, write_manifest
from rlhf_platform.data.text import joined
from rlhf_platform.types import Waveform

PAUSES = (0.3, 1.5)
"""Shortest and longest pause between two clips, seconds."""
BUILDER_VERSION = 1
"""Raised with every change of what comes out."""

Recording = tuple[list[Row], list[int]]
"""Clips in order, and the samples of silence before each but the first."""


def join(
    manifest: str | Path,
    out_dir: str | Path,
    split: str = "heldout",
    seconds: float = 60.0,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Join the clips of one split to recordings of at most `seconds`; the manifest in `out_dir`.

    It has a row for each recording in place of the split's rows, and all other rows as they are. Clips of one speaker,
    language, licence and `metadata.group` come together, in an order and with pauses that `seed` draws; each is in one
    recording. A clip longer than `seconds` is a recording by itself. `progress(done, total)` is called after each
    recording. A folder that holds the same already is returned at once. Raises `DataError` for a bad manifest or clip,
    for a split that no row has, and if `out_dir` holds anything else.
    """
    rows = read_manifest(manifest)
    chosen = of_split(rows, split)
    recordings = arranged(chosen, seconds, np.random.default_rng(seed))
    others = [row for row in rows if row.split != split]
    stamp = _stamp(rows, chosen, split, seconds, seed)
    return build_once(
        out_dir, "joined", stamp, partial(_write, others=others, recordings=recordings, progress=progress)
    )


def arranged(rows: Sequence[Row], seconds: float, rng: np.random.Generator) -> list[Recording]:
    """The rows in recordings of at most `seconds`, pauses included; a longer row is one by itself."""
    alike: dict[object, list[Row]] = {}
    for row in rows:
        alike.setdefault((row.speaker, row.language, row.licence, str(row.metadata.get("group"))), []).append(row)
    recordings: list[Recording] = []
    for group in alike.values():
        clips, pauses, length = list[Row](), list[int](), 0.0
        for place in rng.permutation(len(group)):
            row = group[place]
            pause = round(rng.uniform(*PAUSES) * SAMPLE_RATE)
            added = pause / SAMPLE_RATE + row.duration
            if clips and length + added > seconds:
                recordings.append((clips, pauses))
                clips, pauses, length = [], [], 0.0
            pauses += [pause] if clips else []
            length += added if clips else row.duration
            clips.append(row)
        recordings.append((clips, pauses))
    return recordings


def _stamp(rows: Sequence[Row], chosen: Sequence[Row], split: str, seconds: float, seed: int) -> Stamp:
    content = hashlib.sha256(rows[0].manifest.read_bytes())
    for row in chosen:
        content.update(row.audio.read_bytes())
    given = {"manifest": str(rows[0].manifest), "content": content.hexdigest(), "split": split}
    return {"builder": BUILDER_VERSION, **given, "seconds": seconds, "seed": seed, "pauses": list(PAUSES)}


def _write(
    folder: Path, others: Sequence[Row], recordings: Sequence[Recording], progress: Callable[[int, int], None]
) -> None:
    (folder / "clips").mkdir()
    rows = list(others)
    for number, recording in enumerate(recordings, start=1):
        rows.append(_write_recording(folder, number, recording))
        progress(number, len(recordings))
    write_manifest(folder / "manifest.jsonl", rows)


def _write_recording(folder: Path, number: int, recording: Recording) -> Row:
    clips, pauses = recording
    first = clips[0]
    samples = _with_pauses([load_audio(clip.audio) for clip in clips], pauses)
    metadata: dict[str, object] = {"clips": [clip.id for clip in clips]}
    if "group" in first.metadata:
        metadata["group"] = first.metadata["group"]
    text = joined([clip.text for clip in clips], first.language)
    if all(clip.metadata.get("speech") is False for clip in clips):
        metadata["speech"] = False
    row = Row(
        manifest=folder / "manifest.jsonl",
        number=number,
        id=f"{first.split}-long-{number:04d}",
        audio=folder / "clips" / f"{number:04d}.flac",
        text=text,
        language=first.language,
        speaker=first.speaker,
        duration=len(samples) / SAMPLE_RATE,
        split=first.split,
        licence=first.licence,
        sample_rate=SAMPLE_RATE,
        metadata=metadata,
    )
    sf.write(row.audio, samples, SAMPLE_RATE, subtype="PCM_16")
    return row


def _with_pauses(clips: Sequence[Waveform], pauses: Sequence[int]) -> Waveform:
    """Clips (n_i,) in a row, `pauses[i]` zeros between clips i and i + 1."""
    parts = [clips[0]]
    for pause, clip in zip(pauses, clips[1:], strict=True):
        parts += [np.zeros(pause, np.float32), clip]
    return np.concatenate(parts)
