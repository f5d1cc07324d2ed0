"""The key of a blind test: which system made which side of each pair, and what the sides are."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from os.path import normpath, relpath
from pathlib import Path
from typing import Any

from rlhf_platform.data.pairs import Answer
from rlhf_platform.errors import DataError
from rlhf_platform.types import Prompt


@dataclass(frozen=True)
class Side:
    """What a system said."""

    system: str
    answer: Answer
    """With the audio that raters hear; tokens where the evaluation kept them."""


@dataclass(frozen=True)
class BlindPair:
    """Two answers to a prompt, under names that say nothing."""

    prompt: Prompt
    a: Side
    b: Side


Key = Mapping[str, BlindPair]
"""Pairs by their names, as `0001`. A sample of a pair is named `0001_a` or `0001_b`."""


def write_key(path: Path, key: Key) -> None:
    """Write it as JSON, with audio paths relative to the file; `read_key` gives it back."""
    pairs = {
        name: {
            "prompt": {**vars(pair.prompt), "audio": relpath(pair.prompt.audio, path.parent)},
            "a": _as_json(pair.a, path),
            "b": _as_json(pair.b, path),
        }
        for name, pair in key.items()
    }
    path.write_text(json.dumps({"pairs": pairs}, ensure_ascii=False, indent=1) + "\n", "utf-8")


def read_key(path: Path) -> dict[str, BlindPair]:
    """Raises `DataError` when there is no such file, or it is none that `write_key` wrote."""
    path = path.absolute()
    if not path.is_file():
        raise DataError(f"{path}: no such key; it is the key.json that was written with the pairs")
    try:
        pairs = json.loads(path.read_text("utf-8"))["pairs"]
        return {name: _read(pair, path) for name, pair in pairs.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{path}: not a key of blind pairs; name the key.json that was written with them") from None


def _as_json(side: Side, path: Path) -> dict[str, Any]:
    assert side.answer.audio is not None
    return {"system": side.system, "audio": relpath(side.answer.audio, path.parent), "tokens": side.answer.tokens}


def _read(pair: Mapping[str, Any], path: Path) -> BlindPair:
    prompt = pair["prompt"]
    sides = [
        Side(
            str(side["system"]),
            Answer(tokens=tuple(side["tokens"]) if side["tokens"] else None, audio=_absolute(side["audio"], path)),
        )
        for side in (pair["a"], pair["b"])
    ]
    return BlindPair(Prompt(**{**prompt, "audio": _absolute(prompt["audio"], path)}), *sides)


def _absolute(audio: str, path: Path) -> str:
    return normpath(path.parent / audio)
