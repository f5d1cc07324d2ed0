"""Memory of actors by part, from a recipe and its model's sizes: rollout and rewards. Arithmetic only."""

from collections.abc import Mapping
from dataclasses import dataclass

from rlhf_platform.planning import activations
from rlhf_platform.planning.sizes import Sizes, weights_of_judge
from rlhf_platform.planning.units import GIB
from rlhf_platform.recipe.judges import JudgeConfig
from rlhf_platform.recipe.preferences import JudgedConfig
from rlhf_platform.recipe.rewards import codec_workers
from rlhf_platform.recipe.schema import Recipe

PROCESS = {"rollout": int(0.65 * GIB), "learner": int(0.44 * GIB), "reward": int(0.1 * GIB)}
"""Bytes of an actor's process before there is a model: Python, Ray, torch, DeepSpeed in the learner, vLLM in rollout.
Measured by benchmarks/plan.py on Linux without a GPU, rounded up."""
TRAINER = int(0.1 * GIB)
"""Bytes that TRL and its data sets add to a learner's process in offline training; measured, rounded up."""
CODEC = int(0.4 * GIB)
"""Bytes of a codec actor's process, the embedded codec in it; measured once, rounded up."""
REWARD_CHILD = int(0.05 * GIB)
"""Bytes of a process that calls a reward function, before the function loads anything; measured, rounded up."""
DRIVER = int(1.0 * GIB)
"""Bytes of the run itself and of Ray's processes on the first machine, measured likewise; without the object store."""
CUDA_CONTEXT = int(0.5 * GIB)
"""Bytes of device memory that a process takes before its first tensor; an estimate, no GPU was measured."""
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


def rollout_memory(recipe: Recipe, sizes: Sizes) -> ActorMemory:
    """One vLLM engine. On a CPU vLLM keeps the output head twice, once packed for its matrix product."""
    rollout, dtype, gpus = recipe.rollout, weight_bytes(recipe), recipe.rollout.gpus
    found, seconds = sizes.dimensions, recipe.backbone.window
    sent, tokens = sync_bytes(recipe, sizes), BATCHED_TOKENS[bool(gpus)]
    heard = outputs = 0
    if found.encoder is not None:
        heard = SERVED_CLIPS * found.output_positions(seconds) * found.encoder.output_width * dtype
        if not found.decoder.crosses:
            heard = tokens * found.decoder.width * dtype
        at_once = max(1, tokens // max(1, found.output_positions(seconds)))
        outputs = activations.passing(found.encoder, at_once, found.encoder_positions(seconds), dtype)
    layer = 6 * found.decoder.width + 3 * found.decoder.inner_width
    sequences = min(rollout.max_sequences, tokens)
    logits = activations.whole_head(sequences, found.vocabulary, dtype)
    parts = {
        "weights": dtype * sizes.weights + (0 if gpus else dtype * sizes.head),
        "heads": dtype * head_parameters(recipe, sizes),
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


def head_parameters(recipe: Recipe, sizes: Sizes) -> int:
    """Of the heads that draft, but for the few of norms; 0 where nothing drafts."""
    if recipe.rollout.speculative != "mtp":
        return 0
    layer = sizes.dimensions.decoder
    projections = 2 * layer.attention_width + 2 * layer.key_value_width + 3 * layer.inner_width
    return recipe.mtp.blocks * layer.width * (projections + 2 * layer.width)


def reward_memory(recipe: Recipe) -> ActorMemory:
    """The processes alone: what a reward function loads for itself is not known."""
    processes = sum(reward.concurrency or 1 for reward in (*recipe.rewards, *recipe.evaluation.rewards))
    return ActorMemory("reward", recipe.scoring.workers, {}, {"process": PROCESS["reward"] + processes * REWARD_CHILD})


def codec_memory(recipe: Recipe) -> ActorMemory:
    """The process with the embedded codec; the weights of another are not known."""
    return ActorMemory("codec", codec_workers(recipe), {}, {"process": CODEC})


def judge_memory(judge: JudgeConfig) -> ActorMemory:
    """One vLLM server. Of a model whose configuration is not on this machine the weights are not known."""
    weights, each = weights_of_judge(judge.model), 4 if judge.dtype == "float32" else 2
    parts = {"weights": weights * each // max(1, judge.gpus)} if weights else {}
    parts["KV cache"] = int(judge.kv_cache_gib * GIB)
    host = {"process": PROCESS["rollout"]}
    if judge.gpus:
        return ActorMemory(judge_kind(judge), 1, parts | {"process": CUDA_CONTEXT}, host)
    return ActorMemory(judge_kind(judge), 1, {}, parts | host)


def judge_kind(judge: JudgeConfig) -> str:
    """What a judge's actor is called in a plan."""
    return f"judge {judge.name}"


def sync_bytes(recipe: Recipe, sizes: Sizes) -> int:
    """What a sync sends to each rollout worker; 0 offline, where they start anew on a round's checkpoint."""
    if isinstance(recipe.algorithm, JudgedConfig):
        return 0
    return weight_bytes(recipe) * (sizes.total["LoRA"] if _sends_lora(recipe, sizes) else sizes.weights)


def _sends_lora(recipe: Recipe, sizes: Sizes) -> bool:
    online = not isinstance(recipe.algorithm, JudgedConfig)
    return online and bool(recipe.learner.lora.rank) and sizes.served_lora


def weight_bytes(recipe: Recipe) -> int:
    """Bytes of a weight."""
    return 4 if recipe.backbone.dtype == "float32" else 2
