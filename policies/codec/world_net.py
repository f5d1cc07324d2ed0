"""The network of the codec `world`: WORLD's features to residual codes at 25 frames a second, and back."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from policies.codec.features import APERIODICITY, CEPSTRA, VOICED, WIDTH

ROWS = 8
"""Feature rows in a frame: 40 ms."""
CODEBOOKS = (512, 256, 256)
LATENT = 32
PAIR = 2  # rows that the fine layers see as one step
FINE, COARSE = 96, 160  # channels at 100 and at 25 steps a second


class Block(nn.Module):
    """A residual pair of convolutions over time, (B, C, T) to the same."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.wide = nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.point = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = x + self.point(F.gelu(self.wide(F.gelu(x))))
        return found


class ResidualQuantizer(nn.Module):
    """Codebooks of which each codes what those before it leave over (SoundStream, arXiv 2107.03312)."""

    def __init__(self, sizes: tuple[int, ...] = CODEBOOKS) -> None:
        super().__init__()
        self.sizes = sizes
        for number, size in enumerate(sizes):
            self.register_buffer(f"book{number}", torch.zeros(size, LATENT))

    def book(self, number: int) -> Tensor:
        """Entries (E, LATENT)."""
        found: Tensor = self.get_buffer(f"book{number}")
        return found

    def codes_of(self, latents: Tensor) -> Tensor:
        """Codes (N, K) of latents (N, LATENT)."""
        left, codes = latents, []
        for number in range(len(self.sizes)):
            codes.append(torch.cdist(left, self.book(number)).argmin(-1))
            left = left - self.book(number)[codes[-1]]
        return torch.stack(codes, dim=-1)

    def latents_of(self, codes: Tensor) -> Tensor:
        """Latents (N, LATENT) of codes (N, K)."""
        return torch.stack([self.book(number)[codes[:, number]] for number in range(codes.shape[1])]).sum(0)


class WorldNet(nn.Module):
    """Encoder, quantiser and decoder over normalised features."""

    mean: Tensor
    spread: Tensor
    sharpness: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(WIDTH))
        self.register_buffer("spread", torch.ones(WIDTH))
        self.register_buffer("sharpness", torch.ones(CEPSTRA))
        self.encoder = nn.Sequential(
            nn.Conv1d(PAIR * WIDTH, FINE, 5, padding=2),
            Block(FINE, 1),
            nn.Conv1d(FINE, COARSE, ROWS // PAIR, stride=ROWS // PAIR),
            Block(COARSE, 1),
            Block(COARSE, 1),
            nn.Conv1d(COARSE, LATENT, 1),
        )
        self.quantizer = ResidualQuantizer()
        self.decoder = nn.Sequential(
            nn.Conv1d(LATENT, COARSE, 3, padding=1),
            *(Block(COARSE, dilation) for dilation in (1, 2, 4, 1)),
            nn.ConvTranspose1d(COARSE, FINE, ROWS // PAIR, stride=ROWS // PAIR),
            Block(FINE, 1),
            Block(FINE, 2),
            nn.Conv1d(FINE, PAIR * WIDTH, 3, padding=1),
        )

    def latents(self, features: Tensor) -> Tensor:
        """(B, ROWS * F, WIDTH) to (B, F, LATENT)."""
        pairs = ((features - self.mean) / self.spread).unflatten(1, (-1, PAIR)).flatten(2)
        found: Tensor = self.encoder(pairs.transpose(1, 2)).transpose(1, 2)
        return found

    def features(self, latents: Tensor) -> Tensor:
        """(B, F, LATENT) to (B, ROWS * F, WIDTH); the column VOICED holds a log-odds."""
        pairs = self.decoder(latents.transpose(1, 2)).transpose(1, 2)
        found = pairs.unflatten(2, (PAIR, WIDTH)).flatten(1, 2)
        scaled = found * self.spread + self.mean
        return torch.cat([scaled[..., :VOICED], found[..., VOICED:APERIODICITY], scaled[..., APERIODICITY:]], dim=-1)

    def sharpen(self, features: Tensor) -> Tensor:
        """Features (..., WIDTH) whose cepstra vary as much as those of speech do.

        The decoder answers with a mean of what the codes could stand for, which is smoother than any of them (global
        variance, doi 10.1093/ietisy/e90-d.5.816).
        """
        mean = self.mean[:CEPSTRA]
        sharp = (features[..., :CEPSTRA] - mean) * self.sharpness + mean
        return torch.cat([sharp, features[..., CEPSTRA:]], dim=-1)
