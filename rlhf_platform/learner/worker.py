"""The learner as a Ray actor: a shell around `Learner`, one per rank."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
import torch

from policies.weights import WeightUpdate
from rlhf_platform import random_state
from rlhf_platform.learner.learner import Learner
from rlhf_platform.learner.process_group import Rendezvous, free_port
from rlhf_platform.learner.samples import Seen, TrainSample
from rlhf_platform.learner.verify import checkpoint_difference
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.types import Prompt, Sample


@ray.remote
class LearnerWorker:
    """One rank. `start` is called on all ranks at once, since they wait for each other."""

    def __init__(self, recipe: Recipe, model: str) -> None:
        torch.set_num_threads(recipe.learner.cpus)
        self._recipe, self._model = recipe, model

    def rendezvous_address(self) -> tuple[str, int]:
        """This machine's address and a free port, for rank 0 to be met at."""
        host = str(ray.util.get_node_ip_address())
        return host, self._recipe.learner.port or free_port(host)

    def start(self, rendezvous: Rendezvous) -> int:
        """Load the model and join the others. Returns the number of trainable parameters."""
        self._learner = Learner(self._recipe, self._model, rendezvous)
        return self._learner.trainable_parameters

    def see(self, samples: Sequence[Sample]) -> list[Seen]:
        return self._learner.see(samples)

    def train(
        self, samples: Sequence[TrainSample], rehearsed: Sequence[Prompt] = (), weight: float = 0.0
    ) -> dict[str, float]:
        return self._learner.train(samples, rehearsed, weight)

    def logprobs(self, samples: Sequence[Sample]) -> list[tuple[float, ...]]:
        return self._learner.logprobs(samples)

    def weights(self, version: int) -> WeightUpdate:
        return self._learner.weights(version)

    def refit(self, samples: Sequence[Sample]) -> dict[str, float]:
        return self._learner.refit(samples)

    def heads(self, version: int) -> WeightUpdate:
        return self._learner.heads(version)

    def save(self, path: str) -> None:
        self._learner.save(Path(path))

    def save_state(self, path: str) -> None:
        self._learner.save_state(Path(path))

    def load_state(self, path: str) -> None:
        self._learner.load_state(Path(path))

    def random_state(self) -> dict[str, Any]:
        return random_state.capture()

    def set_random_state(self, state: dict[str, Any]) -> None:
        random_state.restore(state)

    def checkpoint_difference(self, path: str, samples: Sequence[Sample]) -> float:
        """Largest log-prob difference between a saved checkpoint, loaded anew in Transformers, and `samples`."""
        return checkpoint_difference(self._recipe, path, samples)
