"""What rollout and learner compute differently, measured and corrected (law 6)."""

from torch import Tensor


def importance_weights(learner: Tensor, behaviour: Tensor, mask: Tensor, kind: str, cap: float) -> Tensor:
    """Weight per token, (B, T), without gradient: learner's probability by rollout's, kept within bounds.

    Makes the gradient that of the learner's policy although another program sampled the tokens; the bounds keep the
    variance. `learner`, `behaviour` (B, T) are log-probs in nats; `mask` (B, T) the sampled tokens; 0 outside it.

    - `token`: the token's ratio, at most `cap` (Ionides 2008; for LLM rollouts Yao et al. 2025, "off-policy
      rollout-training mismatch").
    - `sequence`: the ratio of the whole sample, exp(sum over its tokens), at most `cap`, at each of its tokens:
      unbiased up to the cap, and the more variable the longer the sample.
    - `token_mask`: the token's ratio, and 0 where it is outside [1 / cap, cap] (IcePop, Ling team 2025).
    - `sequence_mask`: the ratio of the whole sample, and 0 for the sample where it is outside (masked importance
      sampling, Liu et al. 2025, "When speed kills stability").

    Raises ValueError for any other kind.
    """
    if kind not in ("token", "sequence", "token_mask", "sequence_mask"):
        raise ValueError(f"algorithm.importance is {kind!r}: token, sequence, token_mask or sequence_mask")
    outside = mask <= 0
    log_ratio = (learner - behaviour).detach().masked_fill(outside, 0.0)
    if kind.startswith("sequence"):
        log_ratio = log_ratio.sum(-1, keepdim=True)
    ratio = log_ratio.exp()
    if kind.endswith("_mask"):
        # Asked this way round, a ratio that is no number stays one and shows.
        weight = ratio.masked_fill((ratio < 1 / cap) | (ratio > cap), 0.0)
    else:
        weight = ratio.clamp(max=cap)
    return weight.expand(mask.shape).masked_fill(outside, 0.0)


def effective_sample_share(weight_sum: float, square_sum: float, count: float) -> float:
    """Share of the samples that equally weighted ones would need for the same variance, from 0 to 1 (Kish 1965).

    (sum of weights)^2 / (count x sum of their squares), over tokens: sums of ranks and micro-batches add up. 1 where
    all weights are equal, 0 where there are none.
    """
    return weight_sum**2 / (count * square_sum) if count and square_sum else 0.0


def max_mismatch(learner_logprobs: Tensor, behaviour_logprobs: Tensor, mask: Tensor) -> Tensor:
    """Largest absolute difference over completion tokens, a scalar in nats; all (B, T)."""
    return ((learner_logprobs - behaviour_logprobs).abs() * mask).max()
