"""REINFORCE with the other samples as baseline: RLOO (2402.14740)."""

from torch import Tensor

from rlhf_platform.algorithms.groups import deviations
from rlhf_platform.algorithms.policy_loss import clipped_surrogate

_LARGEST_LOG_RATIO = 60.0


def leave_one_out_advantages(rewards: Tensor, scored: Tensor) -> Tensor:
    """Each reward minus the mean of the others of its group, (P, G), in units of the reward.

    `rewards` (P, G), with the KL of the whole sample paid where the recipe says so; `scored` (P, G) bool, False where
    the reward failed. 0 for what failed, and for a whole group with fewer than two scored samples or without spread.
    """
    count = scored.sum(-1, keepdim=True)
    # x - (sum - x) / (n - 1) is n / (n - 1) times the distance from the mean of all.
    return (deviations(rewards, scored)[0] * count / (count - 1).clamp(min=1)).to(rewards.dtype)


def whole_sequence_surrogate(
    log_ratio: Tensor, mask: Tensor, advantages: Tensor, clip_ratio: float
) -> tuple[Tensor, Tensor]:
    """Loss of each token's sequence, -min(s A, clip(s, 1 - c, 1 + c) A), and whether it was clipped, both (B, T).

    s is the ratio of the whole sequence, exp(sum of `log_ratio` over its tokens), unlike GSPO's, which is by length.
    `log_ratio`, `mask` (B, T); `advantages` (B, 1). All tokens of a sequence have the same value, so its mean over
    them is the sequence's loss: normalise by `sequence`. At s = 1, as in the first update of a step, the gradient is
    REINFORCE's, A times that of the sequence's log-prob.
    """
    # A sum over many tokens can leave the range of float32, and infinity times an advantage of 0 is no number.
    total = log_ratio.masked_fill(mask <= 0, 0.0).sum(-1, keepdim=True).clamp(max=_LARGEST_LOG_RATIO)
    loss, clipped = clipped_surrogate(total, advantages, clip_ratio, clip_ratio)
    return loss.expand_as(log_ratio), clipped.expand_as(log_ratio)
