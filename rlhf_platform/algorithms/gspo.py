"""The ratio of whole sequences, clipped: GSPO (2507.18071), equations 5 and 7."""

from torch import Tensor

from rlhf_platform.algorithms.policy_loss import clipped_surrogate


def sequence_surrogate(
    log_ratio: Tensor, mask: Tensor, advantages: Tensor, low: float, high: float
) -> tuple[Tensor, Tensor]:
    """Loss of each token's sequence, -min(s A, clip(s, 1 - low, 1 + high) A), and whether it was clipped, both (B, T).

    s is the ratio of the sequence by its length, exp(mean of `log_ratio` over its tokens). `log_ratio`, `mask` (B, T);
    `advantages` (B, 1). All tokens of a sequence have the same value, so its mean over them is the sequence's loss:
    normalised by `sequence` the sum is the published objective, and its gradient the published gradient.
    """
    length = mask.sum(-1, keepdim=True).clamp(min=1.0)
    loss, clipped = clipped_surrogate((log_ratio * mask).sum(-1, keepdim=True) / length, advantages, low, high)
    return loss.expand_as(log_ratio), clipped.expand_as(log_ratio)
