"""No critic and no group, the batch as baseline: REINFORCE++ (2501.03262)."""

from torch import Tensor

from rlhf_platform.algorithms.gae import rewards_to_go
from rlhf_platform.algorithms.whitening import whitened


def globally_normalised_advantages(rewards: Tensor, mask: Tensor, learnt: Tensor, gamma: float) -> Tensor:
    """What is to come from each token on, whitened over all learnt tokens of the batch, (B, T); 0 elsewhere.

    `rewards` (B, T): of each token, its KL paid, the sample's own at its last (`gae.token_rewards`). `mask` (B, T): 0
    at padding and at samples that failed, which then count in no mean. `learnt` (B, T): the tokens of it that are
    learnt. The batch must be whole, not one rank's part.
    """
    return whitened(rewards_to_go(rewards, mask, gamma), learnt)
