"""Actors that train a stage together, and the bounded waits for them (law 3)."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray

from rlhf_platform.data.pairs import Judgement
from rlhf_platform.errors import WaitTimeout
from rlhf_platform.learner.preference import Round
from rlhf_platform.learner.preference_worker import PreferenceWorker
from rlhf_platform.learner.process_group import Rendezvous
from rlhf_platform.learner.verify import checkpoint_difference
from rlhf_platform.recipe.schema import ClusterConfig, Recipe
from rlhf_platform.tracking.progress import Display
from rlhf_platform.train.cluster import Placement
from rlhf_platform.train.waiting import wait
from rlhf_platform.types import Sample


class JudgedTrainer:
    """Trains a round with fresh actors in the places of the learners, which are gone afterwards."""

    def __init__(self, recipe: Recipe, placement: Placement, display: Display) -> None:
        self._recipe, self._placement, self._display = recipe, placement, display

    def train(self, task: Round, judgements: Sequence[Judgement]) -> dict[str, float]:
        """Metrics of the round, whose checkpoint is then in `task.out`."""
        recipe, learner = self._recipe, self._recipe.learner
        Path(task.out).mkdir(parents=True)
        actor: Any = PreferenceWorker  # mypy does not see what `ray.remote` makes of a class
        workers = [
            actor.options(
                max_concurrency=2,
                **self._placement.options(recipe.rollout.workers + rank, learner.cpus, learner.gpus),
            ).remote(recipe)
            for rank in range(learner.workers)
        ]
        given = ray.put(list(judgements))
        name = f"{recipe.algorithm.type} round {task.number}"

        def start(worker: Any, meeting: Rendezvous) -> Any:
            return worker.run.remote(task, given, meeting)

        found: list[dict[str, float]] = run_stage(workers, start, name, task.steps, recipe.cluster, self._display)
        shutil.rmtree(f"{task.out}.trainer", ignore_errors=True)  # where Transformers would have kept its own
        return found[0]

    def checkpoint_difference(self, path: Path, samples: Sequence[Sample]) -> float:
        """Largest log-prob difference between a saved checkpoint, loaded anew in Transformers, and `samples`."""
        recipe, learner = self._recipe, self._recipe.learner
        options = self._placement.options(recipe.rollout.workers, learner.cpus, learner.gpus)
        answer = _difference.options(**options).remote(recipe, str(path), list(samples))
        return float(wait(answer, "the trainer", "load the checkpoint in Transformers", recipe.cluster.step_timeout))


@ray.remote
def _difference(recipe: Recipe, path: str, samples: Sequence[Sample]) -> float:
    return checkpoint_difference(recipe, path, samples)


def run_stage(
    workers: Sequence[Any],
    start: Callable[[Any, Rendezvous], Any],
    name: str,
    steps: int,
    timeouts: ClusterConfig,
    display: Display,
) -> list[Any]:
    """Let all ranks of a stage meet and run, and show how far rank 0 is; what each rank returned.

    `workers`: actors of a `StageShell`, which are killed at the end; `start(worker, rendezvous)` begins its run.
    Raises WaitTimeout when no step ends within `cluster.step_timeout`.
    """
    try:
        host, port = wait(workers[0].rendezvous_address.remote(), f"{name}: rank 0", "start", timeouts.start_timeout)
        size = len(workers)
        meetings = [Rendezvous(rank, size, host, port, timeouts.start_timeout) for rank in range(size)]
        done = [start(worker, meeting) for worker, meeting in zip(workers, meetings, strict=True)]
        with display.phase(name, steps) as phase:
            reached, quiet = -1, 0.0
            while not ray.wait(done, num_returns=1, timeout=1.0)[0]:
                step, loss = wait(workers[0].progress.remote(), f"{name}: rank 0", "report", timeouts.start_timeout)
                quiet = 0.0 if step > reached else quiet + 1.0
                if quiet > timeouts.step_timeout:
                    raise WaitTimeout("the run", f"step {step + 1} of {name}", quiet, "raise cluster.step_timeout")
                if step > reached:
                    phase.update(step, f"loss {loss:.3f}" if step else "loading")
                reached = step
            # One rank is done, or has failed and says why; the others wait for nothing that is not bounded.
            found: list[Any] = wait(done, f"{name}: its ranks", "finish", timeouts.step_timeout)
            phase.update(steps)
        return found
    finally:
        for worker in workers:
            ray.kill(worker)
