"""The loss of a critic and what it explains: PPO's clipped value loss, as in 2203.02155 and 2005.12729, section 3."""

import torch
from torch import Tensor


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, clip: float | None
) -> tuple[Tensor, Tensor]:
    """Half the squared error per token, the larger of the value's and the clipped value's, and where it was clipped.

    All (B, T), in units of the reward. `values` carries the gradient; `old_values` are the critic's before this step's
    updates; `returns` what it should have said (`gae.generalised_advantages`). The clipped value is within `clip` of
    the old one; none: not clipped. Clipped (bool) is where the clip took the gradient away.
    """
    plain = (values - returns).square()
    if clip is None:
        return plain / 2, torch.zeros_like(plain, dtype=torch.bool)
    bounded = (old_values + (values - old_values).clamp(-clip, clip) - returns).square()
    return torch.maximum(plain, bounded) / 2, bounded > plain


def explained_variance(
    count: float, return_sum: float, return_squares: float, error_sum: float, error_squares: float
) -> float:
    """1 - variance of the errors / variance of the returns, from sums over tokens; an error is return - value.

    Sums of ranks and micro-batches add up, so that the result is the same however a batch was split. 1: the critic is
    right but for a constant. 0: as good as one that says the same everywhere. Below 0: worse than that. 0 as well where
    the returns are all equal, and nothing is to be explained.
    """
    if not count:
        return 0.0
    spread = return_squares / count - (return_sum / count) ** 2
    # What rounding leaves of equal returns is no spread.
    if spread <= 1e-12 * return_squares / count:
        return 0.0
    return 1 - (error_squares / count - (error_sum / count) ** 2) / spread
