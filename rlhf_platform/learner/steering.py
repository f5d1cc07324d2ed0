"""The coefficients of KL and entropy, steered where the recipe names a target."""

from collections.abc import Mapping

from rlhf_platform.algorithms.entropy import entropy_bonus_acts, next_entropy_coef
from rlhf_platform.algorithms.kl import next_kl_coef
from rlhf_platform.learner.objective import Coefficients
from rlhf_platform.recipe.algorithms import AlgorithmConfig, OnlineConfig, RLConfig


def has_entropy_bonus(algorithm: AlgorithmConfig) -> bool:
    """Whether the entropy needs a gradient."""
    return isinstance(algorithm, RLConfig) and (algorithm.entropy_coef > 0 or algorithm.entropy_target is not None)


class Steering:
    """Numbers that change from step to step, the same on every rank, since all see the metrics of all."""

    def __init__(self, algorithm: OnlineConfig) -> None:
        self._algorithm = algorithm
        self._kl, self._bonus, self._acts = algorithm.kl_coef, getattr(algorithm, "entropy_coef", 0.0), True

    @property
    def coefficients(self) -> Coefficients:
        return Coefficients(self._kl, self._bonus if self._acts else 0.0)

    def step(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """What weighed in this step, where it can change; afterwards, what will weigh in the next."""
        algorithm, said = self._algorithm, {}
        if not isinstance(algorithm, RLConfig):
            return {}
        if algorithm.kl_target is not None:
            said["kl_coef"] = self._kl
            self._kl = next_kl_coef(self._kl, metrics["kl"], algorithm.kl_target)
        if has_entropy_bonus(algorithm):
            said["entropy_coef"] = self.coefficients.entropy
        if algorithm.entropy_target is not None:
            self._bonus = next_entropy_coef(self._bonus, metrics["entropy"], algorithm.entropy_target)
            self._acts = entropy_bonus_acts(metrics["entropy"], algorithm.entropy_target)
        return said

    def state(self) -> dict[str, float]:
        return {"kl": self._kl, "bonus": self._bonus, "acts": float(self._acts)}

    def load_state(self, state: Mapping[str, float]) -> None:
        self._kl, self._bonus, self._acts = state["kl"], state["bonus"], bool(state["acts"])
