"""The clipped surrogate of PPO (1707.06347, equation 7), per token."""

import torch
from torch import Tensor


def clipped_surrogate(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip_ratio: float) -> Tensor:
    """Loss per token, (B, T): -min(r A, clip(r, 1 - c, 1 + c) A) with r = exp(logprobs - old_logprobs).

    `logprobs` (B, T) carries the gradient; `old_logprobs` (B, T) is the learner's own before this step's updates;
    `advantages` (B, 1) or (B, T).
    """
    ratio = (logprobs - old_logprobs).exp()
    clipped = ratio.clamp(1 - clip_ratio, 1 + clip_ratio)
    return -torch.minimum(ratio * advantages, clipped * advantages)


def clip_fraction(logprobs: Tensor, old_logprobs: Tensor, clip_ratio: float, mask: Tensor) -> Tensor:
    """Number of completion tokens whose ratio is outside the clip range, a scalar; `mask` (B, T)."""
    outside = ((logprobs - old_logprobs).exp() - 1).abs() > clip_ratio
    return (outside * mask).sum()
