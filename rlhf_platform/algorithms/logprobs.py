"""Log-probs of the distribution that was sampled from (law 6): temperature and token mask included."""

import torch
from torch import Tensor

TILED_FROM = 32_768
"""Vocabulary from which `tiled_logprobs` is the way to go. Forward and backward of 256 tokens on one CPU core took 1.1
to 1.4 times as long tiled as at once over 512 to 16,384 entries (its backward computes the logits anew), and 0.5 to 1.0
times as long over 32,768 and more, at widths of 64 to 896; at 32,768 the logits and their log-softmax of those 256
tokens take 64 MiB."""

_TILE = 4_096
"""Vocabulary entries of a tile, which is that many by up to 4,096 tokens; 1,024 and 8,192 were no faster."""

_FORBIDDEN = -1e30
"""Added to a logit that may not be sampled. In float32 and bfloat16 it swallows the logit, and its probability is 0
exactly; unlike an infinity it may be multiplied with that 0, as entropy and gradient do."""


def token_logprobs(
    logits: Tensor, tokens: Tensor, allowed: Tensor, temperature: float, entropy_gradient: bool = True
) -> tuple[Tensor, Tensor]:
    """Log-prob of `tokens` and entropy of each distribution, in nats, both (...).

    `logits` (..., V); `tokens` (...); `allowed` (V,) or (..., V) bool, what the engine was allowed to sample. An
    entropy without gradient keeps nothing for backward; one with it keeps two values per token and vocabulary entry.
    """
    scaled = logits.float() / temperature
    logprobs = scaled.masked_fill(~allowed, -torch.inf).log_softmax(-1)
    chosen = logprobs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    with torch.set_grad_enabled(torch.is_grad_enabled() and entropy_gradient):
        entropy = -(logprobs.exp() * logprobs.masked_fill(~allowed, 0.0)).sum(-1)
    return chosen, entropy


def tiled_logprobs(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    tokens: Tensor,
    allowed: Tensor,
    temperature: float,
    entropy_gradient: bool = False,
) -> tuple[Tensor, Tensor]:
    """`token_logprobs` of the logits `hidden @ weight.T + bias`, which are never whole: TRL's kernel goes over tiles of
    tokens and vocabulary, and again in backward.

    `hidden` (N, H), `weight` (V, H), `bias` (V,), `tokens` (N,), `allowed` (V,); float32 or bfloat16. Returns (N,) and
    (N,), float32.
    """
    from trl.kernels import ChunkedLogProbFunction  # two seconds that a small vocabulary need not wait for

    mask = torch.zeros_like(allowed, dtype=torch.float32).masked_fill(~allowed, _FORBIDDEN)
    chosen, entropy, *_ = ChunkedLogProbFunction.apply(
        hidden,
        weight,
        mask if bias is None else bias.float() + mask,
        tokens,
        temperature,
        _TILE,
        None,
        1.0,
        ("entropy",),
    )
    return chosen.masked_fill(~allowed[tokens], -torch.inf), entropy if entropy_gradient else entropy.detach()
