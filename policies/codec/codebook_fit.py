"""How residual codebooks follow the latents that they code: k-means to start with, then moving averages.

As in SoundStream (arXiv 2107.03312), with entries that nothing is coded by put where something is.
"""

import torch
from torch import Tensor

from policies.codec.world_net import ResidualQuantizer

DECAY = 0.98
ROUNDS = 20
"""Of k-means."""
DEAD = 0.08
"""Latents per batch, on average, below which an entry is moved."""


class CodebookFit:
    """Moving averages over batches of `batch` latents (N, LATENT)."""

    def __init__(self, quantizer: ResidualQuantizer, batch: int) -> None:
        self.quantizer = quantizer
        self.batch = batch
        self.counts: list[Tensor] = []
        self.sums: list[Tensor] = []

    @torch.no_grad()
    def start(self, latents: Tensor) -> None:
        """k-means of latents (N, LATENT), many more than entries, book by book."""
        left = latents
        for number in range(len(self.quantizer.sizes)):
            entries = self.quantizer.book(number)
            entries.copy_(_draw(left, len(entries)))
            for _ in range(ROUNDS):
                counts, sums = _gather(left, torch.cdist(left, entries).argmin(-1), len(entries))
                means = sums / counts.clamp(min=1).unsqueeze(-1)
                entries.copy_(torch.where(counts.unsqueeze(-1) > 0, means, _draw(left, len(entries))))
            self.counts.append((counts * self.batch / len(left)).clamp(min=0.5))
            self.sums.append(entries * self.counts[-1].unsqueeze(-1))
            left = left - entries[torch.cdist(left, entries).argmin(-1)]

    @torch.no_grad()
    def update(self, latents: Tensor, codes: Tensor) -> None:
        """Move the entries towards what they coded: latents (N, LATENT), codes (N, K)."""
        left = latents
        for number, (counts, sums) in enumerate(zip(self.counts, self.sums, strict=True)):
            entries, chosen = self.quantizer.book(number), codes[:, number]
            coded = entries[chosen]
            new_counts, new_sums = _gather(left, chosen, len(entries))
            counts.lerp_(new_counts, 1 - DECAY)
            sums.lerp_(new_sums, 1 - DECAY)
            if (dead := counts < DEAD).any():
                counts[dead] = 0.5
                sums[dead] = 0.5 * _draw(left, int(dead.sum()))
            entries.copy_(sums / counts.unsqueeze(-1))
            left = left - coded


def _gather(latents: Tensor, codes: Tensor, entries: int) -> tuple[Tensor, Tensor]:
    """How many latents each entry codes (E,), and their sums (E, LATENT)."""
    counts = torch.bincount(codes, minlength=entries).float()
    return counts, latents.new_zeros(entries, latents.shape[-1]).index_add_(0, codes, latents)


def _draw(latents: Tensor, count: int) -> Tensor:
    return latents[torch.randint(len(latents), (count,))]
