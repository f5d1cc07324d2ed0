"""Rehearsal: supervised data beside RL while a watched validation metric is below what it has been."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

from torch import Tensor


@dataclass(frozen=True)
class RehearsalSwitch:
    """Decides from a metric's history alone, so that a run that goes on decides as it would have."""

    weight: float
    """Of the supervised loss beside RL's, while it is on."""
    tolerance: float
    """In units of the metric, at least 0: on once it is worse than its best by more, off again once it is worse by half
    of that at most. What lies between leaves it as it was, so that noise does not turn it on and off."""
    higher_is_better: bool = True

    def next_weight(self, history: Sequence[float]) -> float:
        """The weight in the next step; `history`: the metric so far, oldest first, NaN where it was not measured."""
        sign, best, on = (1.0 if self.higher_is_better else -1.0), -float("inf"), False
        for value in history:
            if isnan(value):
                continue
            best = max(best, sign * value)
            fallen = best - sign * value
            on = fallen > (self.tolerance / 2 if on else self.tolerance)
        return self.weight if on else 0.0


def rehearsal_loss(logprobs: Tensor, mask: Tensor, tokens: Tensor | float | None = None) -> Tensor:
    """Mean negative log-likelihood of the reference's tokens, in nats, a scalar.

    `logprobs` (B, T) of the policy on what it should have said; `mask` (B, T), 1 at the tokens that count. `tokens`:
    how many the mean is over, by default those of the mask; with those of all micro-batches and ranks, parts of a batch
    add up (law 5).
    """
    total = mask.sum() if tokens is None else tokens
    return -(logprobs * mask).sum() / total
