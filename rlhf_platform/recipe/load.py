"""From a recipe file to a `Recipe`: `extends`, overrides, environment, and every mistake of form at once."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rlhf_platform.errors import RecipeError
from rlhf_platform.recipe.keys import Key, keys_of, nearest, nearest_key
from rlhf_platform.recipe.schema import Recipe

_ENVIRONMENT = re.compile(r"\$\{oc\.env:([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe whose keys and types are right; `recipe.validate` says whether its values are."""

    recipe: Recipe
    """`data.manifest`, `backbone.path` (when it is a folder) and files in `rewards[].fn` are absolute."""
    path: Path
    """The recipe file, absolute."""
    base_dir: Path
    """Its folder."""
    sources: tuple[Path, ...]
    """Every file that was read, absolute, in the order in which they were laid over each other."""
    yaml: str
    """All keys as YAML; what is from the environment stays `${oc.env:NAME}`. Loads again as a recipe."""


@dataclass(frozen=True)
class _Layer:
    """One file, or one override, before it is checked. `base_dir`: of its relative paths."""

    where: str
    """`in file.yaml` or `on the command line`, for messages."""
    base_dir: Path
    tree: dict[str, Any]


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Read `path`, what it extends, and `overrides` (`key.sub=value`) on top; later wins, lists as a whole.

    Relative paths are relative to the file that names them; in an override, to the working directory.
    Raises `RecipeError` with one line per mistake: unknown key, wrong type, missing key, file or variable.
    """
    path = Path(path)
    errors: list[str] = []
    files = _read_chain(path, (), errors)
    layers = [layer for _, layer in files] + _read_overrides(overrides, errors)
    config = OmegaConf.structured(Recipe)
    for layer in layers:
        tree = _checked(Recipe, layer.tree, "", layer, errors)
        config = cast(DictConfig, OmegaConf.merge(config, tree))
    if not errors:
        missing = sorted(OmegaConf.missing_keys(config))
        errors += [f"{key} is missing: it has no default, set it in {_shown(path)}" for key in missing]
    if errors:
        raise RecipeError("\n".join(dict.fromkeys(errors)))
    recipe = cast(Recipe, OmegaConf.to_object(config))
    absolute = path.resolve()
    sources = tuple(dict.fromkeys(file for file, _ in files))
    return LoadedRecipe(recipe, absolute, absolute.parent, sources, OmegaConf.to_yaml(config))


def _read_chain(path: Path, above: tuple[Path, ...], errors: list[str]) -> list[tuple[Path, _Layer]]:
    """The layers of a file: those it extends first, in their order, itself last. `above`: who extends it."""
    file = path.resolve()
    by = f" (extended by {_shown(above[-1])})" if above else ""
    if file in above:
        chain = " -> ".join(_shown(link) for link in (*above[above.index(file) :], file))
        errors.append(f"extends goes in a circle: {chain}; take one of them out")
        return []
    tree = _read_yaml(file, by, errors)
    if tree is None:
        return []
    extends = tree.pop("extends", [])
    parents = extends if isinstance(extends, list) else [extends]
    layers: list[tuple[Path, _Layer]] = []
    for parent in parents:
        if isinstance(parent, str) and parent and "${" not in parent:
            layers += _read_chain(file.parent / parent, (*above, file), errors)
        else:
            errors.append(f"extends is {parent!r} (in {_shown(file)}): expected a relative path or a list of them")
    return [*layers, (file, _Layer(f"in {_shown(file)}", file.parent, tree))]


def _read_yaml(file: Path, by: str, errors: list[str]) -> dict[str, Any] | None:
    """The file's top-level mapping; None after adding to `errors`."""
    try:
        tree = OmegaConf.to_container(OmegaConf.load(file))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        errors.append(f"{_shown(file)}:{line}: not valid YAML: {error.problem}")
    except OmegaConfBaseException as error:
        errors.append(f"{_shown(file)}: {_first_line(error)}; only ${{oc.env:NAME}} may stand in ${{...}}")
    except FileNotFoundError:
        siblings = [p.name for p in file.parent.glob("*.yaml")] if file.parent.is_dir() else []
        near = nearest(file.name, siblings)
        hint = f"; did you mean {_shown(file.parent / near)}?" if near else "; check the path"
        errors.append(f"{_shown(file)}: no such recipe{by}{hint}")
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or _first_line(error)
        errors.append(f"{_shown(file)}: cannot be read as a YAML file{by}: {reason}")
    else:
        if isinstance(tree, dict):
            return {str(key): value for key, value in tree.items()}
        errors.append(f"{_shown(file)}: expected keys at the top level (`name: ...`), found a list")
    return None


def _read_overrides(overrides: Sequence[str], errors: list[str]) -> list[_Layer]:
    """One layer per override, so that each is laid over those before it."""
    layers = []
    for text in overrides:
        if not re.match(r"[^\s=]+=", text):
            errors.append(f"override {text!r}: expected key=value, for example learner.cpus=2")
            continue
        try:
            tree = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.from_dotlist([text])))
        except (yaml.YAMLError, OmegaConfBaseException) as error:
            reason = getattr(error, "problem", None) or _first_line(error)
            errors.append(f"override {text!r}: not valid YAML: {reason}; quote text that holds any of [{{}}]:,$")
            continue
        if "extends" in tree:
            errors.append(f"override {text!r}: extends stands in a recipe file, not on the command line")
            continue
        layers.append(_Layer("on the command line", Path.cwd(), tree))
    return layers


def _checked(section: Any, tree: Mapping[Any, Any], prefix: str, layer: _Layer, errors: list[str]) -> dict[str, Any]:
    """`tree` without what is wrong in it, its paths absolute; what is wrong is added to `errors`."""
    keys = keys_of(section)
    good: dict[str, Any] = {}
    for name, value in ((str(name), value) for name, value in tree.items()):
        full = prefix + name
        key = keys.get(name)
        if key is None:
            near = nearest_key(name, section, prefix)
            hint = f"did you mean {near}?" if near else "known here: " + ", ".join(keys)
            errors.append(f"{full}: unknown key ({layer.where}); {hint}")
        elif key.section and isinstance(value, Mapping):
            good[name] = _checked(key.section, value, full + ".", layer, errors)
        elif key.item and isinstance(value, list):
            good[name] = [_checked_item(key, i, item, full, layer, errors) for i, item in enumerate(value)]
        else:
            problem, value = _checked_value(section, key, value)
            if problem:
                errors.append(f"{full} {problem} ({layer.where})")
            else:
                good[name] = _absolute(full, value, layer.base_dir)
    return good


def _checked_item(key: Key, index: int, item: Any, full: str, layer: _Layer, errors: list[str]) -> dict[str, Any]:
    where = f"{full}[{index}]"
    if isinstance(item, Mapping):
        return _checked(key.item, item, where + ".", layer, errors)
    known = ", ".join(keys_of(key.item))
    errors.append(f"{where} is {item!r}: expected a section with the keys {known} ({layer.where})")
    return {}


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
    shown = "null" if value is None else "a section" if isinstance(value, Mapping) else repr(value)
    wrong = f"is {shown}: expected {key.expected}"
    if key.section or key.item or (key.plain_types and isinstance(value, Mapping | list)):
        return wrong, value
    if key.plain_item and not (isinstance(value, list) and all(isinstance(item, key.plain_item) for item in value)):
        return wrong, value
    try:
        OmegaConf.merge(OmegaConf.structured(section), {key.name: _expanded(value)})
    except OmegaConfBaseException:
        return wrong, value
    return "", value


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
    if not isinstance(value, str):
        return value
    if full == "data.manifest":
        return _joined(base_dir, value)
    if full == "backbone.path":
        is_folder = value.startswith((".", "~")) or (base_dir / _expanded(value)).is_dir()
        return _joined(base_dir, value) if is_folder else value  # anything else is a name on a hub
    if re.fullmatch(r"rewards\[\d+\]\.fn", full):
        file, colon, function = value.rpartition(":")
        return _joined(base_dir, file) + colon + function if file.endswith(".py") else value
    return value


def _joined(base_dir: Path, value: str) -> str:
    if os.path.isabs(_expanded(value)):  # maybe by way of the environment, which stays unexpanded
        return value
    return os.path.normpath(base_dir / os.path.expanduser(value))


def _shown(path: Path) -> str:
    """The path as a person would type it from here."""
    absolute = path.resolve()
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(absolute)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
