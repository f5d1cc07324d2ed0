"""Several rewards that do not drown each other: GDPO (2601.05242).

Each reward is normalised in its group (`scoring.normalize: terms` in a recipe), they are summed by weight,
and the sums are normalised over the batch, so that their size does not grow with the number of rewards.
"""

from torch import Tensor

from rlhf_platform.algorithms.whitening import whitened


def batch_normalised(sums: Tensor, scored: Tensor) -> Tensor:
    """The last of those three: (sum - mean) / standard deviation over the whole batch, (P, G).

    `sums` (P, G): by weight, of rewards each normalised in its group. `scored` (P, G) bool, False where a reward
    failed. 0 for what failed, and for a whole batch without spread.
    """
    return whitened(sums, scored)
