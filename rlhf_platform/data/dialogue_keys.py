"""The metadata of a dialogue row, and what may be wrong with them; docs/dialogue_data.md is the page for users."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rlhf_platform.data.dialogue import ASSISTANT, USER

PERSONA_BUDGET = 400
"""Characters of a persona: it is read anew at every turn, and the policy's context is short."""

_ROLES = (USER, ASSISTANT)
_KEYS = {
    USER: {"role": True, "audio": True, "text": True},
    ASSISTANT: {"role": True, "text": True, "tokens": False, "reasoning": False},
    "": {"audio": True, "text": True, "reference": True},
}
"""Of a past turn by its role, and of a turn still to come; whether a turn needs the key."""


def dialogue_problem(metadata: Mapping[str, Any], folder: Path) -> str | None:
    """The first thing wrong with the metadata of a dialogue row; `folder` is what its paths are relative to."""
    for key, default in (("said", ""), ("persona", "-"), ("reasoning", "-"), ("kind", "-")):
        value = metadata.get(key, default)
        if not isinstance(value, str) or (key == "said" and not value.strip()):
            return f"metadata.{key} is {value!r}; it must be text" + (" that is not empty" if key == "said" else "")
    if len(metadata.get("persona", "")) > PERSONA_BUDGET:
        return f"persona has {len(metadata['persona'])} characters; at most {PERSONA_BUDGET}: say it in fewer words"
    history, coming = metadata.get("history", []), metadata.get("next", [])
    for key, turns in (("history", history), ("next", coming)):
        if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
            return f"metadata.{key} is not a list of turns, each an object"
    for number, turn in enumerate(history, start=1):
        role = _ROLES[(number - 1) % 2]
        if turn.get("role") != role:
            return (
                f"history turn {number} is of role {turn.get('role')!r}, not {role!r}; turns alternate, a user's first"
            )
        if problem := _turn_problem(turn, role, folder):
            return f"history turn {number}: {problem}"
    if len(history) % 2:
        return f"history ends with a user, at turn {len(history)}; the user's latest turn is the row itself"
    for number, turn in enumerate(coming, start=1):
        if problem := _turn_problem(turn, "", folder):
            return f"next turn {number}: {problem}"
    return None


def clips_of(metadata: Mapping[str, Any]) -> list[str]:
    """The paths of all past turns' clips and of those to come, as written."""
    return [turn["audio"] for key in ("history", "next") for turn in metadata.get(key, ()) if turn.get("audio")]


def user_sides(metadata: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    """The persona and what the user says, turn by turn: of the dialogue as it stands, then after each turn to come."""
    past = [turn["text"] for turn in metadata.get("history", ()) if turn["role"] == USER]
    side = [metadata.get("persona", ""), *past, metadata["said"]]
    yield side
    for turn in metadata.get("next", ()):
        side = [*side, turn["text"]]
        yield side


def _turn_problem(turn: Mapping[str, Any], role: str, folder: Path) -> str | None:
    known = _KEYS[role]
    for key in turn:
        if key not in known:
            close = get_close_matches(key, known, n=1)
            return f"unknown key {key!r}; " + (f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known)}")
    for key, needed in known.items():
        if key not in turn:
            if needed:
                return f"no {key!r}"
        elif key == "tokens":
            if not isinstance(turn[key], list) or any(type(token) is not int or token < 0 for token in turn[key]):
                return "tokens is a list of whole numbers, at least 0 each"
        elif not isinstance(turn[key], str) or (needed and not turn[key].strip()):
            return f"{key} is {turn[key]!r}; it must be text" + (" that is not empty" if needed else "")
    if "audio" in turn and not Path(folder, turn["audio"]).is_file():
        return f"audio {turn['audio']!r} does not exist; paths are relative to the manifest's folder"
    return None
