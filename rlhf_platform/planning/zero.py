"""What DeepSpeed keeps of a model on one rank, by ZeRO stage. Arithmetic only; all results in bytes.

From the ZeRO paper (1910.02054, section 3 and figure 1) and, for what that leaves open, from DeepSpeed 0.19's
`runtime/zero/stage_1_and_2.py`, `runtime/zero/stage3.py` and `runtime/fp16/unfused_optimizer.py`. Offload: 2101.06840.
"""

from dataclasses import dataclass, replace

BUCKET = 500_000_000
"""Gradients that DeepSpeed reduces at once (`reduce_bucket_size`), in parameters."""
LIVE = 1_000_000_000
"""Parameters that stage 3 leaves whole between uses (`stage3_max_live_parameters`)."""
MOMENTS = {"adamw": 8, "sgd": 0}
"""Bytes per parameter that an optimiser keeps: AdamW's two moments, float32 (1711.05101)."""
_ARRAYS = {"adamw": 2, "sgd": 1}
"""Arrays that a step makes of a tensor: square root and quotient; a gradient with weight decay."""
MASTER = 4
"""Bytes per parameter of the float32 copy that the optimiser updates."""


@dataclass(frozen=True)
class State:
    """On one rank, bytes."""

    weights: int
    gradients: int
    """At the end of a backward pass."""
    optimiser: int
    step: int
    """What the optimiser's step needs for a moment, beside all else."""
    host: int = 0
    """In the machine's memory, of what `offload` keeps there; the others are then what is left on the device."""


def state(
    parameters: int,
    trained: int,
    largest: int,
    stage: int,
    ranks: int,
    width: int,
    on_gpu: bool = False,
    optimizer: str = "adamw",
    offload: str = "none",
) -> State:
    """Weights, gradients and optimiser of `parameters`, of which `trained` are learnt, on one of `ranks` ranks.

    `largest`: parameters of the largest trained tensor. `width`: bytes of a weight, 4 (float32) or 2 (bfloat16).
    `optimizer` and `offload`: as in `learner`.

    Stage 0: all on every rank; in bfloat16 with a float32 copy. Stage 1: optimiser, always with that copy, divided by
    the ranks. Stage 2: gradients too, but for the bucket in which they are reduced. Stage 3: weights too, but for those
    that are whole for the moment. Frozen weights have neither gradients nor optimiser; only stage 3 divides them.
    """
    part = -(-trained // ranks)
    # On a GPU the bucket is reserved whole, on a CPU only what is written to takes memory.
    bucket = width * (BUCKET if on_gpu else min(trained, BUCKET))
    moments, arrays = MOMENTS[optimizer], _ARRAYS[optimizer]
    if stage == 0:
        copy = 0 if width == 4 else MASTER
        # The arrays of one tensor; gradients in float32 for the copy; or the buffer of an all-reduce.
        step = max(arrays * 4 * largest + copy * trained, width * min(trained, BUCKET) if ranks > 1 else 0)
        return State(width * parameters, width * trained, (moments + copy) * trained, step)
    gradients = {1: width * (trained + part), 2: width * part + bucket, 3: width * part + bucket}[stage]
    held = -(-parameters // ranks)
    weights = width * parameters
    if stage == 3:
        weights = width * (held + min(parameters - held, LIVE))
    # The gradient of the part in float32 and the arrays: the part is one tensor.
    found = State(weights, gradients, (moments + MASTER) * part, (1 + arrays) * 4 * part)
    if offload == "none":
        return found
    # A tensor's gradient on its way; on the other side the part's gradients, summed up, and its weights on their way.
    moved = found.optimiser + found.step + width * (2 * part + largest)
    left = replace(found, gradients=found.gradients - width * part + width * largest, optimiser=0, step=0, host=moved)
    if offload == "weights" and stage == 3:
        left = replace(left, weights=width * min(parameters, LIVE), host=moved + width * held)
    return left
