"""What can be said of a term of the reward by its keys alone."""

import math
import re

from rlhf_platform.recipe.expressions import EvaluationError, parse
from rlhf_platform.recipe.judges import JudgeConfig
from rlhf_platform.recipe.schema import Recipe, RewardConfig


def reward_name(reward: RewardConfig) -> str:
    """The name of a term in metrics, tables and gates: its own, else its function's, else the last part of its url."""
    if reward.name or reward.fn:
        return reward.name or reward.fn.rpartition(":")[2]
    return re.split("[?#]", reward.url)[0].rstrip("/").rpartition("/")[2]


def names_function(fn: str) -> bool:
    """Whether `fn` has the form `package.module:name` or `file.py:name`."""
    source, _, function = fn.rpartition(":")
    return bool(source) and function.isidentifier()


def weight_at(reward: RewardConfig, step: int) -> float:
    """The factor of a term in an RL step, numbered from 1: its weight, times its schedule when it has one.

    Raises `EvaluationError` when the schedule has no value there.
    """
    if not reward.schedule:
        return reward.weight
    weight = reward.weight * parse(reward.schedule).evaluate({"step": step})
    if not math.isfinite(weight):
        raise EvaluationError("beyond the range of a float")
    return weight


def reward_reservation(recipe: Recipe) -> tuple[float, float]:
    """Cores and GPUs of one reward worker: its own, and those of its rewards."""
    rewards = [*recipe.rewards, *recipe.evaluation.rewards]
    return recipe.scoring.cpus + sum(r.cpus for r in rewards), sum(r.gpus for r in rewards)


def codec_workers(recipe: Recipe) -> int:
    """Actors that make sound of tokens; none where the policy writes text."""
    return recipe.speech.workers if recipe.branch == "tts" else 0


def served_judges(recipe: Recipe) -> list[JudgeConfig]:
    """Those that the platform serves itself, an actor each."""
    return [judge for judge in recipe.judges if not judge.url]


def light_cores(recipe: Recipe) -> int:
    """Cores that a local cluster has on top of `cluster.cpus`, for the actors that need a part of one each."""
    codec = codec_workers(recipe) * recipe.speech.cpus
    judges = sum(judge.cpus for judge in served_judges(recipe) if judge.cpus < 1)
    return math.ceil(recipe.scoring.workers * recipe.scoring.cpus + codec + judges)
