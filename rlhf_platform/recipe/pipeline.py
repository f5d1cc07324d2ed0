"""Several runs of one file, each going on from what those before it have left. Importing this file imports no torch."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from rlhf_platform.errors import RecipeError
from rlhf_platform.recipe.sources import shown

_PLACE = re.compile(r"\{([A-Za-z0-9_]+)\}")
_NAME = r"[A-Za-z0-9][A-Za-z0-9_]*"
_STAGE_KEYS = ("name", "recipe", "set")
_KEYS = ("name", "runs_dir", "set", "start", "stages")


@dataclass(frozen=True)
class PipelineStage:
    """One run."""

    name: str
    recipe: Path
    overrides: tuple[str, ...] = ()
    """`key=value`, in which `{NAME}` is the folder of an earlier stage's run."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The earlier stages that it goes on from."""
        return tuple(dict.fromkeys(name for text in self.overrides for name in _PLACE.findall(text)))

    def filled(self, folders: Mapping[str, Path]) -> list[str]:
        """The overrides, with the folders of earlier stages in place of their names."""
        return [_PLACE.sub(lambda match: str(folders[match[1]]), text) for text in self.overrides]

    def unfilled(self) -> list[str]:
        """The overrides that name no earlier stage: what can be checked before one has run."""
        return [text for text in self.overrides if not _PLACE.search(text)]


@dataclass(frozen=True)
class Pipeline:
    """Stages in their order."""

    name: str
    path: Path
    stages: tuple[PipelineStage, ...]
    runs_dir: Path = field(default_factory=lambda: Path("runs"))
    start: str = ""
    """The stage that the table compares the others with; "": the first that measured something."""

    @property
    def folder(self) -> Path:
        """Of its runs."""
        return self.runs_dir / self.name


def is_pipeline(path: Path) -> bool:
    """Whether the file lists stages, and is no recipe. False where it cannot be read: a recipe's reader says why."""
    try:
        tree = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False
    return isinstance(tree, dict) and "stages" in tree


def load_pipeline(path: Path, overrides: Sequence[str] = ()) -> Pipeline:
    """Read a pipeline. `overrides`: `name=...` and `runs_dir=...` are its own, `STAGE:key=value` is of one stage, and
    `key=value` of every stage.

    Raises RecipeError with one line per mistake.
    """
    tree: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    errors = _unknown(tree, _KEYS, shown(path))
    own = dict(text.split("=", 1) for text in overrides if re.match("(name|runs_dir)=", text))
    rest = [text for text in overrides if not re.match("(name|runs_dir)=", text)]
    name = own.get("name", str(tree.get("name", "")))
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        errors.append(f"name is {name!r}: it names a folder; allowed letters, digits, then . _ - too ({shown(path)})")
    stages: list[PipelineStage] = []
    common = _texts(tree.get("set", []), "set", path, errors)
    listed = tree["stages"] if isinstance(tree["stages"], list) else []
    if not listed:
        errors.append(f"stages is {tree['stages']!r}: expected a list of stages with {', '.join(_STAGE_KEYS)}")
    for number, given in enumerate(listed):
        stage = _stage(given, f"stages[{number}]", path, [one.name for one in stages], common, errors)
        stages += [stage] if stage else []
    stages = [_overridden(stage, rest) for stage in stages]
    names = [stage.name for stage in stages]
    for text in rest:
        prefix = re.match(rf"({_NAME}):", text)
        if prefix and prefix[1] not in names:
            errors.append(f"override {text!r}: no stage {prefix[1]!r}; there is {', '.join(names)}")
    start = str(tree.get("start", ""))
    if start and start not in names:
        errors.append(f"start is {start!r}: no stage of that name; there is {', '.join(names)} ({shown(path)})")
    if errors:
        raise RecipeError("\n".join(errors))
    runs_dir = Path(own.get("runs_dir", str(tree.get("runs_dir", "runs"))))
    return Pipeline(name, path.resolve(), tuple(stages), runs_dir, start)


def _stage(
    given: Any, key: str, path: Path, earlier: Sequence[str], common: Sequence[str], errors: list[str]
) -> PipelineStage | None:
    if not isinstance(given, dict):
        errors.append(f"{key} is {given!r}: expected {', '.join(_STAGE_KEYS)} ({shown(path)})")
        return None
    wrong = _unknown(given, _STAGE_KEYS, f"{key} of {shown(path)}")
    name = str(given.get("name", ""))
    if not re.fullmatch(_NAME, name) or name in earlier:
        taken = "another stage has it" if name in earlier else "allowed letters, digits and _"
        wrong.append(f"{key}.name is {name!r}: {taken} ({shown(path)})")
    recipe = path.parent / str(given.get("recipe", ""))
    if not recipe.is_file():
        near = get_close_matches(recipe.name, [file.name for file in recipe.parent.glob("*.yaml")], n=1)
        hint = f"did you mean {near[0]}?" if near else "a path is relative to this file"
        wrong.append(f"{key}.recipe is {str(given.get('recipe'))!r}: no such file; {hint} ({shown(path)})")
    stage = PipelineStage(name, recipe, (*common, *_texts(given.get("set", []), f"{key}.set", path, wrong)))
    wrong += [
        f"{key}.set names {{{need}}}: no earlier stage; there is {', '.join(earlier) or 'none'} ({shown(path)})"
        for need in stage.needs
        if need not in earlier
    ]
    errors += wrong
    return None if wrong else stage


def _overridden(stage: PipelineStage, overrides: Sequence[str]) -> PipelineStage:
    own = [text.removeprefix(f"{stage.name}:") for text in overrides if _is_for(text, stage.name)]
    return PipelineStage(stage.name, stage.recipe, (*stage.overrides, *own))


def _is_for(text: str, stage: str) -> bool:
    prefix = re.match(rf"({_NAME}):", text)
    return prefix is None or prefix[1] == stage


def _texts(given: Any, key: str, path: Path, errors: list[str]) -> list[str]:
    if isinstance(given, list) and all(isinstance(text, str) for text in given):
        return given
    errors.append(f"{key} is {given!r}: expected a list of key=value ({shown(path)})")
    return []


def _unknown(given: Mapping[str, Any], known: Sequence[str], where: str) -> list[str]:
    found = []
    for key in given:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
            found.append(f"{key}: unknown key; {hint} ({where})")
    return found
