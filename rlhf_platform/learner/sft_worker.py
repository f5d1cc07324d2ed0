"""The warm start as a Ray actor: a shell around `warm_start` that can be asked how far it is."""

from collections.abc import Sequence
from pathlib import Path

import ray

from rlhf_platform.learner.process_group import Rendezvous
from rlhf_platform.learner.sft import Course, Stage, section_of, warm_start
from rlhf_platform.learner.stage import StageShell
from rlhf_platform.recipe.schema import Recipe


@ray.remote
class SFTWorker(StageShell):
    """One rank of one stage."""

    def __init__(self, recipe: Recipe, stage: Stage) -> None:
        super().__init__(recipe, section_of(recipe, stage).cpus)
        self._stage = stage

    def run(self, courses: Sequence[Course], rendezvous: Rendezvous, out: str) -> None:
        self._take_cores()
        warm_start(self._recipe, self._stage, courses, rendezvous, Path(out), self._report)
