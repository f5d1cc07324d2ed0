"""What to change in a recipe that does not fit: small changes, each tried on the plan itself."""

import math
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

from rlhf_platform.recipe.algorithms import PPO, OnlineConfig
from rlhf_platform.recipe.schema import Recipe

MOST_KEYS = 3
"""Keys that one proposal may change."""
MOST_PROPOSALS = 3
_CACHE_SHARES = (0.9, 0.75, 0.5, 0.35, 0.25, 0.1)
_CHECKPOINTING, _OFFLOAD, _TRUNK, _DTYPE, _LORA = 2.0, 3.0, 5.0, 6.0, 7.0
"""Checkpointing and offload cost time, in this order; the others alter what is learnt."""


@dataclass(frozen=True)
class Change:
    """One override. `cost`: how much it alters, in steps of a knob; what changes the result of training costs more."""

    key: str
    value: Any
    cost: float

    def __str__(self) -> str:
        if isinstance(self.value, bool):
            return f"{self.key}={str(self.value).lower()}"
        return f"{self.key}={self.value:g}" if isinstance(self.value, float) else f"{self.key}={self.value}"


Proposal = tuple[Change, ...]


def proposals(recipe: Recipe, fits: Callable[[Recipe], bool], allowed: Callable[[Proposal], bool]) -> list[Proposal]:
    """The smallest sets of changes after which the recipe fits, at most `MOST_PROPOSALS`, smallest first.

    `fits` plans a changed recipe, `allowed` says whether `rlhf validate` would take it. None changes all the keys of a
    smaller one and more.
    """
    found: list[Proposal] = []
    for proposal in sorted(_sets(knobs(recipe)), key=lambda changes: (sum(c.cost for c in changes), len(changes))):
        keys = {change.key for change in proposal}
        if any({change.key for change in other} <= keys for other in found):
            continue
        if fits(changed(recipe, proposal)) and allowed(proposal):
            found.append(proposal)
            if len(found) == MOST_PROPOSALS:
                break
    return found


def changed(recipe: Recipe, proposal: Proposal) -> Recipe:
    """A copy of the recipe with the changes in it; sections without one are the recipe's own."""
    made = copy(recipe)
    for change in proposal:
        *path, name = change.key.split(".")
        section: Any = made
        for part in path:
            setattr(section, part, copy(getattr(section, part)))
            section = getattr(section, part)
        setattr(section, name, change.value)
    return made


def knobs(recipe: Recipe) -> list[list[Change]]:
    """What may be turned, by key, from a little to a lot. Only what lowers memory or the number of actors, or divides
    memory among more of them."""
    rollout, learner = recipe.rollout, recipe.learner
    # On one rank a stage divides nothing, but offload needs one.
    stages = range(learner.zero_stage + 1, 4) if learner.workers > 1 or learner.gpus else range(0)
    to_host = {"none": ["optimizer", "weights"], "optimizer": ["weights"], "weights": []}[learner.offload]
    found = [
        [Change("learner.micro_batch_size", v, i) for i, v in _halves(learner.micro_batch_size)],
        [Change("learner.micro_batch_tokens", v, i + 0.25) for i, v in _budgets(recipe)],
        [Change("learner.zero_stage", v, v - learner.zero_stage + (v == 3)) for v in stages],
        [Change("rollout.kv_cache_gib", v, i) for i, v in _cache(rollout.kv_cache_gib)],
        [Change("rollout.max_sequences", v, i) for i, v in _halves(rollout.max_sequences, least=8)],
        [Change("rollout.workers", v, 1.5 * i) for i, v in _halves(rollout.workers)],
        [Change("learner.workers", v, 1.5 * i) for i, v in _halves(learner.workers)],
        [Change("rollout.cpus", v, i) for i, v in _halves(rollout.cpus)],
        [Change("learner.cpus", v, i) for i, v in _halves(learner.cpus)],
    ]
    if not learner.activation_checkpointing:
        found.append([Change("learner.activation_checkpointing", True, _CHECKPOINTING)])
    if learner.gpus:
        found.append([Change("learner.offload", v, _OFFLOAD + i) for i, v in enumerate(to_host)])
    if isinstance(recipe.algorithm, PPO) and recipe.algorithm.critic == "copy":
        found.append([Change("algorithm.critic", "trunk", _TRUNK)])
    if recipe.backbone.dtype == "float32":
        found.append([Change("backbone.dtype", "bfloat16", _DTYPE)])
    if not learner.lora.rank:
        found.append([Change("learner.lora.rank", 16, _LORA)])
    return [changes for changes in found if changes]


def _halves(value: int, least: int = 1) -> Iterator[tuple[int, int]]:
    """How often it was halved, and what is left."""
    times = 0
    while value // 2 >= least:
        value, times = value // 2, times + 1
        yield times, value


def _budgets(recipe: Recipe) -> Iterator[tuple[int, int]]:
    """Smaller budgets of decoder positions; without one, of what the largest micro-batch may have."""
    if isinstance(recipe.algorithm, OnlineConfig):
        largest = recipe.learner.micro_batch_size * recipe.rollout.max_tokens
        yield from _halves(recipe.learner.micro_batch_tokens or largest, least=64)


def _cache(size: float) -> Iterator[tuple[int, float]]:
    """Smaller caches with two digits, so that they read well."""
    for times, share in enumerate(_CACHE_SHARES, start=1):
        digits = 1 - math.floor(math.log10(size * share))
        yield times, round(size * share, digits)


def _sets(turned: Sequence[Sequence[Change]]) -> Iterator[Proposal]:
    for number in range(1, MOST_KEYS + 1):
        for chosen in combinations(turned, number):
            yield from product(*chosen)
