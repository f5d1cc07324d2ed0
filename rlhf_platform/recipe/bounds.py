"""The range of each key: whether a value is in it, and how it is said."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from rlhf_platform.recipe.keys import keys_of, nearest


def out_of_bounds(section: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The full name of each key whose value is out of its range, and what is allowed."""
    for key in keys_of(type(section)).values():
        value, full = getattr(section, key.name), prefix + key.name
        if key.section:
            yield from out_of_bounds(value, full + ".")
        elif key.item:
            for index, item in enumerate(value):
                yield from out_of_bounds(item, f"{full}[{index}].")
        elif not _allows(key.field.metadata, value):
            bounds = key.field.metadata
            yield full, f"allowed {allowed(bounds)}{_meant(bounds, value)}"


def allowed(bounds: Mapping[str, Any]) -> str:
    """A field's bounds in words: "2 to 1024", "above 0 to 1", "one of off, online"; "" when it has none."""
    if "choices" in bounds:
        choices = [_text(choice) for choice in bounds["choices"]]
        return f"one of {', '.join(choices)}" if len(choices) > 1 else f"only {choices[0]}"
    low = bounds.get("at_least", bounds.get("above"))
    above = "above " if "above" in bounds else ""
    if "at_most" in bounds:
        high = _number(bounds["at_most"])
        return f"at most {high}" if low is None else f"{above}{_number(low)} to {high}"
    return "" if low is None else f"{above or 'at least '}{_number(low)}"


def _allows(bounds: Mapping[str, Any], value: Any) -> bool:
    if "choices" in bounds:
        return value in bounds["choices"]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return True
    return (
        math.isfinite(value)
        and value >= bounds.get("at_least", -math.inf)
        and value <= bounds.get("at_most", math.inf)
        and value > bounds.get("above", -math.inf)
    )


def _number(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _meant(bounds: Mapping[str, Any], value: Any) -> str:
    near = nearest(str(value), [str(choice) for choice in bounds.get("choices", ())])
    return f"; did you mean {near}?" if near else ""


def _text(value: Any) -> str:
    return "null" if value is None else str(value)
