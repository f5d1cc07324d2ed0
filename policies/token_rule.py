"""Which tokens may stand where in a completion: for the engine that samples and the learner alike (law 6)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

END_FROM = "end_from"
"""Among the extra arguments of a request to vLLM: tokens of a completion before it may end."""


class Band(NamedTuple):
    """How long a completion may be, end token included."""

    least: int
    """Tokens before it may end."""
    most: int | None
    """Tokens at which it is cut; None: no bound of its own."""


@dataclass(frozen=True)
class TokenRule:
    """Token t of a completion is of codebook t mod K; an end token may stand where a frame of K would begin.

    Text is written with one codebook, its pieces.
    """

    codebooks: tuple[tuple[int, ...], ...]
    """Token ids of each codebook, end tokens left aside."""
    ends: tuple[int, ...]

    def masks(self, size: int) -> Tensor:
        """(K + 1, size) bool, true for what may stand: in each codebook's place, and in the first's with the ends."""
        places = len(self.codebooks)
        masks = torch.zeros(places + 1, size, dtype=torch.bool)
        for place, tokens in enumerate(self.codebooks):
            masks[place, list(tokens)] = True
        masks[places] = masks[0]
        masks[places, list(self.ends)] = True
        return masks

    def rows(self, steps: Tensor, end_from: Tensor | int = 0) -> Tensor:
        """Which row of `masks` holds for each of the tokens `steps` (N,) of completions that may end from `end_from`
        tokens on."""
        places = len(self.codebooks)
        place = steps % places
        return torch.where((place == 0) & (steps >= end_from), places, place)
