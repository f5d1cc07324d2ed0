"""The smallest real run of a recipe: its set-up, and one step with two prompts."""

import math

from rlhf_platform.recipe.algorithms import PPO, OnlineConfig, OnlineDPO
from rlhf_platform.recipe.preferences import JudgedConfig, MakePairs, PreferenceConfig
from rlhf_platform.recipe.schema import Recipe

PROMPTS = 2
"""In the step, or the next number that divides over the workers."""


def dry_run_overrides(recipe: Recipe) -> list[str]:
    """Overrides that leave models, actors and rewards as they are and shrink the work."""
    workers, algorithm = recipe.rollout.workers, recipe.algorithm
    parts = recipe.learner.workers * (algorithm.minibatches if isinstance(algorithm, OnlineConfig) else 1)
    group = 1 if isinstance(algorithm, OnlineDPO) else algorithm.group_size
    each = math.lcm(workers, parts // math.gcd(parts, group))
    prompts = math.ceil(PROMPTS / each) * each
    return [
        f"name={recipe.name}-dry-run",
        f"steps={0 if isinstance(algorithm, MakePairs) else 1}",
        f"align.steps={min(recipe.align.steps, 1)}",
        f"sft.steps={min(recipe.sft.steps, 1)}",
        f"mtp.steps={min(recipe.mtp.steps, 1)}",
        f"mtp.joint_steps={min(recipe.mtp.joint_steps, 1)}",
        f"rollout.prompts_per_step={prompts}",
        f"evaluation.max_clips={PROMPTS}",
        "evaluation.every=0",
        "rehearsal.metric=''",
        "gate=null",
        "checkpoint.best_by=reward",
        "tracking.wandb=off",
        *_of_algorithm(recipe, prompts),
    ]


def _of_algorithm(recipe: Recipe, prompts: int) -> list[str]:
    """What an algorithm needs to fit into the one step."""
    algorithm = recipe.algorithm
    if isinstance(algorithm, PPO):
        return ["algorithm.critic_warmup=0"]
    if isinstance(algorithm, MakePairs):
        return [f"algorithm.prompts={prompts}", "algorithm.margin=0"]
    rounds = ["algorithm.rounds=1"] if isinstance(algorithm, PreferenceConfig) else []
    makes_pairs = isinstance(algorithm, JudgedConfig) and recipe.data.pairs is None
    return rounds + ([f"algorithm.pairs_per_round={prompts}"] if makes_pairs else [])
