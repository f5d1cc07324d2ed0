"""Log-probs of the distribution that was sampled from (law 6): temperature and token mask included."""

import torch
from torch import Tensor


def token_logprobs(logits: Tensor, tokens: Tensor, allowed: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-prob of `tokens` and entropy of each distribution, in nats, both (...).

    `logits` (..., V); `tokens` (...); `allowed` (V,) bool, what the engine was allowed to sample.
    """
    scaled = logits.float() / temperature
    logprobs = scaled.masked_fill(~allowed, -torch.inf).log_softmax(-1)
    chosen = logprobs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    entropy = -(logprobs.exp() * logprobs.masked_fill(~allowed, 0.0)).sum(-1)
    return chosen, entropy
