"""The files and overrides that make up a recipe, read one by one, with the line that each key stands on."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rlhf_platform.recipe.keys import nearest


@dataclass(frozen=True)
class Layer:
    """One file, or one override, before it is checked."""

    name: str
    """`file.yaml`, or `the command line`."""
    file: Path | None
    """Absolute; None on the command line."""
    base_dir: Path
    """Of its relative paths."""
    tree: dict[str, Any]
    lines: Mapping[str, int]
    """Line of each key, by its full name."""

    def where(self, full: str) -> str:
        """Where the key `full` stands, or what holds it: `file.yaml:7`, `on the command line`."""
        if self.file is None:
            return "on the command line"
        while full and full not in self.lines:
            full = re.sub(r"(\.|^)[^.\[]*$|\[\d+\]$", "", full)
        return f"{self.name}:{self.lines[full]}" if full else self.name


def read_chain(path: Path, errors: list[str], above: tuple[Path, ...] = ()) -> list[Layer]:
    """The layers of a file: those it extends first, in their order, itself last. `above`: who extends it."""
    file = path.resolve()
    by = f" (extended by {shown(above[-1])})" if above else ""
    if file in above:
        chain = " -> ".join(shown(link) for link in (*above[above.index(file) :], file))
        errors.append(f"extends goes in a circle: {chain}; take one of them out")
        return []
    layer = _read_file(file, by, errors)
    if layer is None:
        return []
    extends = layer.tree.pop("extends", [])
    layers: list[Layer] = []
    for parent in extends if isinstance(extends, list) else [extends]:
        if isinstance(parent, str) and parent and "${" not in parent:
            layers += read_chain(file.parent / parent, errors, (*above, file))
        else:
            where = layer.where("extends")
            errors.append(f"extends is {parent!r}: expected a relative path or a list of them ({where})")
    return [*layers, layer]


def read_overrides(overrides: Sequence[str], errors: list[str]) -> list[Layer]:
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
        layers.append(Layer("the command line", None, Path.cwd(), tree, {}))
    return layers


def with_items(layers: Sequence[Layer], placed: Callable[[Layer], Any]) -> list[Layer]:
    """The layers, where what an override says of one item of a list (`rewards[0].weight=2`) is said of the whole list.

    The list is that of the layers before it. An item that is not there is left as it is, for the reader to refuse.
    `placed`: a layer's tree with its paths absolute, since a list is taken from the file that they are relative to.
    """
    whole: list[Layer] = []
    for layer in layers:
        tree = layer.tree if layer.file else _whole_lists(layer.tree, [placed(earlier) for earlier in whole])
        whole.append(replace(layer, tree=tree))
    return whole


def _whole_lists(tree: dict[Any, Any], earlier: Sequence[Any]) -> dict[Any, Any]:
    found = {}
    for key, value in tree.items():
        before = [above[key] for above in earlier if isinstance(above, Mapping) and key in above]
        if isinstance(value, dict) and value and all(str(name).isdigit() for name in value):
            base = before[-1] if before and isinstance(before[-1], list) else ()
            said = {int(name): change for name, change in value.items()}
            if max(said) < len(base):
                value = [_over(item, said.get(number, {})) for number, item in enumerate(base)]
        elif isinstance(value, dict):
            value = _whole_lists(value, before)
        found[key] = value
    return found


def _over(item: Any, change: Any) -> Any:
    if isinstance(item, dict) and isinstance(change, dict):
        return item | {key: _over(item.get(key, {}), value) for key, value in change.items()}
    return item if change == {} else change


def shown(path: Path) -> str:
    """The path as a person would type it from here."""
    absolute = path.resolve()
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(absolute)


def _read_file(file: Path, by: str, errors: list[str]) -> Layer | None:
    """The file's top-level mapping; None after adding to `errors`."""
    try:
        tree = OmegaConf.to_container(OmegaConf.load(file))
        lines = dict(_lines(yaml.compose(file.read_text("utf-8"), Loader=yaml.SafeLoader)))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        errors.append(f"{shown(file)}:{line}: not valid YAML: {error.problem}")
    except OmegaConfBaseException as error:
        errors.append(f"{shown(file)}: {_first_line(error)}; only ${{oc.env:NAME}} may stand in ${{...}}")
    except FileNotFoundError:
        siblings = [p.name for p in file.parent.glob("*.yaml")] if file.parent.is_dir() else []
        near = nearest(file.name, siblings)
        hint = f"; did you mean {shown(file.parent / near)}?" if near else "; check the path"
        errors.append(f"{shown(file)}: no such recipe{by}{hint}")
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or _first_line(error)
        errors.append(f"{shown(file)}: cannot be read as a YAML file{by}: {reason}")
    else:
        if isinstance(tree, dict):
            named = {str(key): value for key, value in tree.items()}
            return Layer(shown(file), file, file.parent, named, lines)
        errors.append(f"{shown(file)}: expected keys at the top level (`name: ...`), found a list")
    return None


def _lines(node: Any, full: str = "") -> Iterator[tuple[str, int]]:
    """Each key below a YAML node with its line, from 1."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{full}.{key.value}" if full else str(key.value)
            yield name, key.start_mark.line + 1
            yield from _lines(value, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield f"{full}[{index}]", item.start_mark.line + 1
            yield from _lines(item, f"{full}[{index}]")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
