"""Group-relative advantages: GRPO, DeepSeekMath (2402.03300), equation 4.1.2."""

import torch
from torch import Tensor


def group_advantages(rewards: Tensor, scored: Tensor) -> Tensor:
    """How much better than its group each sample is, in standard deviations of the group, (P, G).

    `rewards` (P, G): G samples of each of P prompts. `scored` (P, G) bool: False where the reward failed; such a
    sample counts neither in the mean nor in the spread, and its advantage is 0 (law 2: mask it out of the loss too).
    A group with fewer than two scored samples, or whose rewards are all equal, teaches nothing: all zeros.
    """
    weight = scored.double()
    # Sums of equal float32 rewards are exact in float64; in float32 their rounding alone would look like a spread.
    values = rewards.double().masked_fill(~scored, 0.0)
    count = weight.sum(-1, keepdim=True)
    centred = (values - values.sum(-1, keepdim=True) / count.clamp(min=1)) * weight
    std = (centred.square().sum(-1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
    # Rewards that are equal up to rounding must not be blown up into advantages of full size.
    rounding = 1e-6 * values.abs().amax(-1, keepdim=True)
    teaches = (count >= 2) & (std > rounding)
    return torch.where(teaches, centred / std, 0.0).to(rewards.dtype)
