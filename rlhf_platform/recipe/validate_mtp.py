"""What heads of multi-token prediction ask of the rest of a recipe. Imports no torch."""

from collections.abc import Iterator
from pathlib import Path

from rlhf_platform.recipe.algorithms import OnlineConfig
from rlhf_platform.recipe.mtp import MTP_ADAPTERS
from rlhf_platform.recipe.schema import Recipe

Problem = tuple[str, str]
"""The key that is to be changed, and what is wrong with its value."""


def fitting(recipe: Recipe) -> Iterator[Problem]:
    """Heads that are to be fitted."""
    mtp, workers = recipe.mtp, recipe.learner.workers
    fits = [name for name in ("steps", "joint_steps") if getattr(mtp, name)]
    if fits and recipe.backbone.adapter not in MTP_ADAPTERS:
        yield f"mtp.{fits[0]}", f"{_of_another_layout(recipe)}; allowed only 0"
    if fits and mtp.batch_size % workers:
        yield "mtp.batch_size", f"learner.workers is {workers}; allowed its multiples"
    if mtp.refit_below and recipe.rollout.speculative != "mtp":
        yield "mtp.refit_below", "nothing drafts with the heads; set rollout.speculative=mtp, or leave this out"


def drafting(recipe: Recipe) -> Iterator[Problem]:
    """Heads that are to draft in rollouts."""
    if recipe.rollout.speculative != "mtp":
        return
    if recipe.backbone.adapter not in MTP_ADAPTERS:
        yield "rollout.speculative", f"{_of_another_layout(recipe)}; allowed only none"
    elif recipe.mtp.steps + recipe.mtp.joint_steps == 0 and not _may_have_heads(recipe.backbone.path):
        where = (
            f"backbone.path={recipe.backbone.path} has none (no folder mtp)" if recipe.backbone.path else "it is new"
        )
        yield "rollout.speculative", f"no heads: {where}, and mtp.steps is 0; set mtp.steps, or none here"
    if recipe.steps and not isinstance(recipe.algorithm, OnlineConfig):
        said = f"algorithm.type={recipe.algorithm.type} learns in rounds, which heads do not follow; allowed only none"
        yield "rollout.speculative", said
    if recipe.learner.lora.rank:
        said = (
            f"learner.lora.rank is {recipe.learner.lora.rank}, and the heads are for whole weights; allowed only none"
        )
        yield "rollout.speculative", said
    if recipe.learner.zero_stage == 3:
        yield "rollout.speculative", "learner.zero_stage is 3, which splits what the heads share; allowed 0 to 2 there"


def _of_another_layout(recipe: Recipe) -> str:
    return f"backbone.adapter is {recipe.backbone.adapter}, the heads are for {', '.join(MTP_ADAPTERS)}"


def _may_have_heads(path: str | None) -> bool:
    """A checkpoint on a hub, or on another machine, may have some; that is looked at when it is loaded."""
    return path is not None and (Path(path, "mtp", "config.json").is_file() or not Path(path).is_dir())
