"""Advantages without a bias towards prompts of little spread: Dr. GRPO (2503.20783), section 3.2."""

from torch import Tensor

from rlhf_platform.algorithms.groups import deviations


def centred_advantages(rewards: Tensor, scored: Tensor) -> Tensor:
    """How much better than its group each sample is, in units of the reward, (P, G): not divided by the spread.

    `rewards` (P, G); `scored` (P, G) bool, False where the reward failed. 0 for what failed, and for a whole group
    without spread.
    """
    return deviations(rewards, scored)[0].to(rewards.dtype)
