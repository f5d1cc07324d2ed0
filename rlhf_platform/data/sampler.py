"""Which prompts a step gets: every prompt once per epoch, in an order that the seed fixes."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlhf_platform.errors import DataError, RecipeError
from rlhf_platform.types import Prompt


class PromptSampler:
    """Shuffles the prompts anew each epoch and hands out `per_step` at a time; a batch may span two epochs.

    The order depends on `seed` and the epoch alone, so the whole state is how many prompts were handed out,
    and a run that resumes gets exactly the prompts it would have got (law 7), also with another `per_step`.
    """

    def __init__(self, prompts: Sequence[Prompt], per_step: int, seed: int) -> None:
        """Raises `DataError` for no prompts, `RecipeError` unless 1 <= `per_step` <= number of prompts."""
        if not prompts:
            raise DataError("no prompts to sample from; the split has no rows")
        if not 1 <= per_step <= len(prompts):
            raise RecipeError(
                f"rollout.prompts_per_step: {per_step} is not between 1 and {len(prompts)}, the number"
                " of prompts; lower it or add data"
            )
        self._prompts = list(prompts)
        self._per_step = per_step
        self._seed = seed
        self._drawn = 0

    def next(self) -> list[Prompt]:
        """The next `per_step` prompts."""
        positions = range(self._drawn, self._drawn + self._per_step)
        orders = {epoch: self._order(epoch) for epoch in {self._epoch(first) for first in positions}}
        batch = [self._prompts[orders[self._epoch(p)][p % len(self._prompts)]] for p in positions]
        self._drawn += self._per_step
        return batch

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: plain JSON values."""
        return {"drawn": self._drawn, "seed": self._seed, "prompts": self._fingerprint()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken. Raises `DataError` if seed or prompts differ."""
        if state["seed"] != self._seed:
            raise DataError(
                f"sampler: the checkpoint's seed is {state['seed']}, this run's {self._seed}; resume with the same seed"
            )
        if state["prompts"] != self._fingerprint():
            raise DataError(
                "sampler: the prompts are not those of the checkpoint (other rows, or another order);"
                " resume with the same manifest and split"
            )
        self._drawn = int(state["drawn"])

    def _epoch(self, position: int) -> int:
        return position // len(self._prompts)

    def _order(self, epoch: int) -> list[int]:
        order: list[int] = np.random.default_rng([self._seed, epoch]).permutation(len(self._prompts)).tolist()
        return order

    def _fingerprint(self) -> str:
        return hashlib.sha256("\n".join(prompt.id for prompt in self._prompts).encode()).hexdigest()[:16]
