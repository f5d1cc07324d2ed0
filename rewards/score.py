"""Scoring rollout samples with the rewards of a recipe; `rewards.worker` makes an actor of it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rewards.algebra import weighted_sum
from rewards.calling import RewardCaller
from rewards.plugin import load_rewards
from rewards.types import RewardInput
from rlhf_platform.errors import RewardError
from rlhf_platform.recipe.schema import RewardConfig
from rlhf_platform.types import Sample, ScoredSample


class Scorer:
    """Scores samples. `base_dir`: the recipe's folder. `section`: of the recipe that the rewards are from."""

    def __init__(self, rewards: Sequence[RewardConfig], base_dir: Path, section: str = "rewards") -> None:
        """Raises `RecipeError` when a reward cannot be loaded."""
        self._rewards = load_rewards(rewards, base_dir, section)
        self._callers = [RewardCaller(reward) for reward in self._rewards]

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

    def state(self) -> dict[str, Any]:
        """What each reward that has a `state_dict` method says it remembers, as a running mean, by name.

        Raises `RewardError` when that is not plain JSON values.
        """
        found = {reward.name: reward.fn.state_dict() for reward in self._rewards if hasattr(reward.fn, "state_dict")}
        for name, state in found.items():
            try:
                json.dumps(state)
            except (TypeError, ValueError) as error:
                raise RewardError(f"reward {name}: state_dict() must return plain JSON values ({error})") from None
        return found

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Give each reward back what `state` found, by its `load_state_dict` method."""
        for reward in self._rewards:
            if reward.name in state:
                reward.fn.load_state_dict(state[reward.name])  # type: ignore[attr-defined]

    def close(self) -> None:
        """Lets the threads of the rewards go."""
        for caller in self._callers:
            caller.close()
