"""What a loss is a mean over. The parts of a batch add up to the same mean however it was split (law 5).

The loss is the sum of per-token loss x `token_shares` over all micro-batches and ranks, divided by the sum of `units`.
- `token`: all tokens alike (DAPO 2503.14476, equation 12; CISPO).
- `sequence`: samples alike, each the mean over its own tokens (GRPO 2402.03300, equation 3; GSPO).
- `length`: samples alike, each the sum over its tokens divided by a constant (Dr. GRPO 2503.20783, section 3.2).
"""

from torch import Tensor


def token_shares(mask: Tensor, normalization: str, max_new_tokens: int) -> Tensor:
    """How much of a unit each token is, (B, T); 0 where `mask` (B, T) is 0: padding, and samples that failed."""
    match normalization:
        case "token":
            return mask
        case "sequence":
            return mask / mask.sum(-1, keepdim=True).clamp(min=1.0)
        case "length":
            return mask / max_new_tokens
    raise ValueError(f"algorithm.normalization is {normalization!r}: token, sequence or length")


def units(mask: Tensor, normalization: str) -> Tensor:
    """How many tokens, or samples with any, are in `mask` (B, T), a scalar: what the mean is over."""
    return mask.sum() if normalization == "token" else mask.any(-1).sum().to(mask.dtype)
