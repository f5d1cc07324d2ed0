"""A run that is a Ray job: each machine has a copy of its working directory, at a place of its own."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import ray

from rlhf_platform.recipe.load import LoadedRecipe
from rlhf_platform.recipe.schema import RewardConfig


def reward_arguments(loaded: LoadedRecipe) -> tuple[list[RewardConfig], list[RewardConfig], str]:
    """`rewards`, `evaluation.rewards` and the folder of their files, as a reward worker on any machine finds them."""
    rewards, evaluation = loaded.recipe.rewards, loaded.recipe.evaluation.rewards
    if not ray.get_runtime_context().runtime_env.get("working_dir"):
        return list(rewards), list(evaluation), str(loaded.base_dir)
    # Ray starts workers in their machine's copy of the directory that this process was started in.
    return _from_here(rewards), _from_here(evaluation), "."


def _from_here(rewards: Sequence[RewardConfig]) -> list[RewardConfig]:
    here = f"{Path.cwd()}/"
    return [replace(reward, fn=reward.fn.removeprefix(here)) for reward in rewards]
