"""What a recipe says of its judges, as those who ask them need it."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from rewards.judge.server import JudgeServer
from rewards.judge.settings import JudgeSettings
from rlhf_platform.data import demo
from rlhf_platform.data.dialogues import LABELLED
from rlhf_platform.data.labelled import Labelled, read_labelled
from rlhf_platform.errors import RecipeError
from rlhf_platform.evaluation.calibration import calibration
from rlhf_platform.recipe.judges import JudgeConfig
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.tracking.progress import Display
from rlhf_platform.train.judging.calibrating import Demand, calibrated, spread, summary
from rlhf_platform.train.judging.drift import Watched
from rlhf_platform.train.judging.judges import server_settings
from rlhf_platform.train.links import fingerprint

PREFERENCE = "Preference"
"""The reward that asks a judge which of two replies is better."""

WITH_PAIRS = ("dialogue",)
"""Demo sets that have labelled replies beside their manifest."""


def demand_of(recipe: Recipe, judge: JudgeConfig) -> Demand:
    """What a judge of the recipe is held to."""
    number = next(i for i, each in enumerate(recipe.judges) if each.name == judge.name)
    keeps = _kwargs(recipe, judge).get("abstain", "keep") == "keep"
    return Demand(judge.name, f"judges[{number}]", judge.calibration, keeps)


def settings_of(recipe: Recipe, judge: JudgeConfig, url: str) -> JudgeSettings:
    """How the recipe's first preference that names the judge asks it, or else by default. Raises `RecipeError`."""
    known = {field.name for field in fields(JudgeSettings)}
    kwargs = {name: value for name, value in _kwargs(recipe, judge).items() if name in known}
    named = {"api_key_env": judge.api_key_env, "model": judge.model if judge.url else ""}
    return JudgeSettings(**{**named, **kwargs, "judge": url})


def _kwargs(recipe: Recipe, judge: JudgeConfig) -> Mapping[str, Any]:
    rewards = [*recipe.rewards, *recipe.evaluation.rewards]
    asking = [reward for reward in rewards if reward.judge == judge.name and reward.fn.endswith(f":{PREFERENCE}")]
    return asking[0].kwargs if asking else {}


def server_of(recipe: Recipe, judge: JudgeConfig) -> JudgeServer:
    """The server of a judge that has a `model`, not started."""
    return JudgeServer(**server_settings(judge, recipe))


def pairs_of(recipe: Recipe, judge: JudgeConfig) -> list[Labelled] | None:
    """The labelled replies that a judge is measured on, at most `limit`; None where there are none.

    Those of a demo set are there once it is built. Raises `DataError` for bad rows and for a file that is not there.
    """
    wanted, name = judge.calibration, recipe.data.demo
    file = wanted.pairs
    if file is None and name in WITH_PAIRS:
        file = str(demo.folder_of(name, recipe.cache_dir) / LABELLED)
    return None if file is None else spread(read_labelled(file, wanted.split), wanted.limit)


def check_judges(recipe: Recipe, addresses: Mapping[str, str], display: Display) -> list[Watched]:
    """Measure every judge that the recipe demands something of. Raises `RunError` when one does not meet it.

    `addresses`: where each answers, by its name. Returns those that are to be asked again on the way.
    """
    watched = []
    for judge in recipe.judges:
        demand, wanted = demand_of(recipe, judge), judge.calibration
        if wanted.pairs is None and not wanted.minimum and wanted.max_order_bias == 1.0 and not wanted.every:
            continue
        pairs = pairs_of(recipe, judge)
        if pairs is None:
            key = f"{demand.key}.calibration"
            raise RecipeError(f"{key}: there are no labelled replies to measure {judge.name!r} on; set {key}.pairs")
        model = [judge.model or judge.url, judge.lora, fingerprint(judge.model), fingerprint(judge.lora)]
        settings = settings_of(recipe, judge, addresses[judge.name])
        with display.phase(f"ask judge {judge.name}", len(pairs)) as phase:
            folder = Path(recipe.cache_dir, "judges")
            found = calibrated(demand, settings, pairs, model, folder, lambda done, _: phase.update(done))
        display.line(summary(judge.name, calibration(found)))
        if wanted.every:
            watched.append(Watched(judge.name, wanted.every, settings, pairs, found.rulings))
    return watched
