"""The demo data set `recorded`: spoken English prompts of a telephone system, clean and over a telephone line.

One speaker is recorded; docs/data.md says what the set shows and what it does not.
"""

import hashlib
import random
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import numpy.typing as npt
import soundfile as sf
import torch

from rlhf_platform.data.audio import SAMPLE_RATE
from rlhf_platform.data.build import Stamp, build_once, key_of
from rlhf_platform.data.manifest import Row, write_manifest
from rlhf_platform.data.telephone import telephone
from rlhf_platform.data.text import normalize
from rlhf_platform.errors import DataError
from rlhf_platform.types import Waveform

BUILDER_VERSION = "1"
"""Raise it with every change that alters a clip; sets built before are then built anew."""

ARCHIVE = Path(__file__).parents[2] / "recipes" / "speech" / "prompts" / "prompts.zip"
"""One G.722 file per prompt and their transcripts; `extract_asterisk` makes it, ATTRIBUTION.txt is beside it."""

ARCHIVE_SHA256 = "204e4fd4bb56c868966f7754d8bb6f3c6cb26b2a2202600f7b4ffa4a719a07f5"
"""Of the archive that this builder knows; any other is refused."""

TRANSCRIPTS = "transcripts.txt"
"""In the archive: a line `ID: TEXT` for each prompt."""

SPLITS = {"train": 0.55, "dev": 0.10, "heldout": 0.35}
"""The splits, and which share of all texts is in each, as far as chance will have it."""

CONDITIONS = ("clean", "telephone")
"""The groups of clips: as recorded, and as heard over a telephone line. Every prompt is in both."""


@dataclass(frozen=True)
class Plan:
    """What to build. The splits depend on nothing but the texts."""

    prompts: int | None = None
    """Only so many, the first by name; all if None."""
    lowest_snr: float = 5.0
    """Decibels; each telephone clip draws its own between this and the next, evenly."""
    highest_snr: float = 15.0
    seed: int = 0
    """Of the noise and its loudness."""


@dataclass(frozen=True)
class Recording:
    """One prompt of the archive."""

    id: str
    """The name that it has in the telephone system, such as `vm-goodbye`."""
    text: str
    g722: bytes


def build_prompts(
    out_dir: str | Path,
    plan: Plan = Plan(),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Build the set in `out_dir` (16 kHz FLAC clips, manifest.jsonl) and return the manifest; some ten seconds.

    The same plan gives the same bits. A folder that holds the same build already is returned at once; the
    folder appears only when it is whole. `progress(done, total)` is called after each clip. Raises
    `DataError` if `out_dir` holds anything else, or the archive is not the known one.
    """
    return build_once(out_dir, "recorded", _stamp(plan), partial(_write_clips, plan=plan, progress=progress))


def build_key(plan: Plan = Plan()) -> str:
    """Names a build: eight hex digits that change with the plan, the archive and the builder's version."""
    return key_of(_stamp(plan))


def split_of(text: str) -> str:
    """The split of an English text, by a hash of it as it is scored: another prompt moves none."""
    digest = hashlib.sha256(normalize(text, "en").encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    for split, share in SPLITS.items():
        if place < share:
            return split
        place -= share
    return split  # the shares' sum may round to less than 1


def read_archive(path: Path | None = None) -> list[Recording]:
    """All recordings of the archive, by name. Raises `DataError` if it is missing or not the known one."""
    path = path or ARCHIVE
    if not path.is_file():
        raise DataError(f"{path}: no such archive; it comes with the platform, install or check it out again")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != ARCHIVE_SHA256:
        raise DataError(
            f"{path}: sha256 is {found}, not {ARCHIVE_SHA256}; check out the archive that belongs to this version"
        )
    with zipfile.ZipFile(BytesIO(content)) as archive:
        lines = archive.read(TRANSCRIPTS).decode().splitlines()
        texts = dict(line.split(": ", maxsplit=1) for line in lines)
        return [Recording(name, text, archive.read(f"{name}.g722")) for name, text in sorted(texts.items())]


def decode_g722(source: BinaryIO) -> npt.NDArray[np.int16]:
    """All samples (n,) at 16 kHz."""
    with av.open(source, "r", format="g722") as container:
        frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    samples: npt.NDArray[np.int16] = np.concatenate(frames)
    return samples


def _stamp(plan: Plan) -> Stamp:
    return {"builder": BUILDER_VERSION, "archive": ARCHIVE_SHA256, "plan": asdict(plan)}


def _write_clips(folder: Path, plan: Plan, progress: Callable[[int, int], None]) -> None:
    """Rows by split, then condition, so that every n-th row of a split, as evaluation may take them, is of both."""
    recordings = read_archive()[: plan.prompts]
    rows: list[Row] = []
    with _one_thread():
        for recording in recordings:
            samples = (decode_g722(BytesIO(recording.g722)) / 32_768).astype(np.float32)
            for condition in CONDITIONS:
                rows.append(_write_clip(folder, plan, recording, condition, samples))
                progress(len(rows), len(recordings) * len(CONDITIONS))
    rows.sort(key=lambda row: (list(SPLITS).index(row.split), row.metadata["group"]))
    write_manifest(folder / "manifest.jsonl", [replace(row, number=i) for i, row in enumerate(rows, start=1)])


def _write_clip(folder: Path, plan: Plan, recording: Recording, condition: str, samples: Waveform) -> Row:
    metadata: dict[str, object] = {"group": condition}
    if condition == "telephone":
        rng = random.Random(f"{plan.seed}/{recording.id}")
        snr_db = round(rng.uniform(plan.lowest_snr, plan.highest_snr), 2)
        samples = telephone(samples, snr_db, seed=rng.getrandbits(63))
        metadata["snr_db"] = snr_db
    split = split_of(recording.text)
    name = f"{split}/{recording.id}/{condition}"
    row = Row(
        manifest=folder / "manifest.jsonl",
        number=1,
        id=name,
        audio=folder / f"{name}.flac",
        text=recording.text,
        language="en",
        speaker="allison",
        duration=len(samples) / SAMPLE_RATE,
        split=split,
        licence="CC-BY-SA-3.0",
        sample_rate=SAMPLE_RATE,
        metadata=metadata,
    )
    row.audio.parent.mkdir(parents=True, exist_ok=True)
    sf.write(row.audio, samples, SAMPLE_RATE, subtype="PCM_16")
    return row


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch on one thread meanwhile: on several, sums are taken in an order that depends on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
