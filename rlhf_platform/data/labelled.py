"""Pairs of replies whose better one is known: what judges are measured on and learn from (docs/dialogue_data.md).

JSONL, one pair a line. As in a manifest, all bad rows are found before an error is raised, and a row is named by its
line number. Importing this file imports no torch.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rlhf_platform.data.dialogue import ASSISTANT, USER
from rlhf_platform.data.manifest import kind_of, raise_if_any
from rlhf_platform.errors import DataError

CRITERIA = ("persona", "memory", "follows", "safety", "brevity", "honesty")
"""What the better reply may be better in; `honesty` is to have no excuse for not answering."""
SPLITS = ("train", "calibration", "heldout")
BETTER = ("a", "b", "tie")

_TEXTS = ("id", "said", "a", "b")
_KEYS = ("id", "persona", "history", "said", "a", "b", "better", "criterion", "split")


@dataclass(frozen=True)
class Labelled:
    """Two replies to a user's turn, of which it is known which is better."""

    id: str
    persona: str
    history: tuple[tuple[str, str], ...]
    """(role, text) of the turns before, oldest first; `user` and `assistant` in turn, the last an assistant."""
    said: str
    a: str
    b: str
    better: str
    """One of `BETTER`."""
    criterion: str
    """One of `CRITERIA`; empty for a tie."""
    split: str
    """One of `SPLITS`."""


def read_labelled(path: str | Path, split: str | None = None) -> list[Labelled]:
    """All pairs, or those of one split.

    Raises one `DataError` that counts the bad rows and names the first ten, or says that there are none.
    """
    path = Path(path).absolute()
    if not path.is_file():
        raise DataError(f"{path}: no such file of labelled replies; name a JSONL file (docs/dialogue_data.md)")
    found: dict[str, Labelled] = {}
    problems: list[tuple[int, str]] = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        pair = _parse(line)
        if isinstance(pair, str):
            problems.append((number, pair))
        elif found.setdefault(pair.id, pair) is not pair:
            problems.append((number, f"id {pair.id!r} is that of an earlier row; give each row its own"))
    raise_if_any(path, problems, "cannot be used")
    chosen = [pair for pair in found.values() if split in (None, pair.split)]
    if not chosen:
        present = ", ".join(sorted({pair.split for pair in found.values()})) or "no rows at all"
        raise DataError(
            f"{path}: no labelled replies" + (f" of split {split!r}" if split else "") + f"; it has {present}"
        )
    return chosen


def write_labelled(path: str | Path, pairs: Iterable[Labelled]) -> None:
    """Write the pairs as JSONL; `read_labelled` gives them back."""
    rows = [asdict(pair) | {"history": [{"role": r, "text": t} for r, t in pair.history]} for pair in pairs]
    Path(path).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def _parse(line: bytes) -> Labelled | str:
    """The pair, or what is wrong with it."""
    try:
        values = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return "not UTF-8; save the file as UTF-8"
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at column {error.colno}"
    if not isinstance(values, dict):
        return f"a row is a JSON object, not {kind_of(values)}"
    if problem := _keys_problem(values) or _history_problem(values["history"]):
        return problem
    return Labelled(**{**values, "history": tuple((turn["role"], turn["text"]) for turn in values["history"])})


def _keys_problem(values: Mapping[str, Any]) -> str | None:
    for key in values:
        if key not in _KEYS:
            close = get_close_matches(key, _KEYS, n=1)
            return f"unknown key {key!r}; " + (f"did you mean {close[0]!r}?" if close else f"it has {', '.join(_KEYS)}")
    for key in _KEYS:
        if key not in values:
            return f"no {key!r}; every row has {', '.join(_KEYS)}"
        if key != "history" and not isinstance(values[key], str):
            return f"{key} is text, not {kind_of(values[key])} {values[key]!r}"
        if key in _TEXTS and not values[key].strip():
            return f"{key} is empty"
    if values["better"] not in BETTER:
        return f"better is {values['better']!r}; allowed are {', '.join(BETTER)}"
    if values["split"] not in SPLITS:
        return f"split is {values['split']!r}; allowed are {', '.join(SPLITS)}"
    if values["better"] == "tie":
        return "a tie has no criterion; leave it empty" if values["criterion"] else None
    if values["criterion"] not in CRITERIA:
        return f"criterion is {values['criterion']!r}; allowed are {', '.join(CRITERIA)}"
    return f"a and b are the same reply {values['a']!r}; call it a tie" if values["a"] == values["b"] else None


def _history_problem(history: object) -> str | None:
    if not isinstance(history, list):
        return f"history is a list, not {kind_of(history)}"
    for number, turn in enumerate(history, start=1):
        if not isinstance(turn, dict) or {*turn} != {"role", "text"}:
            return f"history turn {number} is not an object of role and text"
        role = (ASSISTANT, USER)[number % 2]
        if turn["role"] != role:
            return f"history turn {number} is of role {turn['role']!r}, not {role!r}; turns alternate, a user's first"
        if not isinstance(turn["text"], str) or not turn["text"].strip():
            return f"history turn {number}: text is {turn['text']!r}; it must be text that is not empty"
    return f"history ends with a user, at turn {len(history)}" if len(history) % 2 else None
