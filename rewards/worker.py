"""The reward actor: a thin shell around `rewards.score.Scorer`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray

from rewards.plugin import Term
from rewards.processes.batch import PackedBatch
from rewards.score import Answers, Scorer
from rlhf_platform.types import Sounds

_SEEDS = 10_000
"""Seeds from one worker to the next: more than a reward has processes."""


@ray.remote
class RewardWorker:
    """Asks rewards, which run in processes of its own; reserve their cores and GPUs with `.options(...)`."""

    def __init__(self, rewards: Sequence[Term], evaluation: Sequence[Term], start_timeout: float) -> None:
        self._terms, self._start_timeout = (rewards, evaluation), start_timeout

    def start(self, rank: int, judges: Mapping[str, Mapping[str, str]]) -> None:
        """Load the rewards. `rank`: of this worker; `judges`: how those of the recipe are asked, by name.

        Raises `RecipeError` when one cannot be loaded.
        """
        # Not in __init__: an error there reaches the driver as a dead actor, here as the RecipeError it is.
        rewards, evaluation = (
            [replace(t.asking(judges), seed=t.seed + rank * _SEEDS) for t in terms] for terms in self._terms
        )
        needed = [term.config.gpus for term in (*rewards, *evaluation)]
        gpus = shared_out([str(gpu) for gpu in ray.get_gpu_ids()], needed)
        self._scorer = Scorer(rewards, self._start_timeout, gpus[: len(rewards)])
        self._judge = Scorer(evaluation, self._start_timeout, gpus[len(rewards) :])

    def score(self, batch: PackedBatch, seconds: float, sounds: Sounds | None) -> Answers:
        """What `rewards` say of the samples, and of what they sound like, within that time."""
        return self._scorer.score(batch, seconds, sounds)

    def evaluate(self, batch: PackedBatch, seconds: float, sounds: Sounds | None) -> Answers:
        """What `evaluation.rewards`, which train nothing, say of them."""
        return self._judge.score(batch, seconds, sounds)

    def state(self) -> dict[str, Any]:
        """What the rewards remember, and where their random generators stand."""
        return self._scorer.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._scorer.load_state(state)


def shared_out(gpus: Sequence[str], needed: Sequence[float]) -> list[str]:
    """For each reward the GPUs that it may see, comma-separated, when each takes its share after the one before it."""
    shares, start = [], 0.0
    for need in needed:
        end = start + need
        # A hair of slack: three thirds are a little less than one.
        shares.append(",".join(gpus[int(start + 1e-6) : int(-(-(end - 1e-6) // 1))]) if need else "")
        start = end
    return shares
