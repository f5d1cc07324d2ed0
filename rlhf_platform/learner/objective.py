"""What a recipe's algorithm is, of the functions in `rlhf_platform.algorithms`. Its settings' type says which."""

from typing import NamedTuple

import torch
from torch import Tensor

from rlhf_platform.algorithms.cispo import capped_policy_gradient
from rlhf_platform.algorithms.dr_grpo import centred_advantages
from rlhf_platform.algorithms.grpo import group_advantages
from rlhf_platform.algorithms.gspo import sequence_surrogate
from rlhf_platform.algorithms.importance import truncated_importance
from rlhf_platform.algorithms.kl import kl_to_reference
from rlhf_platform.algorithms.policy_loss import clipped_surrogate
from rlhf_platform.recipe.algorithms import CISPO, DAPO, GRPO, GSPO, AlgorithmConfig, DrGRPO


def advantages_in_groups(algorithm: AlgorithmConfig, rewards: Tensor, scored: Tensor) -> Tensor:
    """How much better than its group each sample is, (P, G); `scored` (P, G) bool, False where the reward failed."""
    if isinstance(algorithm, DrGRPO):
        return centred_advantages(rewards, scored)
    return group_advantages(rewards, scored)


class TokenLoss(NamedTuple):
    """All (B, T), before any normalisation and mask."""

    loss: Tensor
    """Carries the gradient."""
    kl: Tensor
    """To the reference, in nats; 0 without one."""
    clipped: Tensor
    """Bool: where the clip acted."""


def token_loss(
    algorithm: AlgorithmConfig,
    logprobs: Tensor,
    old_logprobs: Tensor,
    behaviour_logprobs: Tensor,
    reference_logprobs: Tensor | None,
    advantages: Tensor,
    mask: Tensor,
) -> TokenLoss:
    """The policy loss, corrected for what rollout computed differently (law 6), and the KL's share.

    As in `policy_loss`; `behaviour_logprobs` (B, T) are rollout's own, `reference_logprobs` (B, T) the warm start's.
    """
    loss, clipped = policy_loss(algorithm, logprobs, old_logprobs, advantages, mask)
    loss = truncated_importance(old_logprobs, behaviour_logprobs, algorithm.importance_cap) * loss
    if reference_logprobs is None:
        return TokenLoss(loss, torch.zeros_like(logprobs), clipped)
    kl = kl_to_reference(logprobs, reference_logprobs)
    return TokenLoss(loss + algorithm.kl_coef * kl, kl, clipped)


def policy_loss(
    algorithm: AlgorithmConfig, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Loss per token before any normalisation, and where a ratio was clipped (bool), both (B, T).

    `logprobs` (B, T) carries the gradient; `old_logprobs` (B, T) is the learner's own before this step's updates;
    `advantages` (B, 1); `mask` (B, T): completion tokens of samples that count.
    """
    log_ratio = logprobs - old_logprobs
    match algorithm:
        case GRPO() | DrGRPO():
            return clipped_surrogate(log_ratio, advantages, algorithm.clip_ratio, algorithm.clip_ratio)
        case DAPO():
            return clipped_surrogate(log_ratio, advantages, algorithm.clip_ratio, algorithm.clip_ratio_high)
        case GSPO():
            return sequence_surrogate(log_ratio, mask, advantages, algorithm.clip_ratio, algorithm.clip_ratio_high)
        case CISPO():
            return capped_policy_gradient(logprobs, old_logprobs, advantages, algorithm.ratio_cap)
    raise TypeError(f"{type(algorithm).__name__} has no policy loss")
