"""What a step's updates are made of, summed over micro-batches and ranks, as numbers that a person asks for."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rlhf_platform.algorithms.importance import effective_sample_share, importance_weights, max_mismatch
from rlhf_platform.algorithms.value_loss import explained_variance
from rlhf_platform.learner.micro_batches import MicroBatch
from rlhf_platform.learner.process_group import over_ranks
from rlhf_platform.recipe.algorithms import OnlineConfig, RLConfig

_POLICY = ("tokens", "kl", "clipped", "entropy", "held", "places", "loss")
_CRITIC = ("value_loss", "value_clipped", "value_tokens")
_FIT = ("count", "returns", "returns_squared", "errors", "errors_squared")


class Measures:
    """Sums over one rank's micro-batches; `metrics` adds up the ranks."""

    def __init__(self) -> None:
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._largest: dict[str, float] = {}
        self._updates = 0

    def begin_update(self) -> None:
        """The micro-batches that follow are those of the next update."""
        self._updates += 1

    @torch.no_grad()
    def policy(self, micro: MicroBatch, loss: Tensor, kl: Tensor, clipped: Tensor, entropy: Tensor) -> None:
        """`loss`: the micro-batch's part of the mean, a scalar; the others (B, T)."""
        held, places = micro.tokens()
        per_token = {"tokens": torch.ones_like(kl), "kl": kl, "clipped": clipped, "entropy": entropy}
        self._add({name: _sum(values, micro.mask) for name, values in per_token.items()})
        self._add({"held": held, "places": places, "loss": float(loss)})

    @torch.no_grad()
    def critic(self, micro: MicroBatch, loss: Tensor, clipped: Tensor) -> None:
        """`loss`, `clipped` (B, T)."""
        columns = (loss, clipped, torch.ones_like(loss))
        self._add({name: _sum(column, micro.mask) for name, column in zip(_CRITIC, columns, strict=True)})

    def fit(self, micro: MicroBatch) -> None:
        """How well the critic knew the returns before the step."""
        if micro.values is None or micro.returns is None:
            return
        error = micro.returns - micro.values
        columns = (torch.ones_like(error), micro.returns, micro.returns.square(), error, error.square())
        self._add({name: _sum(column, micro.mask) for name, column in zip(_FIT, columns, strict=True)})

    def gradient(self, name: str, norm: float) -> None:
        """The norm of an update's gradient, which all ranks know; the largest of the step is told."""
        self._largest[name] = max(norm, self._largest.get(name, 0.0))

    def _add(self, sums: Mapping[str, float]) -> None:
        for name, value in sums.items():
            self._sums[name] += value

    def metrics(self) -> dict[str, float]:
        """Over all ranks. Every rank must ask."""
        names = (*_POLICY, *_CRITIC, *_FIT)
        added = over_ranks(torch.tensor([float(self._sums[name]) for name in names], dtype=torch.float64)).tolist()
        sums = dict(zip(names, added, strict=True))
        tokens = max(sums["tokens"], 1.0)
        found = {
            "kl": sums["kl"] / tokens,
            "clip_fraction": sums["clipped"] / tokens,
            "entropy": sums["entropy"] / tokens,
            "policy_loss": sums["loss"] / max(self._updates, 1),
            "padding_share": 1 - sums["held"] / max(sums["places"], 1.0),
            **self._largest,
        }
        if sums["count"]:
            found["value_loss"] = sums["value_loss"] / max(sums["value_tokens"], 1.0)
            found["value_clip_fraction"] = sums["value_clipped"] / max(sums["value_tokens"], 1.0)
            found["explained_variance"] = explained_variance(*(sums[name] for name in _FIT))
        return found


def mismatch(micros: Sequence[MicroBatch], algorithm: OnlineConfig) -> dict[str, float]:
    """How far rollout and learner were apart on the step's samples before any update (law 6), over all ranks."""
    kind, cap = (algorithm.importance, algorithm.importance_cap) if isinstance(algorithm, RLConfig) else ("token", 2.0)
    largest = torch.zeros(())
    sums = torch.zeros(3, dtype=torch.float64)
    for micro in micros:
        assert micro.old is not None
        largest = torch.maximum(largest, max_mismatch(micro.old, micro.behaviour, micro.mask).cpu().float())
        weight = importance_weights(micro.old, micro.behaviour, micro.sampled, kind, cap) * micro.mask
        sums += torch.stack([weight.sum(), weight.square().sum(), micro.mask.sum()]).double().cpu()
    total, squares, tokens = over_ranks(sums).tolist()
    return {
        "logprob_diff_max": float(over_ranks(largest, torch.distributed.ReduceOp.MAX)),
        "importance_weight": total / max(tokens, 1.0),
        "effective_sample_share": effective_sample_share(total, squares, tokens),
    }


def _sum(values: Tensor, mask: Tensor) -> float:
    return float((values * mask).sum(dtype=torch.float64))
