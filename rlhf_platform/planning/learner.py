"""Memory of a learner rank: policy, reference and critic, or a trainer of offline training. Arithmetic only."""

import math

from policies.dimensions import FRAME_RATE
from rlhf_platform.planning import activations, zero
from rlhf_platform.planning.actors import (
    CUDA_CONTEXT,
    PROCESS,
    TRAINER,
    ActorMemory,
    head_parameters,
    sync_bytes,
    weight_bytes,
)
from rlhf_platform.planning.batches import Batch, batches, makes_pairs, rounds_of
from rlhf_platform.planning.sizes import Sizes
from rlhf_platform.recipe.algorithms import PPO, OnlineConfig
from rlhf_platform.recipe.preferences import JudgedConfig, PreferenceConfig, RewardModel
from rlhf_platform.recipe.schema import Recipe

KEPT_CLIPS = 256
"""Clips whose encoder output, or features, the learner keeps (`rlhf_platform.learner.clips`)."""
TRAINER_CLIPS = 8192
"""Clips whose features a trainer keeps (`rlhf_platform.learner.collators`)."""
_NOTHING = zero.State(0, 0, 0, 0)


def learner_memory(recipe: Recipe, sizes: Sizes, clips: int | None = None) -> ActorMemory:
    """One rank. `clips`: those that RL draws from, None when that is not known.

    Most is needed either in a backward pass (gradients of earlier micro-batches and activations of this one), or in the
    optimiser's step, or in a sync; `buffers` is what the last two need beyond the room of the first. Policy and critic
    take turns: their states add up, their activations and steps do not.
    """
    learner, dtype = recipe.learner, weight_bytes(recipe)
    policy, critic = policy_state(recipe, sizes), critic_state(recipe, sizes)
    count = head_parameters(recipe, sizes)
    heads = _state(recipe, count, count, count) if count else _NOTHING
    offline = isinstance(recipe.algorithm, JudgedConfig)
    sent = 0 if offline else sync_bytes(recipe, sizes)
    layers, kept = _activations(recipe, sizes)
    step = max(policy.step, critic.step)
    found_clips = _kept_clips(recipe, sizes, clips)
    parts = {
        "weights": policy.weights,
        "gradients": policy.gradients,
        "optimiser": policy.optimiser,
        "reference": reference_bytes(recipe, sizes),
        "heads": heads.weights + heads.gradients + heads.optimiser,
        "critic": critic.weights + critic.gradients + critic.optimiser,
        "clips": found_clips,
        "activations": kept,
    }
    process = PROCESS["learner"] + (TRAINER if offline else 0)
    if learner.gpus:
        host = {"process": process, "weights": dtype * sizes.parameters, "sync": 2 * sent}
        if offloaded := policy.host + critic.host:
            host["offload"] = offloaded
        if offline:
            host["clips"], parts["clips"] = found_clips, 0  # a trainer moves features with their batch
        parts["buffers"] = max(0, step - kept)
        return ActorMemory("learner", learner.workers, parts | {"process": CUDA_CONTEXT}, host)
    parts["buffers"] = max(0, step - kept, 2 * sent - policy.gradients - kept)
    parts["heap"] = activations.heap(sizes.dimensions, layers)
    return ActorMemory("learner", learner.workers, {}, parts | {"process": process})


def policy_state(recipe: Recipe, sizes: Sizes) -> zero.State:
    """Of the model that is trained. A reward model has a value head besides, and learns no output head of its own."""
    if isinstance(recipe.algorithm, RewardModel):
        width = sizes.dimensions.decoder.width
        trained = sizes.trained - sizes.trainable["head"] + width
        return _state(recipe, sizes.parameters + width, trained, sizes.largest)
    return _state(recipe, sizes.parameters, sizes.trained, sizes.largest)


def critic_state(recipe: Recipe, sizes: Sizes) -> zero.State:
    """Of the critic: a copy of the warm start without LoRA, or a head alone on a frozen one."""
    algorithm, width = recipe.algorithm, sizes.dimensions.decoder.width
    if not isinstance(algorithm, PPO):
        return _NOTHING
    linear = width + 1
    if algorithm.critic == "copy":
        return _state(recipe, sizes.weights + linear, sum(sizes.critic.values()) + linear, sizes.critic_largest)
    head = width * width + width + linear
    return _state(recipe, head + (0 if shares_trunk(recipe) else sizes.weights), head, width * width)


def shares_trunk(recipe: Recipe) -> bool:
    """Whether a critic's trunk is the reference's copy, which must not move or be divided (`learner.reference`)."""
    algorithm = recipe.algorithm
    still = isinstance(algorithm, OnlineConfig) and not algorithm.reference_every
    return has_reference(recipe) and still and recipe.learner.zero_stage < 3


def has_reference(recipe: Recipe) -> bool:
    """Whether the learner holds a second copy of the weights for the KL; in RL with LoRA they are below it anyway."""
    if isinstance(recipe.algorithm, OnlineConfig):
        return recipe.algorithm.kl_coef > 0 and not recipe.learner.lora.rank
    return isinstance(recipe.algorithm, PreferenceConfig)


def reference_bytes(recipe: Recipe, sizes: Sizes) -> int:
    """The copy is whole on every rank; TRL's trainers divide it at ZeRO 3."""
    if not has_reference(recipe):
        return 0
    if isinstance(recipe.algorithm, OnlineConfig) or recipe.learner.zero_stage < 3:
        return weight_bytes(recipe) * sizes.weights
    return _state(recipe, sizes.weights, 0, 0).weights


def _state(recipe: Recipe, parameters: int, trained: int, largest: int) -> zero.State:
    learner = recipe.learner
    return zero.state(
        parameters,
        trained,
        largest,
        learner.zero_stage,
        learner.workers,
        weight_bytes(recipe),
        on_gpu=bool(learner.gpus),
        optimizer=learner.optimizer,
        offload=learner.offload if learner.gpus else "none",
    )


def _activations(recipe: Recipe, sizes: Sizes) -> tuple[int, int]:
    """What the layers keep for backward, and that with the head: the most of policy and critic and any batch."""
    found = [_of_policy(recipe, sizes, batch) for batch in batches(recipe, sizes)]
    if isinstance(recipe.algorithm, PPO) and recipe.algorithm.critic == "copy":
        found += [(kept, kept) for kept in (_of_critic(recipe, sizes, batch) for batch in batches(recipe, sizes))]
    return max(layers for layers, _ in found), max(kept for _, kept in found)


def _of_policy(recipe: Recipe, sizes: Sizes, batch: Batch) -> tuple[int, int]:
    learner, dtype, found = recipe.learner, weight_bytes(recipe), sizes.dimensions
    trains_encoder = not (learner.freeze_encoder or learner.lora.rank)
    layers = _layers(recipe, sizes, batch, trains_encoder, learner.activation_checkpointing)
    if isinstance(recipe.algorithm, RewardModel):
        return layers, layers
    tokens, features, learns = batch.rows * batch.completion, found.decoder.width, not learner.lora.rank
    if isinstance(recipe.algorithm, OnlineConfig):
        head = activations.head(tokens, found.vocabulary, features, dtype, learns, bool(learner.gpus))
        return layers, layers + head
    # Without a GPU TRL's fused head goes over all positions.
    tokens = tokens if learner.gpus else batch.rows * batch.positions
    tile, on_gpu = activations.TRAINER_TILE, bool(learner.gpus)
    return layers, layers + activations.tiled_head(tokens, found.vocabulary, features, dtype, learns, on_gpu, tile)


def _of_critic(recipe: Recipe, sizes: Sizes, batch: Batch) -> int:
    return _layers(recipe, sizes, batch, not recipe.learner.freeze_encoder, recipe.learner.activation_checkpointing)


def _layers(recipe: Recipe, sizes: Sizes, batch: Batch, trains_encoder: bool, checkpointed: bool) -> int:
    return activations.layers_of(
        sizes.dimensions,
        batch.rows,
        batch.clips,
        batch.positions,
        batch.seconds,
        weight_bytes(recipe),
        trains_encoder,
        checkpointed,
    )


def _kept_clips(recipe: Recipe, sizes: Sizes, clips: int | None) -> int:
    """Encoder output of a frozen encoder, except at ZeRO 3; else log-mel features in float32, as in all trainers."""
    found, seconds, learner = sizes.dimensions, recipe.backbone.window, recipe.learner
    if found.encoder is None:
        return 0
    features = math.ceil(seconds * FRAME_RATE) * found.encoder.mel_bins * activations.SINGLE
    if isinstance(recipe.algorithm, JudgedConfig):
        drawn = math.ceil(recipe.steps / rounds_of(recipe)) * recipe.algorithm.batch_size
        known = clips if makes_pairs(recipe) else None
        return min(TRAINER_CLIPS, drawn, known or TRAINER_CLIPS) * features
    kept = min(KEPT_CLIPS, recipe.steps * recipe.rollout.prompts_per_step, clips or KEPT_CLIPS)
    if learner.freeze_encoder and learner.zero_stage < 3:
        return kept * found.output_positions(seconds) * found.encoder.output_width * weight_bytes(recipe)
    return kept * features
