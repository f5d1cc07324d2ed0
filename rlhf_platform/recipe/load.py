"""From a recipe file to a `Recipe`: `extends`, overrides, environment, and every mistake of form at once."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rlhf_platform.errors import RecipeError
from rlhf_platform.recipe.algorithm_names import ALGORITHMS, ELSEWHERE
from rlhf_platform.recipe.algorithms import AlgorithmConfig
from rlhf_platform.recipe.keys import Key, keys_of, nearest, nearest_key
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.recipe.sources import Layer, read_chain, read_overrides, shown, with_items

_ENVIRONMENT = re.compile(r"\$\{oc\.env:([A-Za-z_][A-Za-z0-9_]*)\}")
_UNKNOWN = "?"
"""Stands where a value is missing, so that the rest can be checked."""


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe whose keys and types are right; `recipe.validate` says whether its values are."""

    recipe: Recipe
    """`data.manifest`, `data.pairs`, `backbone.path` (when it is a folder) and files in `rewards[].fn` are absolute."""
    path: Path
    """The recipe file, absolute."""
    base_dir: Path
    """Its folder."""
    sources: tuple[Path, ...]
    """Every file that was read, absolute, in the order in which they were laid over each other."""
    yaml: str
    """All keys as YAML; what is from the environment stays `${oc.env:NAME}`. Loads again as a recipe."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """Where each key that is not a default was set: `file.yaml:7`, `on the command line`."""
    broken: frozenset[str] = frozenset()
    """Keys whose values could not be read; empty unless the recipe comes from `read_recipe`."""


@dataclass
class _Reader:
    """Checks layers key by key; what is wrong is noted in `errors`, its key in `broken`."""

    algorithm: Any
    errors: list[str]
    broken: set[str] = field(default_factory=set)
    origins: dict[str, str] = field(default_factory=dict)

    def refuse(self, full: str, problem: str, layer: Layer) -> None:
        self.errors.append(f"{full}{problem} ({layer.where(full)})")
        self.broken.add(full)

    def section(self, section: Any, tree: Mapping[Any, Any], prefix: str, layer: Layer) -> dict[str, Any]:
        """`tree` without what is wrong in it, its paths absolute."""
        keys = keys_of(section)
        good: dict[str, Any] = {}
        for name, value in ((str(name), value) for name, value in tree.items()):
            full = prefix + name
            key = keys.get(name)
            if key is None:
                self.refuse(full, self._unknown(name, section, prefix), layer)
            elif full == "algorithm.type" and isinstance(value, str) and value not in ALGORITHMS:
                self.refuse(full, _no_algorithm(value), layer)
            elif key.section and isinstance(value, Mapping):
                inner = self.algorithm if full == "algorithm" else key.section
                good[name] = self.section(inner, value, full + ".", layer)
            elif key.item and isinstance(value, list):
                self._set(full, layer)
                good[name] = [self._item(key, f"{full}[{i}]", item, layer) for i, item in enumerate(value)]
            else:
                problem, value = _checked_value(section, key, value)
                if problem:
                    self.refuse(full, " " + problem, layer)
                else:
                    self._set(full, layer)
                    good[name] = _absolute(full, value, layer.base_dir)
        return good

    def _item(self, key: Key, full: str, item: Any, layer: Layer) -> dict[str, Any]:
        if isinstance(item, Mapping):
            return self.section(key.item, item, full + ".", layer)
        known = ", ".join(keys_of(key.item))
        self.refuse(full, f" is {item!r}: expected a section with the keys {known}", layer)
        return {}

    def _set(self, full: str, layer: Layer) -> None:
        """A later layer replaces a value, and a list as a whole."""
        self.origins = {key: where for key, where in self.origins.items() if not key.startswith(f"{full}[")}
        self.origins[full] = layer.where(full)

    def _unknown(self, name: str, section: Any, prefix: str) -> str:
        if name == "stages" and not prefix:
            return ": a key of pipelines, which only rlhf run and rlhf validate take; name the recipe of a stage"
        if prefix == "algorithm.":
            owners = [kind for kind, keys in ALGORITHMS.items() if name in keys_of(keys)]
            if owners:
                takes = ", ".join(keys_of(section))
                return f": a key of {', '.join(owners)}; {section.type} takes {takes}"
        near = nearest_key(name, section, prefix)
        hint = f"did you mean {near}?" if near else "known here: " + ", ".join(keys_of(section))
        return f": unknown key; {hint}"


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Read `path`, what it extends, and `overrides` (`key.sub=value`) on top; later wins, lists as a whole.

    Relative paths are relative to the file that names them; in an override, to the working directory.
    Raises `RecipeError` with one line per mistake: unknown key, wrong type, missing key, file or variable.
    """
    loaded, errors = read_recipe(path, overrides)
    if loaded is None or errors:
        raise RecipeError("\n".join(errors))
    return loaded


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> tuple[LoadedRecipe | None, list[str]]:
    """As `load_recipe`, with the mistakes beside what could be read; None when a file could not be read at all.

    What is wrong or missing has its default, or a placeholder, and is named in `broken`.
    """
    path = Path(path)
    errors: list[str] = []
    files = read_chain(path, errors)
    layers = with_items(
        files + read_overrides(overrides, errors), lambda layer: _placed(layer.tree, "", layer.base_dir)
    )
    complete = not errors
    reader = _Reader(_algorithm(layers), errors)
    config = OmegaConf.structured(Recipe)
    config.algorithm = OmegaConf.structured(reader.algorithm)
    for layer in layers:
        tree = reader.section(Recipe, layer.tree, "", layer)
        config = cast(DictConfig, OmegaConf.merge(config, tree))
    if not complete:
        return None, list(dict.fromkeys(errors))
    for key in sorted(OmegaConf.missing_keys(config)):
        if not any(key == broken or key.startswith((f"{broken}.", f"{broken}[")) for broken in reader.broken):
            errors.append(f"{key} is missing: it has no default, set it in {shown(path)}")
        reader.broken.add(key)
        OmegaConf.update(config, key, _UNKNOWN)
    recipe = cast(Recipe, OmegaConf.to_object(config))
    absolute = path.resolve()
    sources = tuple(dict.fromkeys(layer.file for layer in files if layer.file))
    text = OmegaConf.to_yaml(config)
    loaded = LoadedRecipe(recipe, absolute, absolute.parent, sources, text, reader.origins, frozenset(reader.broken))
    return loaded, list(dict.fromkeys(errors))


def _algorithm(layers: Sequence[Layer]) -> Any:
    """The dataclass of the last `algorithm.type` that is given, since that decides which keys there are."""
    sections = [layer.tree.get("algorithm") for layer in layers]
    given = [section.get("type") for section in sections if isinstance(section, Mapping)]
    known = [name for name in given if isinstance(name, str) and name in ALGORITHMS]
    return ALGORITHMS[known[-1] if known else AlgorithmConfig.type]


def _no_algorithm(name: str) -> str:
    if name in ELSEWHERE:
        return f" is {name}: {ELSEWHERE[name]}"
    near = nearest(name, list(ALGORITHMS))
    meant = f"; did you mean {near}?" if near else ""
    return f" is {name}: unknown; allowed one of {', '.join(ALGORITHMS)}{meant}"


def _checked_value(section: Any, key: Key, value: Any) -> tuple[str, Any]:
    """What is wrong with a value ("" when nothing is), and the value in the type of its key."""
    mistake = _environment_mistake(value)
    if mistake:
        return f"is {value!r}: {mistake}", value
    if (key.item or key.plain_item) and isinstance(value, Mapping) and all(str(name).isdigit() for name in value):
        items = "{...}" if key.item else "a, b"
        return f"is a list: override it as a whole, for example {key.name}=[{items}]", value
    if isinstance(value, bool) and str in key.plain_types:
        # YAML 1.1 reads a bare off, on, yes or no as a boolean.
        word = "on" if value else "off"
        if word in key.field.metadata.get("choices", ()):
            return "", word
        return f"is {str(value).lower()}: expected {key.expected}; write off, on, yes and no in quotes", value
    given = "null" if value is None else "a section" if isinstance(value, Mapping) else repr(value)
    wrong = f"is {given}: expected {key.expected}"
    if key.section or key.item or (key.plain_types and isinstance(value, Mapping | list)):
        return wrong, value
    if key.plain_item and not (isinstance(value, list) and all(_is(key.plain_item, item) for item in value)):
        return wrong, value
    try:
        OmegaConf.merge(OmegaConf.structured(section), {key.name: _expanded(value)})
    except (OmegaConfBaseException, OverflowError):  # a whole number beyond the range of a float
        return wrong, value
    return "", value


def _is(kind: Any, value: Any) -> bool:
    """Whether a value is of a plain type: a whole number is a number, true is none."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _environment_mistake(value: Any) -> str:
    """What is wrong with the `${...}` in a value, at any depth; "" when nothing is."""
    if isinstance(value, Mapping | list):
        items = value.values() if isinstance(value, Mapping) else value
        return next((mistake for mistake in map(_environment_mistake, items) if mistake), "")
    if not isinstance(value, str) or "${" not in value:
        return ""
    if "${" in _ENVIRONMENT.sub("", value):
        return "only ${oc.env:NAME} may stand in ${...}"
    unset = [name for name in _ENVIRONMENT.findall(value) if name not in os.environ]
    return f"the environment variable {unset[0]} is not set; set it or write the value" if unset else ""


def _expanded(value: Any) -> Any:
    return _ENVIRONMENT.sub(lambda match: os.environ[match[1]], value) if isinstance(value, str) else value


def _absolute(full: str, value: Any, base_dir: Path) -> Any:
    """The value, made absolute when its key holds a path and it is a relative one."""
    if not isinstance(value, str) or not value:
        return value
    files = r"data\.(manifest|pairs|labelled)|gate|sft\.beside|judges\[\d+\]\.(calibration\.pairs|lora)"
    if re.fullmatch(files, full):
        return _joined(base_dir, value)
    if full == "backbone.path" or re.fullmatch(r"judges\[\d+\]\.model", full):
        is_folder = value.startswith((".", "~")) or (base_dir / _expanded(value)).is_dir()
        return _joined(base_dir, value) if is_folder else value  # anything else is a name on a hub
    if re.fullmatch(r"(evaluation\.)?rewards\[\d+\]\.fn", full):
        file, colon, function = value.rpartition(":")
        return _joined(base_dir, file) + colon + function if file.endswith(".py") else value
    return value


def _placed(value: Any, full: str, base_dir: Path) -> Any:
    """A part of a layer, named `full`, with the paths in it absolute."""
    if isinstance(value, Mapping):
        return {key: _placed(item, f"{full}.{key}" if full else str(key), base_dir) for key, item in value.items()}
    if isinstance(value, list):
        return [_placed(item, f"{full}[{number}]", base_dir) for number, item in enumerate(value)]
    return _absolute(full, value, base_dir)


def _joined(base_dir: Path, value: str) -> str:
    if os.path.isabs(_expanded(value)):  # maybe by way of the environment, which stays unexpanded
        return value
    return os.path.normpath(base_dir / os.path.expanduser(value))
