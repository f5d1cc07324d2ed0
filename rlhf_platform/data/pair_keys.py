"""The keys of a row of judged answers, and what may be wrong with them; docs/preferences.md is the page for users."""

import math
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from rlhf_platform.data.manifest import kind_of, text_problem

_PROMPT = {"audio": "text", "text": "text", "language": "text", "duration": "number"}
"""Keys of the prompt that every row has: those of a manifest."""
_PROMPT_TOO = {"id": "text", "speaker": "text", "metadata": "object"}
_UNREAD = {"split": "text", "licence": "text", "sample_rate": "whole number"}
"""Keys of a manifest that a row may keep and nothing reads."""
_FORMS = {"": "text", "_tokens": "list", "_codec": "list"}
"""Of an answer, each after its name."""
_JUDGED = {"margin": "number", "tie": "true/false", "label": "true/false"}
_ORIGIN = {"source": "text", "rater": "text", "reason": "text"}
_ANSWERS = ("chosen", "rejected", "completion")
AUDIO = ("audio", *(f"{name}_audio" for name in _ANSWERS))
"""Keys that are paths, relative to the folder of the file."""


def row_problem(values: Mapping[str, Any]) -> str | None:
    """The first thing wrong with a row, as far as its own words say."""
    return _prompt_problem(values) or _answers_problem(values)


def _known() -> dict[str, str]:
    """Every key that a row may have, and what its value is."""
    answers = {name + form: kind for name in _ANSWERS for form, kind in _FORMS.items()}
    return {**_PROMPT, **answers, **dict.fromkeys(AUDIO, "text"), **_JUDGED, **_ORIGIN, **_PROMPT_TOO, **_UNREAD}


def _prompt_problem(values: Mapping[str, Any]) -> str | None:
    """The first thing wrong with the keys of a row, or with what makes the prompt."""
    known = _known()
    for key in values:
        if key not in known:
            close = get_close_matches(key, known, n=1)
            return f"unknown key {key!r}" + (f"; did you mean {close[0]!r}?" if close else f" ({', '.join(known)})")
    for key in _PROMPT:
        if key not in values:
            return f"no {key!r}; every row has {', '.join(_PROMPT)}, as in a manifest"
    for key, value in values.items():
        if kind_of(value) != known[key] and (kind_of(value), known[key]) != ("whole number", "number"):
            return f"{key} is {known[key]}, not {kind_of(value)} {value!r}"
    for key in ("audio", "language", "id"):
        if not values.get(key, "-").strip():
            return f"{key} is empty"
    if not (math.isfinite(values["duration"]) and values["duration"] > 0):
        return f"duration {values['duration']:g} s; it must be above 0"
    return text_problem(values["text"], values["language"], values.get("metadata", {}))


def _answers_problem(values: Mapping[str, Any]) -> str | None:
    """The first thing wrong with the answers and what was judged of them."""
    single = any(key.startswith("completion") or key == "label" for key in values)
    for name in ("completion",) if single else ("chosen", "rejected"):
        given = [name + form for form in _FORMS if name + form in values]
        if not given:
            return f"no {name!r}; a row has chosen and rejected, or completion and label"
        if name + "_codec" in given and len(given) > 1:
            return f"{' and '.join(given)} are given; give one of them"
        for key in given:
            if key != name and (not values[key] or any(type(item) is not int or item < 0 for item in values[key])):
                return f"{key} is a list of whole numbers, at least 0 each and one in all"
    if single:
        extra = [key for key in values if key.startswith(("chosen", "rejected")) or key in ("margin", "tie")]
        if extra:
            return f"{extra[0]} is a key of pairs; a row with completion and label has none"
        return None if "label" in values else "no 'label'; a row with completion says true (good) or false (bad)"
    margin = values.get("margin", 0.0)
    if not (math.isfinite(margin) and margin >= 0):
        return f"margin {margin:g}; it is how much better the chosen answer is, at least 0"
    return (
        "margin says that one is better, tie that none is; give one of them" if values.get("tie") and margin else None
    )
