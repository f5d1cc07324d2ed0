"""What one RL step, or one round of offline training, is made of: samples, audio, tokens, arithmetic, and which phase
should take longest."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rlhf_platform.planning.actors import sync_bytes
from rlhf_platform.planning.batches import (
    answers_of,
    batch_of,
    makes_pairs,
    passes_of,
    rounds_of,
    samples_of_prompt,
)
from rlhf_platform.planning.observed import Clips
from rlhf_platform.planning.sizes import Sizes
from rlhf_platform.recipe.algorithms import PPO, OnlineConfig
from rlhf_platform.recipe.preferences import JudgedConfig, RewardModel
from rlhf_platform.recipe.schema import Recipe

RIDGE = {False: 16, True: 300}
"""Sequences that a decoding step serves in the time that it takes to read the weights once, without and with a GPU.

The roofline's ridge (doi:10.1145/1498765.1498785): arithmetic per second over bytes per second, at one operation a byte
of bfloat16. H100: 989e12 / 3.35e12. For a CPU a round figure of a few cores."""


@dataclass(frozen=True)
class Work:
    """One RL step, or one round. Seconds of audio are None while the data are not known."""

    prompts: int
    """That are sampled."""
    samples: int
    answers: int
    """That the learner goes through in one epoch, or in one round."""
    audio_seconds: float | None
    """Of the prompts' clips; each is heard once for all its samples."""
    most_audio_seconds: float
    """When every clip is as long as the window."""
    completion_tokens: int
    """At most."""
    learner_tokens: int
    """Decoder positions of them, at most."""
    optimiser_steps: int
    """Of the policy; a critic has as many."""
    sync_bytes: int
    """To each rollout worker."""
    arithmetic: Mapping[str, float]
    """Operations of rollout and update on one worker or rank."""

    @property
    def bottleneck(self) -> str:
        return max(self.arithmetic, key=lambda phase: self.arithmetic[phase])

    @property
    def ratio(self) -> float:
        """Of the longest phase to the next."""
        first, second = sorted(self.arithmetic.values(), reverse=True)[:2]
        return first / second if second else float("inf")


def work_of(recipe: Recipe, sizes: Sizes, clips: Clips | None) -> Work:
    """`clips`: those that RL draws from, None when that is not known."""
    rollout, window = recipe.rollout, recipe.backbone.window
    prompts = prompts_of(recipe, clips.number if clips else None)
    answers, steps = answers_and_steps(recipe)
    samples = prompts * recipe.algorithm.group_size
    arithmetic = {
        "rollout": rollout_operations(recipe, sizes, prompts),
        "update": update_operations(recipe, sizes),
    }
    return Work(
        prompts=prompts,
        samples=samples,
        answers=answers,
        audio_seconds=None if clips is None else prompts * clips.mean_seconds,
        most_audio_seconds=prompts * window if sizes.dimensions.encoder else 0.0,
        completion_tokens=samples * rollout.max_new_tokens,
        learner_tokens=answers * batch_of(recipe, sizes, window).positions,
        optimiser_steps=steps,
        sync_bytes=sync_bytes(recipe, sizes),
        arithmetic=arithmetic,
    )


def prompts_of(recipe: Recipe, clips: int | None) -> int:
    """Prompts that a step or a round samples. Of a round that takes what there is, `clips` dealt out over the rounds;
    when that is not known, as many as it learns from."""
    algorithm, at_once = recipe.algorithm, recipe.rollout.prompts_per_step
    if not isinstance(algorithm, JudgedConfig):
        return at_once
    if not makes_pairs(recipe):
        return 0
    learnt = answers_and_steps(recipe)[0] // 2
    return algorithm.pairs_per_round or (learnt if clips is None else clips // rounds_of(recipe) // at_once * at_once)


def answers_and_steps(recipe: Recipe) -> tuple[int, int]:
    """Answers that all ranks learn from in an epoch or a round, and optimiser steps of a step or a round."""
    algorithm = recipe.algorithm
    if isinstance(algorithm, OnlineConfig):
        answers = recipe.rollout.prompts_per_step * samples_of_prompt(recipe)
        return answers, algorithm.epochs * algorithm.minibatches
    assert isinstance(algorithm, JudgedConfig)
    steps = math.ceil(recipe.steps / rounds_of(recipe))
    return steps * algorithm.batch_size * answers_of(algorithm), steps


def rollout_operations(recipe: Recipe, sizes: Sizes, prompts: float) -> float:
    """Of one worker: 2 x parameters x positions (2001.08361, section 2.1) for encoder and prompts, once a prompt, and
    for each decoding step of all sequences at once, or of `RIDGE` when there are fewer, since a step reads all weights.

    `prompts`: of all workers.
    """
    rollout = recipe.rollout
    prompts /= rollout.workers
    samples = prompts * recipe.algorithm.group_size
    if not samples:
        return 0.0
    heard = prompts * encoder_operations(sizes, recipe.backbone.window)
    read = prompts * (sizes.dimensions.prompt_tokens + sizes.dimensions.audio_tokens(recipe.backbone.window))
    at_once = min(samples, rollout.max_sequences)
    rounds = samples / at_once
    written = rounds * rollout.max_new_tokens * max(at_once, RIDGE[bool(rollout.gpus)])
    return heard + 2 * _decoder(sizes) * read + 2 * (_decoder(sizes) + sizes.head) * written


def update_operations(recipe: Recipe, sizes: Sizes) -> float:
    """Of one rank: 2 x parameters x positions forward, as much again for the gradients of activations, and of weights
    where they are trained; a forward more for activations that are computed anew. A critic has no output head, and on
    a frozen trunk no backward pass."""
    algorithm, learner = recipe.algorithm, recipe.learner
    batch, passes = batch_of(recipe, sizes, recipe.backbone.window), passes_of(recipe)
    answers = answers_and_steps(recipe)[0] / learner.workers
    layers = 2 * answers * _decoder(sizes) * batch.positions
    head = 0.0 if isinstance(algorithm, RewardModel) else 2 * answers * sizes.head * batch.completion
    each = 2 if learner.lora.rank else 3
    of_policy = (layers + head) * (passes.forward + each * passes.learning + passes.reference)
    copy = isinstance(algorithm, PPO) and algorithm.critic == "copy"
    learning = passes.learning + (passes.critic_learning if copy else 0)
    anew = layers * learning * learner.activation_checkpointing
    of_critic = layers * (passes.critic_forward + (3 if copy else 1) * passes.critic_learning)
    heard = answers * encoder_passes(recipe, sizes) * encoder_operations(sizes, recipe.backbone.window)
    return of_policy + anew + of_critic + heard


def encoder_passes(recipe: Recipe, sizes: Sizes) -> float:
    """Through the encoder, for each answer: a clip that several answers share is encoded once in a forward, and once in
    a step where its output is kept, that of a frozen encoder in RL below ZeRO 3."""
    algorithm, learner, passes = recipe.algorithm, recipe.learner, passes_of(recipe)
    if isinstance(algorithm, OnlineConfig):
        sharing = samples_of_prompt(recipe)
        if learner.freeze_encoder and learner.zero_stage < 3:
            return 1 / sharing
    else:
        sharing = 2 if isinstance(algorithm, RewardModel) else 1
    learning = passes.learning if sizes.trainable["encoder"] else 0
    if isinstance(algorithm, PPO) and algorithm.critic == "copy" and sizes.critic["encoder"]:
        learning += passes.critic_learning
    return (passes.forwards + 2 * learning) / sharing


def encoder_operations(sizes: Sizes, seconds: float) -> float:
    """Of one pass over one clip: parameters times positions, and attention between all positions."""
    positions = sizes.dimensions.encoder_positions(seconds)
    if sizes.dimensions.encoder is None:
        return 0.0
    layers = sizes.dimensions.encoder.layers
    return 2.0 * positions * (sizes.total["encoder"] + 2 * positions * layers.count * layers.attention_width)


def _decoder(sizes: Sizes) -> int:
    """Parameters that every position goes through; the embedding is looked up."""
    return sizes.total["decoder"] + sizes.total["adaptor"] + sizes.total["LoRA"]
