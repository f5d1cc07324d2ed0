"""When a step of RL rehearses what the warm start learnt, and on which rows."""

import random
from collections.abc import Mapping, Sequence

from rlhf_platform.algorithms.rehearsal import RehearsalSwitch
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.types import Prompt


class Rehearsing:
    """Decides from the metrics of the steps so far and the step's number alone: a run that goes on decides alike."""

    def __init__(self, recipe: Recipe, rows: Sequence[Prompt], history: Sequence[Mapping[str, float]]) -> None:
        """`rows`: of the warm start. `history`: the metrics of the steps before, when a run goes on."""
        config = self._config = recipe.rehearsal
        self._switch = RehearsalSwitch(config.weight, config.tolerance, config.higher_is_better)
        self._rows, self._seed = rows, recipe.seed
        self._seen = [metrics.get(config.metric, float("nan")) for metrics in history]

    def note(self, metrics: Mapping[str, float]) -> None:
        """Take up a step's metrics, those of its evaluation among them."""
        self._seen.append(metrics.get(self._config.metric, float("nan")))

    def next(self, step: int) -> tuple[list[Prompt], float]:
        """The rows that a step rehearses and their weight; none, and 0, while the metric holds."""
        weight = self._switch.next_weight(self._seen) if self._config.metric else 0.0
        if not weight:
            return [], 0.0
        chosen = random.Random(f"{self._seed} rehearsal {step}").choices(self._rows, k=self._config.samples)
        return chosen, weight
