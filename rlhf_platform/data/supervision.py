"""Context-rich supervision for speech synthesis: rows whose metadata say how the clip was spoken, as measured in it.

docs/speech_data.md says what is measured and what an instruction is made of.
"""

import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rlhf_platform.data import instructions
from rlhf_platform.data.audio import load_audio
from rlhf_platform.data.emphasis import Line, WordValues, emphasised, line_of, word_values
from rlhf_platform.data.manifest import Row, raise_if_any, read_manifest, write_manifest
from rlhf_platform.data.phonemes import Alignment, align
from rlhf_platform.data.prosody import Norms, Prosody, contours, discretise, norms_of, summarise
from rlhf_platform.data.text import language_code
from rlhf_platform.errors import DataError

HIGHEST_ERROR = 0.3
"""Phoneme error above which a clip does not say its text."""
LONGEST_TEXT = 400
"""Characters; a longer text has no one delivery."""
NORM_SPLIT = "train"
"""A speaker's norms are of this split's rows, or of all where the speaker has none in it."""


@dataclass(frozen=True)
class Heard:
    """What was measured in one clip."""

    prosody: Prosody
    alignment: Alignment
    words: WordValues


@dataclass(frozen=True)
class Described:
    """Rows with supervision, and what became of the others."""

    rows: list[Row]
    norms: dict[str, Norms]
    """By speaker."""
    dropped: list[tuple[Row, str]]
    """Rows that the cross-check refused, and why."""

    def report(self) -> str:
        """How many rows were dropped and why, on one line."""
        total = len(self.rows) + len(self.dropped)
        reasons = Counter(reason for _, reason in self.dropped)
        why = "; ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        return f"{len(self.dropped)} of {total} rows dropped" + (f": {why}" if why else "")


def describe_manifest(
    path: str | Path, out: str | Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> Described:
    """Write the rows of manifest `path` with supervision as manifest `out`; the clips stay where they are.

    Raises one `DataError` that lists the rows whose text or sound cannot be described, as `read_manifest` does, or
    says that the cross-check left none. `progress(done, total)` is called after each clip.
    """
    rows = read_manifest(path)
    raise_if_any(rows[0].manifest, [(row.number, why) for row in rows if (why := _fault(row))], "cannot be described")
    heard: list[Heard | str] = []
    with processes() as pool:
        for found in pool.map(listen, rows, chunksize=16):
            heard.append(found)
            progress(len(heard), len(rows))
    bad = [(row.number, found) for row, found in zip(rows, heard, strict=True) if isinstance(found, str)]
    raise_if_any(rows[0].manifest, bad, "cannot be described")
    described = describe(rows, [found for found in heard if isinstance(found, Heard)])
    if not described.rows:
        raise DataError(f"{path}: {described.report()}; none is left")
    write_manifest(out, described.rows)
    return described


def listen(row: Row) -> Heard | str:
    """What is heard in a row's clip, or why nothing can be measured."""
    try:
        samples = load_audio(row.audio)
        frames, alignment = contours(samples), align(samples, row.text)
        prosody = summarise(samples, frames, row.text, row.language)
        return Heard(prosody, alignment, word_values(frames, alignment.starts))
    except ValueError as error:
        return str(error)


def describe(rows: Sequence[Row], heard: Sequence[Heard], seed: int = 0) -> Described:
    """Fill the rows' metadata with what was heard in them; rows that fail the cross-check are left out.

    `seed` is that of the wordings. The same arguments give the same rows.
    """
    verdicts = [_verdict(each) for each in heard]
    dropped = [(row, verdict) for row, verdict in zip(rows, verdicts, strict=True) if verdict]
    kept = [(row, each) for row, each, verdict in zip(rows, heard, verdicts, strict=True) if not verdict]
    norms, lines = {}, {}
    for speaker in sorted({row.speaker for row, _ in kept}):
        own = [(row.split, each) for row, each in kept if row.speaker == speaker]
        chosen = [each for split, each in own if split == NORM_SPLIT] or [each for _, each in own]
        norms[speaker] = norms_of([each.prosody for each in chosen])
        lines[speaker] = line_of([each.words for each in chosen])
    described = [
        replace(row, number=number, metadata={**row.metadata, **_supervision(row, each, norms, lines, seed)})
        for number, (row, each) in enumerate(kept, start=1)
    ]
    return Described(described, norms, dropped)


def processes() -> ProcessPoolExecutor:
    """A process for each core that this one may use, each on one thread."""
    return ProcessPoolExecutor(len(os.sched_getaffinity(0)), get_context("spawn"), initializer=_one_thread)


def _supervision(row: Row, heard: Heard, norms: dict[str, Norms], lines: dict[str, Line], seed: int) -> dict[str, Any]:
    own = norms[row.speaker]
    asked = discretise(heard.prosody, own)
    emphasis = emphasised(heard.words, lines[row.speaker])
    return {
        "group": instructions.group(asked),
        "instruction": instructions.instruct(asked, random.Random(f"{seed}/{row.id}/instruction")),
        "inline": instructions.tag(row.text, heard.alignment.starts, heard.prosody.pauses, emphasis),
        "asked": asked,
        "measured": _rounded({**asdict(heard.prosody), "emphasis": emphasis, "phoneme_error": heard.alignment.error}),
        "norms": _rounded(asdict(own)),
    }


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}


def _verdict(heard: Heard) -> str:
    """Why a clip is dropped; empty when it is not."""
    if heard.alignment.error > HIGHEST_ERROR:
        return f"with a phoneme error above {HIGHEST_ERROR:g}"
    return "" if heard.prosody.f0 else "without voice"


def _fault(row: Row) -> str:
    """Why a row cannot be described, as far as the text tells."""
    if row.metadata.get("speech") is False:
        return "has no speech to describe; leave it out"
    if language_code(row.language) != "en":
        return f"language {row.language!r}: only English ('en') can be checked against its text"
    if len(row.text) > LONGEST_TEXT:
        return f"text has {len(row.text)} characters; at most {LONGEST_TEXT}: cut the clip into utterances"
    return ""


def _one_thread() -> None:
    """Before torch is imported, which only a process that resamples does."""
    os.environ["OMP_NUM_THREADS"] = "1"
