"""What the samples of one prompt say of each other: the ground of every group-relative advantage."""

import torch
from torch import Tensor


def deviations(rewards: Tensor, scored: Tensor) -> tuple[Tensor, Tensor]:
    """Distance of each reward from its group's mean, (P, G), and the group's standard deviation, (P, 1), in float64.

    `rewards` (P, G): G samples of each of P prompts. `scored` (P, G) bool: False where the reward failed; such a
    sample counts neither in the mean nor in the spread, and its distance is 0 (law 2: mask it out of the loss too).
    A group with fewer than two scored samples, or whose rewards are all equal, teaches nothing: all zeros.
    """
    weight = scored.double()
    # Sums of equal float32 rewards are exact in float64; in float32 their rounding alone would look like a spread.
    values = rewards.double().masked_fill(~scored, 0.0)
    count = weight.sum(-1, keepdim=True)
    centred = (values - values.sum(-1, keepdim=True) / count.clamp(min=1)) * weight
    std = (centred.square().sum(-1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
    # Rewards that are equal up to rounding must not be blown up into advantages of full size: rounding to float32, and
    # what terms that cancel leave of themselves, as 0.1 + 0.2 - 0.3.
    teaches = std > 1e-6 * values.abs().amax(-1, keepdim=True) + 1e-9
    return torch.where(teaches, centred, 0.0), torch.where(teaches, std, 0.0)
