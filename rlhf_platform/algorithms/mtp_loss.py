"""The loss of multi-token prediction (StepAudio 2.5): CE + sum_h w_h CE_h, w_h = a^(h-1) / sum_j a^(j-1)."""

import torch
from torch import Tensor


def offset_weights(blocks: int, decay: float) -> Tensor:
    """Weights (K,) of the offsets 1 to K, which sum to 1; each is `decay` times the one before."""
    powers = torch.tensor([decay**h for h in range(blocks)])
    return powers / powers.sum()


def mtp_loss(nats: Tensor, tokens: Tensor, decay: float, with_backbone: bool) -> Tensor:
    """The loss, a scalar, of cross-entropies summed by offset (K + 1,) and the tokens they are to be a mean over.

    `tokens` may count those of other ranks and micro-batches too; parts of a batch then add up (law 5). Offset 0 is the
    backbone's own next token and counts `with_backbone`; an offset without a token counts nothing.
    """
    means = nats / tokens.clamp(min=1)
    loss = (offset_weights(len(nats) - 1, decay).to(means) * means[1:]).sum()
    return loss + means[0] if with_backbone else loss
