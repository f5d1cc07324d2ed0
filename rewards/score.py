"""Asking all rewards of a recipe at once. `rewards.worker` makes an actor of it, `rewards.algebra` one number."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from rewards.answers import Answer
from rewards.plugin import Term
from rewards.pool import RewardPool
from rewards.processes.batch import PackedBatch
from rewards.remote.client import probe
from rlhf_platform.types import Failed, Sounds

PROBE_SECONDS = 30.0
"""For a server to say that it is there, before a run starts."""


@dataclass(frozen=True)
class Answers:
    """What the rewards said of some samples, and what that took."""

    by_term: list[list[Answer]]
    """One answer per sample for each term, in the order of the recipe."""
    work: Mapping[str, float]
    """`seconds/reward/NAME`: of all calls of a term together; `reward_retried`, `reward_cached`: samples;
    `reward_restarted`: processes."""
    seconds: float = 0.0
    """From the first call to the last answer."""


class Scorer:
    """The rewards of one section of a recipe, each with processes of its own. A context manager."""

    def __init__(self, terms: Sequence[Term], start_timeout: float = 300.0, gpus: Sequence[str] = ()) -> None:
        """`gpus`: for each term, what it may see, as in CUDA_VISIBLE_DEVICES.

        Raises `RecipeError` when a function cannot be loaded or a server does not answer, `WaitTimeout` when loading
        takes more than `start_timeout`.
        """
        self._pools: list[RewardPool] = []
        for term in terms:
            if term.config.url:
                probe(term, min(start_timeout, PROBE_SECONDS))
        try:
            for number, term in enumerate(terms):
                self._pools.append(RewardPool(term, start_timeout, gpus[number] if gpus else ""))
        except BaseException:
            self.close()
            raise
        self._threads = ThreadPoolExecutor(max(1, len(self._pools)), "rewards")

    def __enter__(self) -> "Scorer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def score(self, batch: PackedBatch, seconds: float, sounds: Sounds | None = None) -> Answers:
        """All answers, terms asked at the same time. Nothing that a reward does makes this raise.

        `seconds`: after which what has no answer yet is `Failed(timeout)`. `sounds`: what the samples sound like, where
        the policy speaks; one without a sound is `Failed(undecodable)`, and no reward is asked of it.
        """
        if sounds is None:
            return self._scored(batch, seconds)
        heard = [number for number in range(len(sounds)) if number not in sounds.failures]
        found = self._scored(batch.heard(sounds, heard), seconds)
        places = {number: place for place, number in enumerate(heard)}
        silent = {number: Failed("undecodable", why, "speech") for number, why in sounds.failures.items()}
        by_term: list[list[Answer]] = [
            [silent[n] if n in silent else answers[places[n]] for n in range(len(sounds))] for answers in found.by_term
        ]
        return replace(found, by_term=by_term)

    def _scored(self, batch: PackedBatch, seconds: float) -> Answers:
        start, before = time.monotonic(), self._counts()
        until = start + seconds
        asked = [self._threads.submit(pool.score, batch, until) for pool in self._pools]
        came = [each.result() for each in asked]
        work = {f"seconds/reward/{p.term.name}": sum(took) for p, (_, took) in zip(self._pools, came, strict=True)}
        counts = {name: float(count - before[name]) for name, count in self._counts().items()}
        return Answers([answers for answers, _ in came], work | counts, time.monotonic() - start)

    def state(self) -> dict[str, Any]:
        """What each reward's processes remember, and where their random generators stand, by name.

        Raises `RewardError` when a function's own state is not plain JSON values.
        """
        return {pool.term.name: pool.states() for pool in self._pools}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Give each reward back what `state` found."""
        for pool in self._pools:
            if pool.term.name in state:
                pool.load_states(state[pool.term.name])

    def close(self) -> None:
        """Kill all processes; the scorer is not used after that."""
        for pool in self._pools:
            pool.close()

    def _counts(self) -> dict[str, int]:
        return {
            "reward_retried": sum(pool.retried for pool in self._pools),
            "reward_cached": sum(pool.cached for pool in self._pools),
            "reward_restarted": sum(pool.restarts for pool in self._pools),
        }
