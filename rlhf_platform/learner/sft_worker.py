"""The warm start as a Ray actor: a shell around `warm_start` that can be asked how far it is."""

from collections.abc import Sequence
from pathlib import Path

import ray
import torch

from rlhf_platform.learner.learner import Rendezvous, free_port
from rlhf_platform.learner.sft import Stage, section_of, warm_start
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.types import Prompt


@ray.remote
class SFTWorker:
    """One rank of one stage. Needs `max_concurrency=2`: `progress` answers while `run` runs."""

    def __init__(self, recipe: Recipe, stage: Stage) -> None:
        self._recipe, self._stage = recipe, stage
        self._cpus = section_of(recipe, stage).cpus
        torch.set_num_threads(self._cpus)
        self._progress = (0, float("nan"))

    def rendezvous_address(self) -> tuple[str, int]:
        """This machine's address and a free port, for rank 0 to be met at."""
        host = str(ray.util.get_node_ip_address())
        return host, self._recipe.learner.port or free_port(host)

    def progress(self) -> tuple[int, float]:
        """Optimiser step reached and the loss there."""
        return self._progress

    def run(self, model: str, prompts: Sequence[Prompt], rendezvous: Rendezvous, out: str) -> None:
        def report(step: int, loss: float) -> None:
            self._progress = (step, loss)

        torch.set_num_threads(self._cpus)
        warm_start(self._recipe, self._stage, model, prompts, rendezvous, Path(out), report)
