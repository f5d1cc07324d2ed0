"""A round of offline training as a Ray actor: a shell around `train_preferences` and `train_reward_model`."""

from collections.abc import Sequence

import ray

from rlhf_platform.data.pairs import Judgement
from rlhf_platform.learner.preference import Round, train_preferences
from rlhf_platform.learner.process_group import Rendezvous
from rlhf_platform.learner.reward_model import train_reward_model
from rlhf_platform.learner.stage import StageShell
from rlhf_platform.recipe.preferences import RewardModel
from rlhf_platform.recipe.schema import Recipe


@ray.remote
class PreferenceWorker(StageShell):
    """One rank of one round."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe, recipe.learner.cpus)

    def run(self, task: Round, judgements: Sequence[Judgement], rendezvous: Rendezvous) -> dict[str, float]:
        """Train and save; metrics are the same on every rank."""
        self._take_cores()
        train = train_reward_model if isinstance(self._recipe.algorithm, RewardModel) else train_preferences
        return train(self._recipe, task, judgements, rendezvous, self._report)
