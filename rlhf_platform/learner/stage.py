"""What the actors of all trained stages have in common: where they meet, and how far they are."""

import ray
import torch

from rlhf_platform.learner.process_group import free_port
from rlhf_platform.recipe.schema import Recipe


class StageShell:
    """One rank of one stage. An actor of it needs `max_concurrency=2`: `progress` answers while `run` runs."""

    def __init__(self, recipe: Recipe, cpus: int) -> None:
        """`cpus`: cores, and threads to match them."""
        self._recipe, self._cpus = recipe, cpus
        torch.set_num_threads(cpus)
        self._progress = (0, float("nan"))

    def rendezvous_address(self) -> tuple[str, int]:
        """This machine's address and a free port, for rank 0 to be met at."""
        host = str(ray.util.get_node_ip_address())
        return host, self._recipe.learner.port or free_port(host)

    def progress(self) -> tuple[int, float]:
        """Optimiser step reached and the loss there."""
        return self._progress

    def _report(self, step: int, loss: float) -> None:
        self._progress = (step, loss)

    def _take_cores(self) -> None:
        """The thread that a stage runs in has a number of threads of its own."""
        torch.set_num_threads(self._cpus)
