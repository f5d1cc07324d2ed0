"""What a rank works on at once and how often, from the recipe's algorithm. Arithmetic only."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from rlhf_platform.planning.sizes import Sizes
from rlhf_platform.recipe.algorithms import PPO, OnlineConfig, OnlineDPO, ReinforcePP
from rlhf_platform.recipe.preferences import KTO, JudgedConfig, PreferenceConfig, RewardModel
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.recipe.validate_algorithm import per_forward

_LENGTHS = (1.0, 0.5, 0.25, 0.125)
"""Shares of the window. A budget lets more of shorter clips into a forward, so that they may be what takes most."""


@dataclass(frozen=True)
class Batch:
    """What a rank works on at once, at most, when clips are of one length."""

    rows: int
    clips: int
    seconds: float
    """Of each clip."""
    positions: int
    """Decoder positions of a row."""
    completion: int
    """Completion tokens of a row."""


@dataclass(frozen=True)
class Passes:
    """How often an answer goes through the models: in an RL step, or each time that offline training draws it."""

    forward: int
    """Through the policy, before it learns or beside it."""
    learning: int
    """Through the policy, forward and backward."""
    reference: int
    critic_forward: int = 0
    critic_learning: int = 0

    @property
    def forwards(self) -> int:
        """Of any of them."""
        return self.forward + self.learning + self.reference + self.critic_forward + self.critic_learning


def batches(recipe: Recipe, sizes: Sizes) -> Iterator[Batch]:
    """The largest of clips as long as the window, and where there are budgets also those of shorter ones."""
    learner, window = recipe.learner, recipe.backbone.window
    bounded = learner.micro_batch_tokens or learner.micro_batch_seconds
    for share in _LENGTHS if bounded and isinstance(recipe.algorithm, OnlineConfig) else (1.0,):
        yield batch_of(recipe, sizes, share * window)


def batch_of(recipe: Recipe, sizes: Sizes, seconds: float) -> Batch:
    """The largest of clips of `seconds`. Rows of like length stand together, so that the samples of a clip mostly are
    in one (`rlhf_platform.learner.micro_batches`)."""
    rollout, algorithm, learner = recipe.rollout, recipe.algorithm, recipe.learner
    positions = sizes.dimensions.prompt_tokens + sizes.dimensions.audio_tokens(seconds)
    positions = min(rollout.max_tokens, positions + rollout.max_new_tokens)
    if isinstance(algorithm, JudgedConfig):
        each = answers_of(algorithm)
        rows = each * per_forward(algorithm.batch_size // learner.workers, learner.micro_batch_size // each)
        # TRL's models take a clip for each row; ours, which the reward model is, know which rows share one.
        clips = rows // each if isinstance(algorithm, RewardModel) else rows
        return Batch(rows, clips, seconds, positions, rollout.max_new_tokens)
    assert isinstance(algorithm, OnlineConfig)
    together = 2 if isinstance(algorithm, OnlineDPO) else 1
    group = samples_of_prompt(recipe)
    units = rollout.prompts_per_step * group // together
    rows = min(learner.micro_batch_size, together * math.ceil(units / learner.workers / algorithm.minibatches))
    heard = rows
    if learner.micro_batch_tokens:
        rows = min(rows, learner.micro_batch_tokens // positions)
    if learner.micro_batch_seconds and sizes.dimensions.encoder:
        heard = max(1, int(learner.micro_batch_seconds / seconds))
        rows = min(rows, heard * group)
    rows = max(together, rows // together * together)
    return Batch(rows, min(rows, heard, math.ceil(rows / group) + 1), seconds, positions, rollout.max_new_tokens)


def samples_of_prompt(recipe: Recipe) -> int:
    """That the learner is given: all, or the best and the worst."""
    return 2 if isinstance(recipe.algorithm, OnlineDPO) else recipe.algorithm.group_size


def answers_of(algorithm: JudgedConfig) -> int:
    """Answers of one item of a batch: two of a pair."""
    return 1 if isinstance(algorithm, KTO) else 2


def makes_pairs(recipe: Recipe) -> bool:
    """Whether the policy's samples become the pairs of offline training."""
    return isinstance(recipe.algorithm, JudgedConfig) and recipe.data.pairs is None


def serves(recipe: Recipe) -> bool:
    """Whether there are rollout workers: all but a reward model from given pairs sample, or are evaluated."""
    return not isinstance(recipe.algorithm, RewardModel) or makes_pairs(recipe)


def rounds_of(recipe: Recipe) -> int:
    """Of offline training."""
    return recipe.algorithm.rounds if isinstance(recipe.algorithm, PreferenceConfig) else 1


def passes_of(recipe: Recipe) -> Passes:
    """A learner looks at samples before it learns from them where log-probs or values of then are needed."""
    algorithm = recipe.algorithm
    if not isinstance(algorithm, OnlineConfig):
        # KTO's KL is of each answer to another prompt, asked of policy and reference.
        moved = isinstance(algorithm, KTO) and algorithm.loss_type == "kto"
        return Passes(int(moved), 1, isinstance(algorithm, PreferenceConfig) + moved)
    epochs, held_to, has_critic = algorithm.epochs, algorithm.kl_coef > 0, isinstance(algorithm, PPO)
    looks = held_to or isinstance(algorithm, PPO | ReinforcePP) or epochs * algorithm.minibatches > 1
    return Passes(int(looks), epochs, int(held_to), int(has_critic), epochs if has_critic else 0)
