"""What the schema says of itself: the keys with their types, and the nearest one to a misspelt key."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import Field, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from rlhf_platform.recipe.algorithm_names import ALGORITHMS
from rlhf_platform.recipe.schema import Recipe

_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", NoneType: "null"}


@dataclass(frozen=True)
class Key:
    """One key of a section."""

    name: str
    type: Any
    field: Field[Any]

    @property
    def section(self) -> Any:
        """The dataclass that this key holds, or None."""
        return self.type if is_dataclass(self.type) else None

    @property
    def item(self) -> Any:
        """The dataclass of the items when this key holds a list of them, or None."""
        inner = self._inner
        return inner if is_dataclass(inner) else None

    @property
    def plain_item(self) -> Any:
        """The type of the items when this key holds a list of plain values, as `str`, or None."""
        inner = self._inner
        return inner if inner in _WORDS else None

    @property
    def _inner(self) -> Any:
        return get_args(self.type)[0] if get_origin(self.type) is list else None

    @property
    def plain_types(self) -> tuple[Any, ...]:
        """`(int, NoneType)` for `int | None`; empty for a section, a list and a mapping."""
        if get_origin(self.type) is UnionType:
            return get_args(self.type)
        return (self.type,) if self.type in _WORDS else ()

    @property
    def expected(self) -> str:
        """The type in words: "a whole number or null"."""
        if self.plain_types:
            return " or ".join(_WORDS[kind] for kind in self.plain_types)
        if self.plain_item:
            return f"a list of {_WORDS[self.plain_item]}"
        return "a list" if self.item else "a section of keys"


def keys_of(section: Any) -> dict[str, Key]:
    """The keys of a section's dataclass, in the order of the schema."""
    hints = get_type_hints(section)
    return {field.name: Key(field.name, hints[field.name], field) for field in fields(section)}


def every_key(section: Any = Recipe, prefix: str = "") -> Iterator[str]:
    """All full names, as `learner.cpus` and `rewards[].weight`; a section before its keys."""
    for key in keys_of(section).values():
        yield prefix + key.name
        if prefix + key.name == "algorithm":
            yield from dict.fromkeys(f"algorithm.{name}" for kind in ALGORITHMS.values() for name in keys_of(kind))
            continue
        if key.section:
            yield from every_key(key.section, f"{prefix}{key.name}.")
        elif key.item:
            yield from every_key(key.item, f"{prefix}{key.name}[].")


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The most similar of `known`, or None when none is similar."""
    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=0.6)), None)


def nearest_key(name: str, section: Any, prefix: str) -> str | None:
    """The full name of the key meant by `name`: one of its section (`lr`: learning_rate), else a like-named one."""
    siblings = list(keys_of(section))
    shortened = ["".join(word[0] for word in key.split("_")) for key in siblings]
    abbreviates = len(name) > 1 and name in shortened
    sibling = siblings[shortened.index(name)] if abbreviates else nearest(name, siblings)
    if sibling:
        return prefix + sibling
    by_last = {full.rpartition(".")[2]: full for full in reversed(list(every_key()))}
    elsewhere = nearest(name, list(by_last))
    return by_last[elsewhere] if elsewhere else None
