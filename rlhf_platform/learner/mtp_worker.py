"""The fitting of heads as a Ray actor: a shell around `fit_heads` that can be asked how far it is."""

from collections.abc import Sequence
from pathlib import Path

import ray

from rlhf_platform.learner.mtp import fit_heads
from rlhf_platform.learner.process_group import Rendezvous
from rlhf_platform.learner.stage import StageShell
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.types import Prompt


@ray.remote
class MtpWorker(StageShell):
    """One rank."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe, recipe.mtp.cpus)

    def run(self, model: str, prompts: Sequence[Prompt], rendezvous: Rendezvous, out: str) -> dict[str, float]:
        self._take_cores()
        return fit_heads(self._recipe, model, prompts, rendezvous, Path(out), self._report)
