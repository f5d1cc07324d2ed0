"""What DAPO (2503.14476) does to rewards and groups; its wider clip is `policy_loss.clipped_surrogate`."""

import torch
from torch import Tensor

from rlhf_platform.algorithms.groups import deviations


def overlong_penalty(lengths: Tensor, cut: Tensor, max_new_tokens: int, overlong_share: float) -> Tensor:
    """What is added to the reward of each sample, (N,), from 0 down to -1: equation 13.

    `lengths` (N,) in tokens; `cut` (N,) bool: ended by the limit instead of by the policy, -1 whatever its length.
    The fall is a line over the last `overlong_share` of `max_new_tokens`: published are 4,096 of 20,480.
    """
    zone = overlong_share * max_new_tokens
    # Without a zone only what was cut, or is longer than allowed, is penalised.
    into = (lengths - (max_new_tokens - zone)) / zone if zone > 0 else (lengths > max_new_tokens).float()
    return -torch.where(cut, 1.0, into.clamp(0.0, 1.0))


def has_spread(rewards: Tensor, scored: Tensor) -> Tensor:
    """Which groups teach anything, (P,) bool; the others' prompts are drawn anew: equation 11, dynamic sampling.

    `rewards` (P, G) before the overlong penalty: the paper asks for answers of different worth, not of different
    length. `scored` (P, G) bool, False where the reward failed.
    """
    return deviations(rewards, scored)[1].squeeze(-1) > 0
