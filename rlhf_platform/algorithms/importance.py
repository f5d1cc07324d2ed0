"""What rollout and learner compute differently, measured and corrected (law 6)."""

from torch import Tensor


def truncated_importance(learner_logprobs: Tensor, behaviour_logprobs: Tensor, cap: float) -> Tensor:
    """Weight per token, (B, T), without gradient: min(learner / behaviour, cap).

    Makes the gradient that of the learner's policy although another program sampled the tokens; the cap bounds the
    variance (Ionides 2008; for LLM rollouts see Yao et al. 2025, "off-policy rollout-training mismatch").
    """
    return (learner_logprobs - behaviour_logprobs).exp().clamp(max=cap).detach()


def max_mismatch(learner_logprobs: Tensor, behaviour_logprobs: Tensor, mask: Tensor) -> Tensor:
    """Largest absolute difference over completion tokens, a scalar in nats; all (B, T)."""
    return ((learner_logprobs - behaviour_logprobs).abs() * mask).max()
