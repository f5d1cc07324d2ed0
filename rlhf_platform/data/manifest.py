"""The manifest: one JSON object per line, one line per clip (docs/data.md).

Importing this file imports no torch. All bad rows are found before an error is raised; a row is named by its
line number.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from os.path import relpath
from pathlib import Path
from typing import Any

from rlhf_platform.data.audio import decode
from rlhf_platform.data.dialogue import is_dialogue, with_clips
from rlhf_platform.data.dialogue_keys import clips_of, dialogue_problem, user_sides
from rlhf_platform.data.text import normalize
from rlhf_platform.errors import DataError
from rlhf_platform.types import Prompt

REQUIRED: Mapping[str, str] = {
    "audio": "text",
    "text": "text",
    "language": "text",
    "speaker": "text",
    "duration": "number",
    "split": "text",
    "licence": "text",
}
"""Keys that every row has, and what their values are."""

OPTIONAL: Mapping[str, str] = {"id": "text", "sample_rate": "whole number", "metadata": "object"}
"""Keys that a row may have."""

DURATION_TOLERANCE = 0.020
"""Seconds by which a row's duration may differ from its audio."""

_SHOWN = 10
"""Bad rows shown; the rest are counted."""


@dataclass(frozen=True)
class Row:
    """One clip of a manifest."""

    manifest: Path
    number: int
    """Line of the manifest, from 1."""
    id: str
    """Unique in the manifest; the audio path as written, without its suffix, if the row gives none."""
    audio: Path
    """Absolute."""
    text: str
    language: str
    """ISO 639-1 code."""
    speaker: str
    duration: float
    """Seconds."""
    split: str
    licence: str
    sample_rate: int | None = None
    """Hz of the audio file, if the row gives it."""
    metadata: Mapping[str, Any] = field(default_factory=dict)


def read_manifest(path: str | Path) -> list[Row]:
    """All rows, after the checks that need no decoding: JSON, keys, types, empty values, ids, missing files.

    Raises one `DataError` that counts the bad rows and names the first ten, or says that there are no rows.
    """
    path = Path(path).absolute()
    if not path.is_file():
        raise DataError(f"{path}: no such manifest; name a JSONL file, or build one with `rlhf data build`")
    rows: list[Row] = []
    problems: list[tuple[int, str]] = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        row = _parse(path, number, line)
        if isinstance(row, str):
            problems.append((number, row))
        else:
            rows.append(row)
    problems += _repeated_ids(rows)
    raise_if_any(path, problems, "cannot be used")
    if not rows:
        raise DataError(f"{path}: empty: a manifest has one JSON object per line, one line per clip")
    return rows


def check_splits(rows: Sequence[Row], train_split: str = "train", eval_split: str = "heldout") -> None:
    """Both splits have rows, and no text of `eval_split` is in `train_split` (case and punctuation aside).

    The empty texts of clips without speech give nothing away. Of a dialogue row it is not the reply that must differ
    but the dialogue: persona and user turns in order, with turns to come. Raises `DataError`.
    """
    train, held_out = of_split(rows, train_split), of_split(rows, eval_split)
    if train_split == eval_split:
        return  # measuring on the training data is a choice that the recipe then spells out
    first_row = {text: row.number for row in reversed(train) for text in _given_away(row)}
    leaks = [
        (row.number, f"{_named(row)} is in split {train_split!r} too, at row {first_row[found[0]]}; keep it in one")
        for row in held_out
        if (found := [text for text in _given_away(row) if text in first_row])
    ]
    raise_if_any(rows[0].manifest, leaks, f"of split {eval_split!r} with training text")


def _given_away(row: Row) -> list[tuple[str, ...]]:
    """What a split that is learnt from gives away of a held-out row with the same."""
    if is_dialogue(row.metadata):
        return [tuple(normalize(text, row.language) for text in side) for side in user_sides(row.metadata)]
    text = normalize(row.text, row.language)
    return [(text,)] if text else []


def _named(row: Row) -> str:
    return f"dialogue with {row.metadata['said']!r}" if is_dialogue(row.metadata) else f"text {row.text!r}"


def of_split(rows: Sequence[Row], split: str) -> list[Row]:
    """The rows of one split, in order. Raises `DataError` if there are none."""
    chosen = [row for row in rows if row.split == split]
    if not chosen:
        present = ", ".join(sorted({row.split for row in rows})) or "no rows at all"
        where = rows[0].manifest if rows else "manifest"
        raise DataError(f"{where}: no row has split {split!r}; it has {present}")
    return chosen


def check_durations(rows: Sequence[Row], window: float) -> None:
    """Raises one `DataError` as `read_manifest` when rows state more than `window` seconds; decodes nothing."""
    problems = [(row.number, _too_long(row.audio, row.duration, window)) for row in rows if row.duration > window]
    if problems:
        raise_if_any(rows[0].manifest, problems, "have clips that are too long")


def check_audio(
    rows: Sequence[Row],
    window: float,
    progress: Callable[[int, int], None] = lambda done, total: None,
    long_split: str | None = None,
) -> None:
    """Decode every clip: readable, whole, finite, of the row's length and rate, at most `window` seconds.

    `long_split`: a split whose clips may be longer. `progress(done, total)` is called after each row. Raises one
    `DataError` as `read_manifest`.
    """
    problems: list[tuple[int, str]] = []
    for done, row in enumerate(rows, start=1):
        if problem := _audio_problem(row, math.inf if row.split == long_split else window):
            problems.append((row.number, problem))
        progress(done, len(rows))
    if rows:
        raise_if_any(rows[0].manifest, problems, "have audio that cannot be used")


def write_manifest(path: str | Path, rows: Iterable[Row]) -> None:
    """Write the rows as JSONL, with audio paths relative to the manifest; `read_manifest` gives them back."""
    path = Path(path).absolute()
    path.write_text("".join(json.dumps(_as_json(row, path), ensure_ascii=False) + "\n" for row in rows), "utf-8")


def to_prompt(row: Row) -> Prompt:
    """The row as what rollout and rewards see of it; paths in it are absolute."""
    metadata = row.metadata
    if is_dialogue(metadata):
        metadata = with_clips(metadata, lambda clip: str(row.manifest.parent / clip))
    return Prompt(row.id, str(row.audio), row.text, row.language, row.speaker, row.duration, metadata)


def _parse(path: Path, number: int, line: bytes) -> Row | str:
    """The row, or what is wrong with it."""
    try:
        values = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return "not UTF-8; save the manifest as UTF-8"
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at column {error.colno}"
    if not isinstance(values, dict):
        return f"a row is a JSON object, not {kind_of(values)}"
    if problem := _problem(values):
        return problem
    audio = Path(path.parent, values["audio"])
    if not audio.is_file():
        return f"audio {values['audio']!r} does not exist; paths are relative to the manifest's folder"
    if is_dialogue(metadata := values.get("metadata", {})) and (problem := dialogue_problem(metadata, path.parent)):
        return problem
    return Row(
        manifest=path,
        number=number,
        id=values.get("id", str(Path(values["audio"]).with_suffix(""))),
        audio=audio,
        **{key: values[key] for key in ("text", "language", "speaker", "split", "licence")},
        duration=float(values["duration"]),
        sample_rate=values.get("sample_rate"),
        metadata=metadata,
    )


def _problem(values: Mapping[str, Any]) -> str | None:
    """The first thing wrong with a row's keys and values."""
    known = {**REQUIRED, **OPTIONAL}
    for key in values:
        if key not in known:
            close = get_close_matches(key, known, n=1)
            return f"unknown key {key!r}" + (
                f"; did you mean {close[0]!r}?" if close else f"; put what is yours under metadata ({', '.join(known)})"
            )
    for key in REQUIRED:
        if key not in values:
            return f"no {key!r}; every row has {', '.join(REQUIRED)}"
    for key, value in values.items():
        if kind_of(value) != known[key] and (kind_of(value), known[key]) != ("whole number", "number"):
            return f"{key} is {known[key]}, not {kind_of(value)} {value!r}"
        if isinstance(value, str) and not value.strip() and key != "text":
            return f"{key} is empty"
    if not (math.isfinite(values["duration"]) and values["duration"] > 0):
        return f"duration {values['duration']:g} s; it must be above 0"
    if values.get("sample_rate", 1) < 1:
        return f"sample_rate {values['sample_rate']} Hz; it must be above 0"
    return text_problem(values["text"], values["language"], values.get("metadata", {}))


def text_problem(text: str, language: str, metadata: Mapping[str, Any]) -> str | None:
    """A text has something to score, unless the row says that there is no speech."""
    if metadata.get("speech") is False or normalize(text, language):
        return None
    if text.strip():
        return f"text {text!r} has no letter or digit, so nothing could be scored"
    return 'text is empty; if the clip has no speech, say so with "metadata": {"speech": false}'


def kind_of(value: object) -> str:
    """A JSON value's type in words."""
    names = {
        bool: "true/false",
        int: "whole number",
        float: "number",
        str: "text",
        dict: "object",
        list: "list",
    }
    return names.get(type(value), "null")


def _repeated_ids(rows: Sequence[Row]) -> list[tuple[int, str]]:
    first: dict[str, int] = {}
    return [
        (row.number, f"id {row.id!r} is already that of row {first[row.id]}; give each row its own `id`")
        for row in rows
        if first.setdefault(row.id, row.number) != row.number
    ]


def _audio_problem(row: Row, window: float) -> str | None:
    try:
        samples, sample_rate = decode(row.audio)
    except DataError as error:
        return f"audio {error}"
    duration = len(samples) / sample_rate
    if row.sample_rate not in (None, sample_rate):
        return f"sample_rate {row.sample_rate} Hz, but {row.audio.name} is at {sample_rate} Hz"
    if abs(duration - row.duration) > DURATION_TOLERANCE:
        return f"duration {row.duration:g} s, but {row.audio.name} lasts {duration:.3f} s"
    if duration > window:
        return _too_long(row.audio, duration, window)
    return _other_clips_problem(row, window) if is_dialogue(row.metadata) else None


def _other_clips_problem(row: Row, window: float) -> str | None:
    """What is wrong with the clip of a past turn, or of one to come."""
    for clip in clips_of(row.metadata):
        try:
            samples, sample_rate = decode(row.manifest.parent / clip)
        except DataError as error:
            return f"audio {error}"
        if len(samples) > window * sample_rate:
            return _too_long(Path(clip), len(samples) / sample_rate, window)
    return None


def _too_long(audio: Path, duration: float, window: float) -> str:
    return f"{audio.name} lasts {duration:.3f} s, longer than the window of {window:g} s"


def raise_if_any(path: Path, problems: Sequence[tuple[int, str]], what: str) -> None:
    if not problems:
        return
    lines = [f"{path}: {len(problems)} row{'s' if len(problems) > 1 else ''} {what}"]
    lines += [f"{path.name} row {number}: {problem}" for number, problem in sorted(problems)[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"... and {len(problems) - _SHOWN} more")
    raise DataError("\n".join(lines))


def _as_json(row: Row, manifest: Path) -> dict[str, Any]:
    values: dict[str, Any] = {"id": row.id, "audio": _relative(row.audio, manifest)}
    values |= {key: getattr(row, key) for key in REQUIRED if key != "audio"}
    if row.sample_rate is not None:
        values["sample_rate"] = row.sample_rate
    metadata = dict(row.metadata)
    if is_dialogue(metadata):
        metadata = with_clips(metadata, lambda clip: _relative(row.manifest.parent / clip, manifest))
    return values | ({"metadata": metadata} if metadata else {})


def _relative(clip: Path, manifest: Path) -> str:
    return Path(relpath(clip, manifest.parent)).as_posix()
