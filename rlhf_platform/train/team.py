"""The RL actors of a run, called as one: `Rollouts`, `Learners`, `Rewards`. Each call is a bounded wait."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from rewards.worker import RewardWorker
from rlhf_platform.learner.learner import Rendezvous, TrainSample
from rlhf_platform.learner.worker import LearnerWorker
from rlhf_platform.recipe.load import LoadedRecipe
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.train.cluster import Placement
from rlhf_platform.train.waiting import wait
from rlhf_platform.types import Prompt, Sample, ScoredSample
from rollout.engine import SamplingSettings
from rollout.worker import RolloutWorker


class Team:
    """All actors of a run, started together."""

    def __init__(self, loaded: LoadedRecipe, placement: Placement, model: Path, probe: Sequence[Prompt]) -> None:
        recipe = loaded.recipe
        bundles = iter(range(recipe.rollout.workers + recipe.learner.workers + recipe.scoring.workers))
        self.rollouts = Rollouts(recipe, placement, bundles, model, probe)
        self.learners = Learners(recipe, placement, bundles, model)
        self.rewards = Rewards(loaded, placement, bundles)
        for part in (self.rewards, self.learners, self.rollouts):
            part.ready()


class Rollouts:
    """All rollout workers: prompts are dealt out among them, weights go to each."""

    def __init__(
        self, recipe: Recipe, placement: Placement, bundles: Any, model: Path, probe: Sequence[Prompt]
    ) -> None:
        self._recipe, self._timeout = recipe, recipe.cluster.step_timeout
        actor: Any = RolloutWorker  # mypy does not see what `ray.remote` makes of a class
        self._workers = [
            actor.options(**placement.options(next(bundles), recipe.rollout.cpus, recipe.rollout.gpus)).remote(
                recipe, str(model)
            )
            for _ in range(recipe.rollout.workers)
        ]
        self._started = [worker.start.remote(list(probe)) for worker in self._workers]

    def ready(self) -> None:
        wait(
            self._started,
            "the rollout workers",
            "load the model and warm up",
            self._recipe.cluster.start_timeout,
        )

    def restart(self, model: Path, probe: Sequence[Prompt]) -> None:
        """Replace each worker's engine by a fresh one that serves the checkpoint `model` from disk."""
        answers = [worker.restart.remote(str(model), list(probe)) for worker in self._workers]
        wait(answers, "the rollout workers", f"serve {model}", self._recipe.cluster.start_timeout)

    def sample(self, prompts: Sequence[Prompt], seed: int) -> list[Sample]:
        """`algorithm.group_size` completions of each prompt, a prompt's together, in the order of the prompts."""
        rollout, algorithm = self._recipe.rollout, self._recipe.algorithm
        return self._generate(prompts, algorithm.group_size, rollout.temperature, seed, "generate samples")

    def greedy(self, prompts: Sequence[Prompt]) -> list[Sample]:
        """The most likely completion of each prompt."""
        return self._generate(prompts, 1, 0.0, 0, "decode the evaluation set")

    def probe(self, prompts: Sequence[Prompt], seed: int) -> list[list[Sample]]:
        """One completion of the fixed probe prompts from every worker."""
        settings = SamplingSettings(1, self._recipe.rollout.temperature, self._recipe.rollout.max_new_tokens, seed)
        answers = [worker.generate.remote(list(prompts), settings) for worker in self._workers]
        probed: list[list[Sample]] = wait(answers, "the rollout workers", "answer the probe", self._timeout)
        return probed

    def load_weights(self, update: Any) -> list[int]:
        """Give every worker the update (a Ray reference to a WeightUpdate); the version that each then holds."""
        answers = [worker.load_weights.remote(update) for worker in self._workers]
        versions: list[int] = wait(answers, "the rollout workers", "load weights", self._timeout)
        return versions

    def _generate(
        self, prompts: Sequence[Prompt], samples: int, temperature: float, seed: int, task: str
    ) -> list[Sample]:
        share = -(-len(prompts) // len(self._workers))
        parts = [list(prompts[i : i + share]) for i in range(0, len(prompts), share)]
        limit = self._recipe.rollout.max_new_tokens
        answers = [
            worker.generate.remote(part, SamplingSettings(samples, temperature, limit, seed + rank))
            for rank, (worker, part) in enumerate(zip(self._workers, parts, strict=False))
        ]
        return list(chain.from_iterable(wait(answers, "the rollout workers", task, self._timeout)))


class Learners:
    """All ranks of the learner. Calls that gather weights go to every rank."""

    def __init__(self, recipe: Recipe, placement: Placement, bundles: Any, model: Path) -> None:
        self._recipe, self._timeout = recipe, recipe.cluster.step_timeout
        actor: Any = LearnerWorker
        self._workers = [
            actor.options(**placement.options(next(bundles), recipe.learner.cpus, recipe.learner.gpus)).remote(
                recipe, str(model)
            )
            for _ in range(recipe.learner.workers)
        ]
        self._address = self._workers[0].rendezvous_address.remote()

    def ready(self) -> None:
        timeout = self._recipe.cluster.start_timeout
        host, port = wait(self._address, "learner 0", "name a port", timeout)
        starts = [
            worker.start.remote(Rendezvous(rank, len(self._workers), host, port, self._timeout))
            for rank, worker in enumerate(self._workers)
        ]
        self.trainable_parameters = int(wait(starts, "the learners", "load the model and meet", timeout)[0])

    def train(self, samples: Sequence[TrainSample]) -> dict[str, float]:
        """One RL step over all ranks, each with an equal share; metrics are the same on every rank."""
        ranks = len(self._workers)
        share = len(samples) // ranks
        answers = [
            worker.train.remote(list(samples[rank * share : (rank + 1) * share]))
            for rank, worker in enumerate(self._workers)
        ]
        metrics: dict[str, float] = wait(answers, "the learners", "train", self._timeout)[0]
        return metrics

    def logprobs(self, samples: Sequence[Sample]) -> list[tuple[float, ...]]:
        answers = [worker.logprobs.remote(list(samples)) for worker in self._workers]
        values: list[tuple[float, ...]] = wait(answers, "the learners", "score the probe", self._timeout)[0]
        return values

    def weights(self, version: int) -> Any:
        """A Ray reference to the weights as `WeightUpdate`; they go from learner to rollout without the driver."""
        answers = [worker.weights.remote(version) for worker in self._workers]
        return answers[0]

    def save(self, path: Path) -> None:
        wait(
            [w.save.remote(str(path)) for w in self._workers],
            "the learners",
            "save the checkpoint",
            self._timeout,
        )

    def checkpoint_difference(self, path: Path, samples: Sequence[Sample]) -> float:
        answer = self._workers[0].checkpoint_difference.remote(str(path), list(samples))
        return float(wait(answer, "learner 0", "load the checkpoint in Transformers", self._timeout))


class Rewards:
    """All reward workers: samples are dealt out among them."""

    def __init__(self, loaded: LoadedRecipe, placement: Placement, bundles: Any) -> None:
        recipe = loaded.recipe
        self._recipe = recipe
        actor: Any = RewardWorker
        self._workers = [
            actor.options(**placement.options(next(bundles), recipe.scoring.cpus)).remote(
                list(recipe.rewards), str(loaded.base_dir)
            )
            for _ in range(recipe.scoring.workers)
        ]

    def ready(self) -> None:
        answers = [worker.ready.remote() for worker in self._workers]
        wait(answers, "the reward workers", "load the rewards", self._recipe.cluster.start_timeout)

    def score(self, samples: Sequence[Sample]) -> list[ScoredSample]:
        share = -(-len(samples) // len(self._workers))
        parts = [list(samples[i : i + share]) for i in range(0, len(samples), share)]
        answers = [worker.score.remote(part) for worker, part in zip(self._workers, parts, strict=False)]
        scored = wait(answers, "the reward workers", "score", self._recipe.cluster.step_timeout)
        return list(chain.from_iterable(scored))
