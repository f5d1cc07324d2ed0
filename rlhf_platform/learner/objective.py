"""What a recipe's algorithm is, of the functions in `rlhf_platform.algorithms`. Its settings' type says which."""

from typing import NamedTuple

import torch
from torch import Tensor

from rlhf_platform.algorithms.cispo import capped_policy_gradient
from rlhf_platform.algorithms.dpo import pair_loss
from rlhf_platform.algorithms.gspo import sequence_surrogate
from rlhf_platform.algorithms.importance import importance_weights
from rlhf_platform.algorithms.kl import kl_estimate
from rlhf_platform.algorithms.normalization import token_shares, units
from rlhf_platform.algorithms.policy_loss import clipped_surrogate
from rlhf_platform.algorithms.rloo import whole_sequence_surrogate
from rlhf_platform.learner.micro_batches import MicroBatch
from rlhf_platform.recipe.algorithms import (
    CISPO,
    DAPO,
    GRPO,
    GSPO,
    PPO,
    RLOO,
    AlgorithmConfig,
    DrGRPO,
    OnlineDPO,
    ReinforcePP,
    RLConfig,
)


class Coefficients(NamedTuple):
    """What weighs KL and entropy in a step; a recipe may have them steered."""

    kl: float
    entropy: float = 0.0


class TokenLoss(NamedTuple):
    """All (B, T), before any mask and normalisation."""

    loss: Tensor
    """Carries the gradient."""
    kl: Tensor
    """To the reference, in nats, for people to read; 0 without one."""
    clipped: Tensor
    """Bool: where the clip acted."""


def sees_first(algorithm: AlgorithmConfig) -> bool:
    """Whether advantages need what the learner sees in the samples: values, or a KL that the reward pays for."""
    pays = isinstance(algorithm, RLConfig) and algorithm.kl_in == "reward" and algorithm.kl_coef > 0
    return pays or isinstance(algorithm, PPO | ReinforcePP)


def learns_pairs(algorithm: AlgorithmConfig) -> bool:
    """Whether samples come as neighbours, the chosen one before the rejected one."""
    return isinstance(algorithm, OnlineDPO)


def counted(algorithm: AlgorithmConfig, mask: Tensor, normalization: str) -> Tensor:
    """What the loss is a mean over, of a micro-batch: tokens, samples or pairs; a scalar."""
    return _pairs_that_count(mask).sum() if learns_pairs(algorithm) else units(mask, normalization)


def summed_loss(
    algorithm: AlgorithmConfig,
    micro: MicroBatch,
    logprobs: Tensor,
    entropy: Tensor,
    coefficients: Coefficients,
    max_new_tokens: int,
) -> tuple[Tensor, TokenLoss]:
    """The loss of a micro-batch, a scalar to be divided by the sum of `counted` over all of them and all ranks (law 5).

    `logprobs` (B, T) carries the gradient; `entropy` (B, T) too, where `coefficients.entropy` is not 0.
    """
    old = logprobs.detach() if micro.old is None else micro.old
    if isinstance(algorithm, OnlineDPO):
        assert micro.reference is not None
        loss = preference_loss(algorithm, logprobs, micro.reference, micro.mask, coefficients.kl)
        kl = kl_estimate(logprobs.detach(), micro.reference, "k3")
        return loss, TokenLoss(loss.detach().expand_as(kl), kl, torch.zeros_like(kl, dtype=torch.bool))
    assert isinstance(algorithm, RLConfig)
    weight = importance_weights(old, micro.behaviour, micro.sampled, algorithm.importance, algorithm.importance_cap)
    found = token_loss(algorithm, logprobs, old, weight, micro.reference, micro.advantages, micro.mask, coefficients.kl)
    loss = found.loss - coefficients.entropy * entropy if coefficients.entropy else found.loss
    return (loss * token_shares(micro.mask, algorithm.normalization, max_new_tokens)).sum(), found


def preference_loss(algorithm: OnlineDPO, logprobs: Tensor, reference: Tensor, mask: Tensor, beta: float) -> Tensor:
    """Sum over the pairs that count, a scalar; rows 0, 2, ... are chosen, each before the one rejected for it."""
    ratios = ((logprobs - reference) * mask).sum(-1)
    if algorithm.loss_type == "ipo":
        ratios = ratios / mask.sum(-1).clamp(min=1.0)
    losses = pair_loss(ratios[0::2], ratios[1::2], beta, algorithm.loss_type)
    return (losses * _pairs_that_count(mask)).sum()


def _pairs_that_count(mask: Tensor) -> Tensor:
    counts = mask.any(-1)
    return (counts[0::2] & counts[1::2]).to(mask.dtype)


def token_loss(
    algorithm: RLConfig,
    logprobs: Tensor,
    old_logprobs: Tensor,
    weight: Tensor,
    reference_logprobs: Tensor | None,
    advantages: Tensor,
    mask: Tensor,
    kl_coef: float,
) -> TokenLoss:
    """The policy loss, weighted for what rollout computed differently (law 6), and the KL's share.

    As in `policy_loss`; `weight` (B, T) is from `importance_weights`, `reference_logprobs` (B, T) are the reference's.
    """
    loss, clipped = policy_loss(algorithm, logprobs, old_logprobs, advantages, mask)
    loss = weight * loss
    if reference_logprobs is None:
        return TokenLoss(loss, torch.zeros_like(logprobs), clipped)
    if algorithm.kl_in == "loss":
        loss = loss + kl_coef * kl_estimate(logprobs, reference_logprobs, algorithm.kl_estimator)
    return TokenLoss(loss, kl_estimate(logprobs.detach(), reference_logprobs, "k3"), clipped)


def policy_loss(
    algorithm: RLConfig, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Loss per token before any normalisation, and where a ratio was clipped (bool), both (B, T).

    `logprobs` (B, T) carries the gradient; `old_logprobs` (B, T) is the learner's own before this step's updates;
    `advantages` (B, 1) or (B, T); `mask` (B, T): learnt tokens of samples that count.
    """
    log_ratio = logprobs - old_logprobs
    match algorithm:
        case PPO():
            low = high = algorithm.clip_ratio
            return clipped_surrogate(log_ratio, advantages, low, high, algorithm.dual_clip)
        case GRPO() | DrGRPO() | ReinforcePP():
            return clipped_surrogate(log_ratio, advantages, algorithm.clip_ratio, algorithm.clip_ratio)
        case DAPO():
            return clipped_surrogate(log_ratio, advantages, algorithm.clip_ratio, algorithm.clip_ratio_high)
        case GSPO():
            # A sample has one advantage; it stands at every token.
            one, low, high = advantages[:, :1], algorithm.clip_ratio, algorithm.clip_ratio_high
            return sequence_surrogate(log_ratio, mask, one, low, high)
        case RLOO():
            return whole_sequence_surrogate(log_ratio, mask, advantages[:, :1], algorithm.clip_ratio)
        case CISPO():
            return capped_policy_gradient(logprobs, old_logprobs, advantages, algorithm.ratio_cap)
    raise TypeError(f"{type(algorithm).__name__} has no policy loss")
