"""The tables of all recipe keys: `python -m rlhf_platform.recipe.document > docs/recipe_keys.md`."""

import ast
import inspect
from collections.abc import Iterator
from dataclasses import MISSING as NO_DEFAULT
from functools import cache
from itertools import pairwise
from typing import Any

from omegaconf import MISSING

from rlhf_platform.recipe import schema
from rlhf_platform.recipe.algorithm_names import ALGORITHMS
from rlhf_platform.recipe.bounds import allowed
from rlhf_platform.recipe.keys import Key, keys_of
from rlhf_platform.recipe.resume import may_change

_HEADER = """\
# Recipe keys

Made from the dataclasses of `rlhf_platform/recipe` by
`python -m rlhf_platform.recipe.document > docs/recipe_keys.md`. How to write a recipe: [recipe.md](recipe.md). A key
marked with * may have another value when a run is resumed; `steps` too, while `learner.schedule` is `constant`.
"""


def document() -> str:
    """The page, in Markdown: one table per section, in the order of the schema."""
    return "\n".join([_HEADER, *_section(schema.Recipe, "")]).rstrip() + "\n"


@cache
def docstrings(section: Any) -> dict[str, str]:
    """The string under each field of a section, its parents' included, on one line; one without is left out."""
    found: dict[str, str] = {}
    for parent in reversed(section.__mro__[:-1]):
        found |= _own_docstrings(parent)
    return found


def _own_docstrings(section: Any) -> dict[str, str]:
    (body,) = (node.body for node in ast.parse(inspect.getsource(section)).body if isinstance(node, ast.ClassDef))
    found: dict[str, str] = {}
    for field, after in pairwise(body):
        match field, after:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[name] = " ".join(text.split())
    return found


def _section(section: Any, prefix: str, title: str = "") -> Iterator[str]:
    title = title or (f"`{prefix.rstrip('.')}`" if prefix else "The top level")
    yield f"## {title}\n\n{' '.join((section.__doc__ or '').split())}\n"
    yield "| Key | Type | Default | Allowed | Meaning |\n|---|---|---|---|---|"
    nested = []
    for key in keys_of(section).values():
        full = f"{prefix}{key.name}"
        name = f"`{full}`{' *' if may_change(full) else ''}"
        cells = (name, key.expected, _default(key), allowed(key.field.metadata), docstrings(section).get(key.name, ""))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        if full == "algorithm":
            kinds = ((kind, f"`algorithm`, `type: {name}`") for name, kind in ALGORITHMS.items())
            nested += [(kind, "algorithm.", title) for kind, title in kinds]
        elif key.section:
            nested.append((key.section, f"{full}.", ""))
        elif key.item:
            nested.append((key.item, f"{full}[].", ""))
    yield ""
    for inner, inner_prefix, inner_title in nested:
        yield from _section(inner, inner_prefix, inner_title)


def _default(key: Key) -> str:
    value = key.field.default
    if value is NO_DEFAULT:
        return ""
    if value == MISSING:
        return "required"
    shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return f"`{shown}`"


if __name__ == "__main__":
    print(document(), end="")
