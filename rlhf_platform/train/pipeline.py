"""A pipeline: its stages run one after the other, each once, and a table of what they measured."""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import rlhf_platform
from rlhf_platform.evaluation.report import as_lines
from rlhf_platform.evaluation.speech import SpeechResult, hand_on, table
from rlhf_platform.recipe.algorithms import OnlineConfig
from rlhf_platform.recipe.files import recipe_files
from rlhf_platform.recipe.load import LoadedRecipe
from rlhf_platform.recipe.pipeline import Pipeline, PipelineStage
from rlhf_platform.recipe.preferences import PreferenceConfig
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.tracking.history import find_run
from rlhf_platform.tracking.progress import Display
from rlhf_platform.tracking.run_dir import RunDir
from rlhf_platform.train.beginning import begin
from rlhf_platform.train.links import fingerprint
from rlhf_platform.train.measures import BEFORE, last_label, last_speech
from rlhf_platform.train.run import carry_out

_PACKAGES = ("policies", "rewards", "rollout", "rlhf_platform")

Load = Callable[[PipelineStage, Sequence[str]], LoadedRecipe]
"""Reads and checks the recipe of a stage, with all its overrides."""


def run_pipeline(pipeline: Pipeline, load: Load) -> Path:
    """Run the stages that have not run yet; returns the folder that holds them.

    A stage that finished is skipped when its recipe, the stages it goes on from and the code are the same; one that
    was cut off is begun anew.
    """
    display = Display()
    folders: dict[str, Path] = {}
    digests: dict[str, str] = {}
    recipes: dict[str, Recipe] = {}
    for number, stage in enumerate(pipeline.stages, start=1):
        loaded = load(stage, stage.filled(folders))
        digests[stage.name] = _digest(stage, [digests[name] for name in stage.needs], loaded, folders)
        name = f"{stage.name}-{digests[stage.name]}"
        folder = (pipeline.folder / name).resolve()
        folders[stage.name], recipes[stage.name] = folder, loaded.recipe
        heading = f"stage {number}/{len(pipeline.stages)}, {stage.name}"
        if folder.is_dir() and find_run(folder, folder.parent).status.get("state") == "finished":
            display.line(f"{heading}: skipped, {folder} was made by the same recipe, stages and code")
            continue
        if folder.is_dir():
            RunDir.reopen(folder).release()  # refuses while another process runs it
            shutil.rmtree(folder)
        display.line(f"{heading}: {stage.recipe.name}")
        loaded = replace(loaded, recipe=replace(loaded.recipe, runs_dir=str(pipeline.folder)))
        begun = begin(loaded, name, loaded.recipe.steps)
        for before in stage.needs:
            _hand_on(recipes[before], folders[before], loaded.recipe, begun[1].path)
        carry_out(*begun, None)
    _report(pipeline, folders, display)
    return pipeline.folder


def _hand_on(before: Recipe, source: Path, recipe: Recipe, folder: Path) -> None:
    """Hand the last evaluation of the run `source` to a stage that trains its checkpoint on and measures alike."""
    measures = isinstance(recipe.algorithm, OnlineConfig | PreferenceConfig) and recipe.steps and not recipe.sft.steps
    same = recipe.backbone.path == str(source / "checkpoint") and _measured_by(before) == _measured_by(recipe)
    label = last_label(source)
    if measures and same and label:
        hand_on(source, label, folder, BEFORE)


def _measured_by(recipe: Recipe) -> list[Any]:
    """All but the weights that decides what an evaluation finds."""
    data, rollout, backbone = recipe.data, recipe.rollout, recipe.backbone
    sizes = [rollout.max_new_tokens, rollout.max_tokens, backbone.adapter, backbone.dtype, backbone.window]
    sections = [asdict(recipe.evaluation), asdict(recipe.speech)]
    return [recipe.branch, data.manifest, data.demo, data.eval_split, *sizes, *sections]


def _digest(stage: PipelineStage, earlier: Sequence[str], loaded: LoadedRecipe, folders: dict[str, Path]) -> str:
    """Names what a stage makes: eight hex digits that change with its recipe, its code and the stages before it."""
    recipe, data, judges = loaded.yaml, loaded.recipe.data, loaded.recipe.judges
    for name, folder in folders.items():
        recipe = recipe.replace(str(folder), f"{{{name}}}")
    named = [data.manifest, data.pairs, data.labelled, loaded.recipe.gate, loaded.recipe.sft.beside]
    named += [judge.calibration.pairs for judge in judges]
    own = [path for path in named if path and not _is_of(path, folders)]
    read = [*map(Path, own), *recipe_files(loaded, Path.cwd()).rewards.values(), *_code()]
    content = [hashlib.sha256(file.read_bytes()).hexdigest() for file in read]
    backbone = loaded.recipe.backbone.path
    weights = [] if backbone and _is_of(backbone, folders) else fingerprint(backbone)
    served = [[fingerprint(judge.model), fingerprint(judge.lora)] for judge in judges]
    parts = [recipe, *earlier, content, weights, served]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]


def _is_of(path: str, folders: dict[str, Path]) -> bool:
    """Whether an earlier stage made it, whose digest stands for it."""
    return any(Path(path).is_relative_to(folder) for folder in folders.values())


def _code() -> list[Path]:
    """All code that a run may call, rewards included."""
    root = Path(rlhf_platform.__file__).parents[1]
    return sorted(file for package in _PACKAGES for file in (root / package).rglob("*.py"))


def _report(pipeline: Pipeline, folders: dict[str, Path], display: Display) -> None:
    """The table of the stages that spoke, the start first, with which the others are compared."""
    spoke: dict[str, SpeechResult] = {}
    for name, folder in folders.items():
        found = last_speech(folder)
        if found is not None:
            spoke[name] = found
    if not spoke:
        return
    spoke = {name: spoke[name] for name in sorted(spoke, key=lambda name: name != pipeline.start)}
    shown = table(spoke, f"{pipeline.name}: held-out speech after each stage", 0.95, 10_000)
    display.show(shown)
    (pipeline.folder / "report.txt").write_text("\n".join(as_lines(shown)) + "\n", "utf-8")
    display.line(f"done: {pipeline.folder}; listen in its speech/ folders, compare with rlhf arena")
