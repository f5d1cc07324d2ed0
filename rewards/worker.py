"""The reward actor: a thin shell around `rewards.score.Scorer`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from rewards.score import Scorer
from rlhf_platform import random_state
from rlhf_platform.recipe.schema import RewardConfig
from rlhf_platform.types import Sample, ScoredSample


@ray.remote
class RewardWorker:
    """Scores samples in a process of its own; reserve `scoring.cpus` cores with `.options(num_cpus=...)`."""

    def __init__(self, rewards: Sequence[RewardConfig], evaluation: Sequence[RewardConfig], base_dir: str) -> None:
        self._rewards, self._evaluation = list(rewards), list(evaluation)
        self._base_dir = Path(base_dir)

    def start(self) -> None:
        """Load the rewards. Raises `RecipeError` when one cannot be loaded."""
        # Not in __init__: an error there reaches the driver as a dead actor, here as the RecipeError it is.
        self._scorer = Scorer(self._rewards, self._base_dir)
        self._judge = Scorer(self._evaluation, self._base_dir, "evaluation.rewards") if self._evaluation else None

    def score(self, samples: Sequence[Sample]) -> list[ScoredSample]:
        """Each sample with its outcome, in order."""
        return self._scorer.score(samples)

    def evaluate(self, samples: Sequence[Sample]) -> list[ScoredSample]:
        """Each sample with what the rewards of `evaluation.rewards`, which train nothing, say of it."""
        return self._judge.score(samples) if self._judge else []

    def state(self) -> dict[str, Any]:
        """What the rewards remember, and this process's random generators."""
        return {"rewards": self._scorer.state(), "random": random_state.capture()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._scorer.load_state(state["rewards"])
        random_state.restore(state["random"])
