"""Group-relative advantages: GRPO, DeepSeekMath (2402.03300), section 4.1.2."""

import torch
from torch import Tensor

from rlhf_platform.algorithms.groups import deviations


def group_advantages(rewards: Tensor, scored: Tensor) -> Tensor:
    """How much better than its group each sample is, in standard deviations of the group, (P, G).

    `rewards` (P, G); `scored` (P, G) bool, False where the reward failed. 0 for what failed, and for a whole group
    without spread.
    """
    centred, std = deviations(rewards, scored)
    return torch.where(std > 0, centred / std, 0.0).to(rewards.dtype)
