"""Memory of each kind of actor, by part, from a recipe and its model's sizes. Arithmetic only."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from policies.dimensions import FRAME_RATE
from rlhf_platform.planning import activations, zero
from rlhf_platform.planning.sizes import Sizes
from rlhf_platform.planning.units import GIB
from rlhf_platform.recipe.schema import Recipe

PROCESS = {"rollout": int(0.65 * GIB), "learner": int(0.44 * GIB), "reward": int(0.1 * GIB)}
"""Bytes of an actor's process before there is a model: Python, Ray, torch, DeepSpeed in the learner, vLLM in rollout.
Measured by benchmarks/plan.py on Linux without a GPU, rounded up."""
REWARD_CHILD = int(0.05 * GIB)
"""Bytes of a process that calls a reward function, before the function loads anything; measured, rounded up."""
DRIVER = int(1.0 * GIB)
"""Bytes of the run itself and of Ray's processes on the first machine, measured likewise; without the object store."""
CUDA_CONTEXT = int(0.5 * GIB)
"""Bytes of device memory that a process takes before its first tensor; an estimate, no GPU was measured."""
KEPT_CLIPS = 256
"""Clips whose encoder output, or features, the learner keeps (`rlhf_platform.learner.clips`)."""
SERVED_CLIPS = 64
"""Encoder outputs that vLLM keeps for Whisper's layout (`policies.vllm_whisper`)."""
BATCHED_TOKENS = {False: 4096, True: 16384}
"""Tokens that vLLM 0.32 works on at once, without and with a GPU (of 70 GiB and more; smaller ones 8192)."""


@dataclass(frozen=True)
class ActorMemory:
    """Bytes of one actor by part, on its device and in its machine's memory."""

    kind: str
    count: int
    device: Mapping[str, int]
    """Empty without a GPU."""
    host: Mapping[str, int]

    @property
    def on_device(self) -> int:
        return sum(self.device.values())

    @property
    def on_host(self) -> int:
        return sum(self.host.values())


@dataclass(frozen=True)
class Batch:
    """What a rank works on at once, at most."""

    rows: int
    clips: int
    positions: int
    completion: int
    several: bool
    """Whether a rank has more than one in an optimiser step."""


def micro_batch_of(recipe: Recipe, sizes: Sizes) -> Batch:
    """The largest micro-batch: rows of like length together, so that the samples of a clip mostly stand in one."""
    rollout, algorithm, learner = recipe.rollout, recipe.algorithm, recipe.learner
    samples = rollout.prompts_per_step * algorithm.group_size
    share = math.ceil(samples / learner.workers / algorithm.minibatches)
    rows = min(learner.micro_batch_size, share)
    clips = min(rows, math.ceil(rows / algorithm.group_size) + 1)
    positions = sizes.dimensions.prompt_tokens + sizes.dimensions.audio_tokens(recipe.backbone.window)
    positions = min(rollout.max_tokens, positions + rollout.max_new_tokens)
    return Batch(rows, clips, positions, rollout.max_new_tokens, several=rows < share)


def learner_memory(recipe: Recipe, sizes: Sizes, clips: int | None = None) -> ActorMemory:
    """One rank. `clips`: those that RL draws from, None when that is not known.

    Most is needed either in a backward pass (gradients of earlier micro-batches and activations of this one), or in the
    optimiser's step, or in a sync; `buffers` is what the last two need beyond the room of the first.
    """
    learner, dtype = recipe.learner, _width(recipe)
    state = zero.state(
        sizes.parameters,
        sizes.trained,
        sizes.largest,
        learner.zero_stage,
        learner.workers,
        dtype,
        on_gpu=bool(learner.gpus),
    )
    trains_encoder = not (learner.freeze_encoder or learner.lora.rank)
    batch, seconds = micro_batch_of(recipe, sizes), recipe.backbone.window
    found = sizes.dimensions
    layers = activations.layers_of(found, batch.rows, batch.clips, batch.positions, seconds, dtype, trains_encoder)
    head = activations.head(batch.rows * batch.completion, found.vocabulary, dtype, batch.several)
    kept, sent = layers + head, _sent(recipe, sizes)
    parts = {
        "weights": state.weights,
        "gradients": state.gradients,
        "optimiser": state.optimiser,
        "reference": dtype * sizes.parameters if has_reference(recipe) else 0,
        "clips": _kept_clips(recipe, sizes, clips),
        "activations": kept,
    }
    if learner.gpus:
        host = {"process": PROCESS["learner"], "weights": dtype * sizes.parameters, "sync": 2 * sent}
        parts["buffers"] = max(0, state.step - kept)
        return ActorMemory("learner", learner.workers, parts | {"process": CUDA_CONTEXT}, host)
    parts["buffers"] = max(0, state.step - kept, 2 * sent - state.gradients - kept)
    parts["heap"] = activations.heap(found, layers)
    return ActorMemory("learner", learner.workers, {}, parts | {"process": PROCESS["learner"]})


def rollout_memory(recipe: Recipe, sizes: Sizes) -> ActorMemory:
    """One vLLM engine. On a CPU vLLM keeps the output head twice, once packed for its matrix product."""
    rollout, dtype, gpus = recipe.rollout, _width(recipe), recipe.rollout.gpus
    found, seconds = sizes.dimensions, recipe.backbone.window
    sent, tokens = _sent(recipe, sizes), BATCHED_TOKENS[bool(gpus)]
    heard = outputs = 0
    if found.encoder is not None:
        heard = SERVED_CLIPS * found.output_positions(seconds) * found.encoder.output_width * dtype
        if not found.decoder.crosses:
            heard = tokens * found.decoder.width * dtype
        at_once = max(1, tokens // max(1, found.output_positions(seconds)))
        outputs = activations.passing(found.encoder, at_once, found.encoder_positions(seconds), dtype)
    layer = 6 * found.decoder.width + 3 * found.decoder.inner_width
    sequences = min(rollout.max_sequences, tokens)
    logits = activations.head(sequences, found.vocabulary, dtype)
    parts = {
        "weights": dtype * sizes.weights + (0 if gpus else dtype * sizes.head),
        "LoRA": 2 * sent if _sends_lora(recipe, sizes) else 0,
        "KV cache": int(rollout.kv_cache_gib * GIB),
        "clips": heard,
        "activations": max(outputs, tokens * layer * dtype + logits),
    }
    if gpus:
        host = {"process": PROCESS["rollout"], "sync": 2 * sent}
        return ActorMemory("rollout", rollout.workers, parts | {"process": CUDA_CONTEXT}, host)
    parts["sync"] = 2 * sent
    return ActorMemory("rollout", rollout.workers, {}, parts | {"process": PROCESS["rollout"]})


def reward_memory(recipe: Recipe) -> ActorMemory:
    """The processes alone: what a reward function loads for itself is not known."""
    processes = sum(reward.concurrency or 1 for reward in (*recipe.rewards, *recipe.evaluation.rewards))
    return ActorMemory("reward", recipe.scoring.workers, {}, {"process": PROCESS["reward"] + processes * REWARD_CHILD})


def has_reference(recipe: Recipe) -> bool:
    """Whether the learner holds a second copy of the weights for the KL; with LoRA they are below it anyway."""
    return float(getattr(recipe.algorithm, "kl_coef", 0.0)) > 0 and not recipe.learner.lora.rank


def sync_bytes(recipe: Recipe, sizes: Sizes) -> int:
    """What a sync sends to each rollout worker."""
    return _sent(recipe, sizes)


def _sent(recipe: Recipe, sizes: Sizes) -> int:
    sent = sizes.total["LoRA"] if _sends_lora(recipe, sizes) else sizes.weights
    return _width(recipe) * sent


def _sends_lora(recipe: Recipe, sizes: Sizes) -> bool:
    return bool(recipe.learner.lora.rank) and sizes.served_lora


def _kept_clips(recipe: Recipe, sizes: Sizes, clips: int | None) -> int:
    """Encoder output of a frozen encoder, except at ZeRO 3; else log-mel features in float32."""
    found, seconds, learner = sizes.dimensions, recipe.backbone.window, recipe.learner
    if found.encoder is None:
        return 0
    kept = min(KEPT_CLIPS, recipe.steps * recipe.rollout.prompts_per_step, clips or KEPT_CLIPS)
    if learner.freeze_encoder and learner.zero_stage < 3:
        return kept * found.output_positions(seconds) * found.encoder.output_width * _width(recipe)
    return kept * math.ceil(seconds * FRAME_RATE) * found.encoder.mel_bins * activations.SINGLE


def _width(recipe: Recipe) -> int:
    """Bytes of a weight."""
    return 4 if recipe.backbone.dtype == "float32" else 2
