"""The clipped surrogate of PPO (1707.06347, equation 7), per ratio."""

import torch
from torch import Tensor


def clipped_surrogate(
    log_ratio: Tensor, advantages: Tensor, low: float, high: float, dual_clip: float | None = None
) -> tuple[Tensor, Tensor]:
    """Loss per ratio, -min(r A, clip(r, 1 - low, 1 + high) A) with r = exp(log_ratio), and where it was clipped.

    `log_ratio` (B, T) carries the gradient: log-probs minus the learner's own before this step's updates; (B, 1) for
    a ratio of whole sequences. `advantages` (B, 1), or (B, T) where each token has its own. Clipped (bool) is where a
    clip took the gradient away, which is on one side of the range only: above for A > 0, below for A < 0.
    DAPO's clip-higher (2503.14476, equation 10) is `high` > `low`. With `dual_clip`, above 1, the loss for A < 0 is at
    most dual_clip |A|, however far r has run (1912.09729).
    """
    ratio = log_ratio.exp()
    plain, bounded = ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages
    gain, clipped = torch.minimum(plain, bounded), bounded < plain
    if dual_clip is not None:
        floor = dual_clip * advantages
        beyond = (advantages < 0) & (gain < floor)
        gain, clipped = torch.where(beyond, floor, gain), clipped | beyond
    return -gain, clipped
