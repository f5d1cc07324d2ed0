"""What one RL step is made of: samples, audio, tokens, arithmetic, and which phase should take longest."""

from collections.abc import Mapping
from dataclasses import dataclass

from rlhf_platform.planning.actors import has_reference, micro_batch_of, sync_bytes
from rlhf_platform.planning.sizes import Sizes
from rlhf_platform.recipe.schema import Recipe

RIDGE = {False: 16, True: 300}
"""Sequences that a decoding step serves in the time that it takes to read the weights once, without and with a GPU.

The roofline's ridge (doi:10.1145/1498765.1498785): arithmetic per second over bytes per second, at one operation a byte
of bfloat16. H100: 989e12 / 3.35e12. For a CPU a round figure of a few cores."""


@dataclass(frozen=True)
class Work:
    """One RL step. Seconds of audio are None while the data are not known."""

    prompts: int
    samples: int
    audio_seconds: float | None
    """Of the prompts' clips; each is heard once for all its samples."""
    most_audio_seconds: float
    """When every clip is as long as the window."""
    completion_tokens: int
    """At most."""
    learner_tokens: int
    """Decoder positions that the learner goes through in one epoch, at most."""
    optimiser_steps: int
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


def work_of(recipe: Recipe, sizes: Sizes, mean_seconds: float | None) -> Work:
    """`mean_seconds`: length of a clip that RL draws, None when that is not known."""
    rollout, algorithm = recipe.rollout, recipe.algorithm
    prompts, samples = rollout.prompts_per_step, rollout.prompts_per_step * algorithm.group_size
    batch = micro_batch_of(recipe, sizes)
    return Work(
        prompts=prompts,
        samples=samples,
        audio_seconds=None if mean_seconds is None else prompts * mean_seconds,
        most_audio_seconds=prompts * recipe.backbone.window if sizes.dimensions.encoder else 0.0,
        completion_tokens=samples * rollout.max_new_tokens,
        learner_tokens=samples * batch.positions,
        optimiser_steps=algorithm.epochs * algorithm.minibatches,
        sync_bytes=sync_bytes(recipe, sizes),
        arithmetic={"rollout": rollout_operations(recipe, sizes), "update": update_operations(recipe, sizes)},
    )


def rollout_operations(recipe: Recipe, sizes: Sizes) -> float:
    """Of one worker: 2 x parameters x positions (2001.08361, section 2.1) for encoder and prompts, once a prompt, and
    for each decoding step of all sequences at once, or of `RIDGE` when there are fewer, since a step reads all weights.
    """
    rollout = recipe.rollout
    prompts = rollout.prompts_per_step / rollout.workers
    samples = prompts * recipe.algorithm.group_size
    heard = prompts * encoder_operations(sizes, recipe.backbone.window)
    read = prompts * (sizes.dimensions.prompt_tokens + sizes.dimensions.audio_tokens(recipe.backbone.window))
    at_once = min(samples, rollout.max_sequences)
    rounds = samples / at_once
    written = rounds * rollout.max_new_tokens * max(at_once, RIDGE[bool(rollout.gpus)])
    return heard + 2 * _decoder(sizes) * read + 2 * (_decoder(sizes) + sizes.head) * written


def update_operations(recipe: Recipe, sizes: Sizes) -> float:
    """Of one rank: 2 x parameters x positions forward, as much again for the gradients of activations, and of weights
    where they are trained; a forward more for the reference of the KL and for old log-probs of several minibatches."""
    algorithm, learner = recipe.algorithm, recipe.learner
    batch = micro_batch_of(recipe, sizes)
    samples = recipe.rollout.prompts_per_step * algorithm.group_size / learner.workers
    forward = 2 * samples * (_decoder(sizes) * batch.positions + sizes.head * batch.completion)
    passes = algorithm.epochs * (2 if learner.lora.rank else 3)
    passes += has_reference(recipe) or (algorithm.kl_coef > 0)
    passes += algorithm.minibatches > 1
    clips = samples / algorithm.group_size
    trained = 3 * algorithm.epochs if sizes.trainable["encoder"] else 1
    return forward * passes + trained * clips * encoder_operations(sizes, recipe.backbone.window)


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
