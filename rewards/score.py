"""Scoring rollout samples with the rewards of a recipe; `rewards.worker` makes an actor of it."""

from collections.abc import Sequence
from pathlib import Path

from rewards.algebra import weighted_sum
from rewards.calling import RewardCaller
from rewards.plugin import load_rewards
from rewards.types import RewardInput
from rlhf_platform.recipe.schema import RewardConfig
from rlhf_platform.types import Sample, ScoredSample


class Scorer:
    """Scores samples. `base_dir`: the recipe's folder. Raises `RecipeError` when one cannot be loaded."""

    def __init__(self, rewards: Sequence[RewardConfig], base_dir: Path) -> None:
        self._rewards = load_rewards(rewards, base_dir)
        self._callers = [RewardCaller(reward) for reward in self._rewards]

    @property
    def names(self) -> list[str]:
        """The terms, in the recipe's order."""
        return [reward.name for reward in self._rewards]

    def score(self, samples: Sequence[Sample]) -> list[ScoredSample]:
        """Each sample with its outcome, in order. Nothing that a reward does makes this raise.

        Terms run one after the other, each bounded as `RewardCaller.call` says.
        """
        inputs = [RewardInput.of(sample) for sample in samples]
        answers = [caller.call(inputs) for caller in self._callers]
        return [
            ScoredSample(sample, weighted_sum(self._rewards, [term[i] for term in answers]))
            for i, sample in enumerate(samples)
        ]

    def close(self) -> None:
        """Lets the threads of the rewards go."""
        for caller in self._callers:
            caller.close()
