"""Advantages of a whole batch brought to mean 0 and standard deviation 1."""

from torch import Tensor

from rlhf_platform.algorithms.grpo import group_advantages


def whitened(values: Tensor, mask: Tensor) -> Tensor:
    """(value - mean) / standard deviation (n - 1) of everything in the mask, in the shape of `values`; 0 outside it.

    `values` (...) and `mask` (...) of one shape, the mask bool or 0 and 1; float64 inside. All 0 where nothing spreads:
    fewer than two values, or values that are equal up to rounding. The batch must be whole, not a rank's part (law 5).
    """
    # The batch is one group.
    return group_advantages(values.reshape(1, -1), mask.reshape(1, -1) > 0).view(values.shape)
