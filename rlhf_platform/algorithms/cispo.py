"""The policy gradient with a capped weight: CISPO, MiniMax-M1 (2506.13585), equations 4 and 5."""

from torch import Tensor


def capped_policy_gradient(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, cap: float
) -> tuple[Tensor, Tensor]:
    """Loss per token, -sg(min(r, cap)) A logprob with r = exp(logprobs - old_logprobs), and where r was capped.

    All (B, T), `advantages` (B, 1) or (B, T). The weight carries no gradient (sg) and has no lower bound, so every
    token keeps a gradient, a capped one too.
    """
    ratio = (logprobs - old_logprobs).detach().exp()
    return -ratio.clamp(max=cap) * advantages * logprobs, (ratio > cap) & (advantages != 0)
