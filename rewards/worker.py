"""The reward actor: a thin shell around `rewards.score.Scorer`."""

from collections.abc import Sequence
from pathlib import Path

import ray

from rewards.score import Scorer
from rlhf_platform.recipe.schema import RewardConfig
from rlhf_platform.types import Sample, ScoredSample


@ray.remote
class RewardWorker:
    """Scores samples in a process of its own; reserve `scoring.cpus` cores with `.options(num_cpus=...)`."""

    def __init__(self, rewards: Sequence[RewardConfig], base_dir: str) -> None:
        self._rewards = list(rewards)
        self._base_dir = Path(base_dir)
        self._scorer: Scorer | None = None

    def _loaded(self) -> Scorer:
        # Not in __init__: an error there reaches the driver as a dead actor, here as the RecipeError it is.
        if self._scorer is None:
            self._scorer = Scorer(self._rewards, self._base_dir)
        return self._scorer

    def ready(self) -> list[str]:
        """Loads the rewards and names them. Raises `RecipeError` when one cannot be loaded."""
        return self._loaded().names

    def score(self, samples: Sequence[Sample]) -> list[ScoredSample]:
        """Each sample with its outcome, in order."""
        return self._loaded().score(samples)
