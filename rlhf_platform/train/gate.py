"""The regression gate: evaluations of other branches, before and after, that must not fall by more than is allowed."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import rlhf_platform
from policies.mtp.heads import check_folder
from policies.speaking import FILE, SpeechLayout
from rlhf_platform.errors import RecipeError, RunError
from rlhf_platform.evaluation.gate_entries import GateEntry, Load, check_gate, column_of, grouped, is_higher_better
from rlhf_platform.evaluation.measured import Measured, read_measured
from rlhf_platform.evaluation.regression import GateResult, gate_json, gate_table, judged
from rlhf_platform.recipe.files import recipe_files
from rlhf_platform.recipe.load import LoadedRecipe, load_recipe
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.recipe.sources import shown
from rlhf_platform.tracking.progress import Display
from rlhf_platform.train.evaluate import evaluate_checkpoint, policy_in
from rlhf_platform.train.links import fingerprint
from rlhf_platform.train.preparing.prepare import fitted
from rlhf_platform.train.preparing.speech import hearing, speaking

REPORT = "gate.json"
_PACKAGES = ("policies", "rewards", "rollout", "rlhf_platform")


def run_gate(
    entries: Sequence[GateEntry], before: str, after: str, runs_dir: Path, display: Display, load: Load = load_recipe
) -> list[GateResult]:
    """Evaluate two checkpoints with each entry's recipe, show the table and write `gate.json` to `runs_dir`.

    `before`, `after`: as `policy_in` takes them. `load`: of recipes that were checked in full before, `load_recipe`.
    All recipes and both checkpoints are looked at before the first evaluation. An evaluation is kept in the recipe's
    `cache_dir` and done again when recipe, manifest, rewards, weights or code have changed. Raises RecipeError with
    every mistake of the entries, RunError when a checkpoint holds no model.
    """
    recipes = check_gate(entries, load)
    groups = grouped(entries)
    models = [
        [_ready(loaded.recipe, checkpoint, before, display) for checkpoint in (before, after)] for loaded in recipes
    ]
    results: dict[GateEntry, GateResult] = {}
    for loaded, pair, asked in zip(recipes, models, groups.values(), strict=True):
        found = [
            _evaluated(loaded, model, side, runs_dir, display)
            for model, side in zip(pair, ("before", "after"), strict=True)
        ]
        results |= {entry: _result(entry, loaded, *found) for entry in asked}
    told = [results[entry] for entry in entries]
    display.show(gate_table(told))
    runs_dir.mkdir(parents=True, exist_ok=True)
    (runs_dir / REPORT).write_text(gate_json(told, before, after), "utf-8")
    display.line(f"gate: {sum(not each.passed for each in told)} of {len(told)} fell, in {runs_dir / REPORT}")
    return told


def _ready(recipe: Recipe, checkpoint: str, start: str, display: Display) -> str:
    """The model in a checkpoint as the recipe's branch takes it. Raises RecipeError when it cannot do the branch."""
    model = policy_in(checkpoint)
    if recipe.branch != "tts":
        model = str(hearing(recipe, model))
        fitted(recipe, model, display)
        if recipe.rollout.speculative == "mtp":
            check_folder(Path(model))
        return model
    if SpeechLayout.read(model) is None and SpeechLayout.read(policy_in(start)) is None:
        raise RecipeError(
            f"{recipe.name} is of branch tts: {checkpoint} has no {FILE}, nor has the checkpoint before it: it has not "
            "learnt to speak; leave the entry out, or train on from a checkpoint of a TTS run"
        )
    speaking(recipe, fitted(recipe, model, display), [])
    return model


def _evaluated(loaded: LoadedRecipe, model: str, side: str, runs_dir: Path, display: Display) -> Measured:
    """The evaluation of a checkpoint, done once."""
    recipe = loaded.recipe
    known = fingerprint(model)
    kept = Path(recipe.cache_dir, "gate", f"{_digest([*_decides(loaded), model, known])}.json")
    if known and kept.is_file():  # of a name on a hub it is not known what is behind it
        display.line(f"gate: {recipe.name} {side}: skipped, {kept} was measured with the same recipe, weights and code")
        return Measured.from_json(kept.read_text("utf-8"))
    named = replace(recipe, name=f"{recipe.name}-{side}", runs_dir=str(runs_dir))
    found = read_measured(evaluate_checkpoint(replace(loaded, recipe=named), model), recipe.branch)
    kept.parent.mkdir(parents=True, exist_ok=True)
    draft = kept.with_suffix(".new")
    draft.write_text(found.to_json(), "utf-8")
    draft.replace(kept)
    return found


def _result(entry: GateEntry, loaded: LoadedRecipe, before: Measured, after: Measured) -> GateResult:
    column, config = column_of(loaded.recipe, entry.metric), loaded.recipe.evaluation
    if column not in before.columns:
        there = ", ".join(before.columns)
        raise RunError(f"{before.folder}: metric {entry.metric!r} was not measured; there is {there}")
    found = judged(
        shown(entry.recipe),
        column,
        before.columns[column],
        after.columns.get(column, {}),
        higher_is_better=is_higher_better(column, entry.higher_is_better),
        max_drop=entry.max_drop,
        resamples=config.bootstrap_samples,
        confidence=config.confidence,
        sessions=before.sessions,
    )
    return replace(found, evaluations=(before.folder, after.folder))


def _decides(loaded: LoadedRecipe) -> list[str]:
    """What decides an evaluation beside the weights: recipe, manifest, rewards, judges, code."""
    manifest = loaded.recipe.data.manifest
    files = [*([Path(manifest)] if manifest else []), *recipe_files(loaded, Path.cwd()).rewards.values()]
    judges = [fingerprint(folder) for judge in loaded.recipe.judges for folder in (judge.model, judge.lora)]
    content = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    return [loaded.yaml, *content, _digest(judges), _code()]


@cache
def _code() -> str:
    """Digest of all code that an evaluation may call."""
    root = Path(rlhf_platform.__file__).parents[1]
    files = sorted(file for package in _PACKAGES for file in (root / package).rglob("*.py"))
    return _digest([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])


def _digest(parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
