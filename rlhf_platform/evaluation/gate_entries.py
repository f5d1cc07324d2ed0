"""What a regression gate asks: whose evaluations must not fall, and by how much. Imports no torch."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from rlhf_platform.errors import PlatformError, RecipeError
from rlhf_platform.recipe.load import LoadedRecipe
from rlhf_platform.recipe.rewards import reward_name
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.recipe.sources import shown

WER = "wer"
_SPOKEN = ("quality", "ended", "unscored")
OF_BRANCH = {"asr": (WER,), "tts": _SPOKEN, "realtime": (*_SPOKEN, "evasive")}
"""What an evaluation measures beside its `evaluation.rewards`."""
_LOWER = frozenset(
    ["wer", "cer", "per", "mer", "ser", "substitutions", "deletions", "insertions", "unscored", "evasive"]
)
_HIGHER = frozenset(["accuracy", "cosine", "ended", "exact", "f1", "graded", "kept", "mos", "quality", "reward"])
"""Last parts of names whose direction needs not be told."""

Load = Callable[[Path, Sequence[str]], LoadedRecipe]
"""Reads, and checks, a recipe with overrides."""


@dataclass(frozen=True)
class GateEntry:
    """One metric of one recipe's held-out evaluation."""

    recipe: Path
    metric: str
    max_drop: float = 0.02
    """Change for the worse that is let through, absolute; at least 0."""
    higher_is_better: bool | None = None
    """None: from the metric's name."""
    set: tuple[str, ...] = ()
    """Overrides of the recipe, `key=value`."""


def read_gate(path: Path) -> list[GateEntry]:
    """The entries of a file, whose only key is `gate`; recipes are relative to it. Raises RecipeError with a line per
    mistake."""
    try:
        tree = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise RecipeError(f"{shown(path)}: {error.strerror}; name a file with a list named gate") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{shown(path)}: not valid YAML: {str(error).splitlines()[0]}") from None
    listed = tree.get("gate") if isinstance(tree, Mapping) and list(tree) == ["gate"] else None
    if not isinstance(listed, list) or not listed:
        raise RecipeError(f"{shown(path)}: expected one key, gate, with a list of entries: recipe, metric, max_drop")
    errors: list[str] = []
    entries = [_entry(given, f"gate[{number}]", path, errors) for number, given in enumerate(listed)]
    if errors:
        raise RecipeError("\n".join(f"{error} ({shown(path)})" for error in errors))
    return [entry for entry in entries if entry]


def _entry(given: Any, key: str, path: Path, errors: list[str]) -> GateEntry | None:
    known = [field.name for field in fields(GateEntry)]
    if not isinstance(given, Mapping):
        errors.append(f"{key} is {given!r}: expected a section with the keys {', '.join(known)}")
        return None
    wrong = []
    for name in given:
        if name not in known:
            near = get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
            wrong.append(f"{key}.{name}: unknown key; {hint}")
    values = {"max_drop": 0.02, "higher_is_better": None, "set": [], **given}
    for name in ("recipe", "metric"):
        if not isinstance(values.get(name), str) or not values[name]:
            wrong.append(f"{key}.{name} is {values.get(name)!r}: expected text")
    drop = values["max_drop"]
    if isinstance(drop, bool) or not isinstance(drop, int | float) or not (math.isfinite(drop) and drop >= 0):
        wrong.append(f"{key}.max_drop is {drop!r}: expected a number of at least 0")
    if values["higher_is_better"] not in (True, False, None):
        wrong.append(f"{key}.higher_is_better is {values['higher_is_better']!r}: expected true or false")
    overrides = values["set"]
    if not isinstance(overrides, list) or not all(isinstance(text, str) for text in overrides):
        wrong.append(f"{key}.set is {overrides!r}: expected a list of key=value")
    errors += wrong
    if wrong:
        return None
    recipe = path.resolve().parent / values["recipe"]
    return GateEntry(recipe, values["metric"], float(drop), values["higher_is_better"], tuple(overrides))


def column_of(recipe: Recipe, metric: str) -> str:
    """The name of a metric in an evaluation: `cer` of a term that counts one part of its answer is `cer.PART`.

    Raises RecipeError for one that the recipe's evaluation does not measure.
    """
    own = OF_BRANCH.get(recipe.branch, ())
    terms = {reward_name(term): term for term in recipe.evaluation.rewards}
    if metric in own or metric in {f"{name}.{term.part}" for name, term in terms.items() if term.part}:
        return metric
    if metric in terms:
        return f"{metric}.{terms[metric].part}" if terms[metric].part else metric
    if metric.partition(".")[0] in terms:
        return metric  # a part of an answer, of which only the evaluation knows
    allowed = ", ".join([*own, *terms])
    raise RecipeError(f"metric is {metric!r}: the evaluation of {recipe.name} does not measure it; allowed {allowed}")


def is_higher_better(column: str, given: bool | None) -> bool:
    """The direction of a metric. Raises RecipeError where it is not told and the name does not say it."""
    if given is not None:
        return given
    last = column.rpartition(".")[2]
    if last in _LOWER:
        return False
    if last in _HIGHER or "." not in column:  # a reward that is one number is the better the higher
        return True
    raise RecipeError(f"metric is {column!r}: whether more of it is better is not known; set higher_is_better")


def grouped(entries: Sequence[GateEntry]) -> dict[tuple[Path, tuple[str, ...]], list[GateEntry]]:
    """The entries by what is evaluated for them: metrics of one recipe need one evaluation."""
    found: dict[tuple[Path, tuple[str, ...]], list[GateEntry]] = {}
    for entry in entries:
        found.setdefault((entry.recipe, entry.set), []).append(entry)
    return found


def check_gate(entries: Sequence[GateEntry], load: Load) -> list[LoadedRecipe]:
    """The recipes of the entries, each once, in order. Raises one RecipeError with all that is wrong with them."""
    recipes, wrong = [], []
    for (path, overrides), asked in grouped(entries).items():
        try:
            loaded = load(path, overrides)
        except PlatformError as error:
            wrong += [f"{shown(path)}: {line}" for line in str(error).splitlines()]
            continue
        recipes.append(loaded)
        for entry in asked:
            try:
                is_higher_better(column_of(loaded.recipe, entry.metric), entry.higher_is_better)
            except RecipeError as error:
                wrong.append(f"{shown(path)}: {error}")
    if wrong:
        raise RecipeError("\n".join(wrong))
    return recipes
