"""The RL actors of a run, called as one: `Rollouts`, `Learners`, `Rewards`. Each call is a bounded wait."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import Any

from policies.mtp.acceptance import Acceptance
from rewards.algebra import combine
from rewards.answers import Answer
from rewards.plugin import terms_of
from rewards.processes.batch import InputBatch, PackedBatch
from rewards.score import Answers
from rewards.worker import RewardWorker
from rlhf_platform.errors import RecipeError
from rlhf_platform.learner.process_group import Rendezvous
from rlhf_platform.learner.samples import Seen, TrainSample
from rlhf_platform.learner.worker import LearnerWorker
from rlhf_platform.recipe.algorithms import GDPO
from rlhf_platform.recipe.load import LoadedRecipe
from rlhf_platform.recipe.rewards import reward_reservation
from rlhf_platform.recipe.schema import Recipe, RewardConfig, ScoringConfig
from rlhf_platform.train.cluster import Placement
from rlhf_platform.train.judging.judges import Judges
from rlhf_platform.train.judging.users import user_of
from rlhf_platform.train.voice import Voice
from rlhf_platform.train.waiting import wait
from rlhf_platform.train.workers import Workers
from rlhf_platform.types import Prompt, Sample, ScoredSample, Sounds
from rollout.engine import SamplingSettings
from rollout.worker import RolloutWorker

PROBE_TOKENS = 8
"""Of an answer to the probe: each token's log-prob depends on all weights, and every sync waits for them."""
_SCORING_SHARE = 0.9
"""Of `cluster.step_timeout`. What is not scored by then has failed, and the failure names its reward."""


class Team:
    """All actors of a run, started together."""

    def __init__(self, loaded: LoadedRecipe, placement: Placement, model: Path | str, probe: Sequence[Prompt]) -> None:
        recipe = loaded.recipe
        bundles = count()
        self.rollouts = Rollouts(recipe, placement, bundles, model, probe)
        self.learners = Learners(recipe, placement, bundles, model)
        self.rewards = Rewards(loaded, placement, bundles, model)
        for part in (self.rewards, self.learners, self.rollouts):
            part.ready()
        self.user = user_of(recipe, self.rewards.judges)

    def state(self, path: Path) -> dict[str, Any]:
        """What the actors' next step depends on: the learners' part below `path`, the rest as plain JSON values."""
        self.learners.save_state(path)
        return {
            "rollout": self.rollouts.random_states(),
            "learner": self.learners.random_states(),
            "rewards": self.rewards.states(),
        }

    def load_state(self, path: Path, state: Mapping[str, Any]) -> None:
        """Put the actors where `state` found them; rollout still lacks the weights, which a sync brings."""
        self.learners.load_state(path)
        self.rollouts.set_random_states(state["rollout"])
        self.learners.set_random_states(state["learner"])
        self.rewards.load_states(state["rewards"])


class Rollouts(Workers):
    """All rollout workers: prompts are dealt out among them, weights go to each."""

    def __init__(
        self, recipe: Recipe, placement: Placement, bundles: Iterator[int], model: Path | str, probe: Sequence[Prompt]
    ) -> None:
        rollout = recipe.rollout
        options = [placement.options(next(bundles), rollout.cpus, rollout.gpus) for _ in range(rollout.workers)]
        super().__init__(RolloutWorker, "the rollout workers", recipe.cluster, options, (recipe, str(model)))
        self._recipe = recipe
        self._started = [actor.start.remote(list(probe)) for actor in self._actors]

    def ready(self) -> None:
        wait(self._started, self._name, "load the model and warm up", self._timeouts.start_timeout)

    def restart(self, model: Path, probe: Sequence[Prompt]) -> None:
        """Replace each worker's engine by a fresh one that serves the checkpoint `model` from disk."""
        self._all("restart", f"serve {model}", str(model), list(probe), timeout=self._timeouts.start_timeout)

    def sample(self, prompts: Sequence[Prompt], seed: int) -> list[Sample]:
        """`algorithm.group_size` completions of each prompt, a prompt's together, in the order of the prompts."""
        rollout, algorithm = self._recipe.rollout, self._recipe.algorithm
        return self._generate(prompts, algorithm.group_size, rollout.temperature, seed, "generate samples")

    def reply(self, prompts: Sequence[Prompt], seed: int) -> list[Sample]:
        """One completion of each prompt, as `sample` draws them."""
        return self._generate(prompts, 1, self._recipe.rollout.temperature, seed, "go on with sessions")

    def answer(self, prompts: Sequence[Prompt]) -> list[Sample]:
        """One completion of each held-out prompt, drawn alike each time."""
        return self._generate(prompts, 1, self._recipe.evaluation.temperature, 0, "decode the evaluation set")

    def probe(self, prompts: Sequence[Prompt], seed: int) -> list[list[Sample]]:
        """One completion of the fixed probe prompts from every worker."""
        length = min(PROBE_TOKENS, self._recipe.rollout.max_new_tokens)
        settings = SamplingSettings(1, self._recipe.rollout.temperature, length, seed)
        return self._all("generate", "answer the probe", list(prompts), settings)

    def load_weights(self, update: Any) -> list[int]:
        """Give every worker the update (a Ray reference to a WeightUpdate); the version that each then holds."""
        return self._all("load_weights", "load weights", update)

    def load_heads(self, update: Any) -> None:
        """Give every worker new heads (a Ray reference to a WeightUpdate) to draft with."""
        self._all("load_heads", "load heads", update)

    def acceptance(self) -> Acceptance:
        """What became of the guesses in each worker's last answer."""
        found = Acceptance()
        for part in self._all("acceptance", "say how many guesses were accepted"):
            found.add(part)
        return found

    def _generate(
        self, prompts: Sequence[Prompt], samples: int, temperature: float, seed: int, task: str
    ) -> list[Sample]:
        limit = self._recipe.rollout.max_new_tokens
        answers = [
            actor.generate.remote(part, SamplingSettings(samples, temperature, limit, seed + rank))
            for rank, (actor, part) in enumerate(zip(self._actors, self._deal(prompts), strict=False))
        ]
        return list(chain.from_iterable(wait(answers, self._name, task, self._timeouts.step_timeout)))


class Learners(Workers):
    """All ranks of the learner. Calls that gather weights go to every rank."""

    def __init__(self, recipe: Recipe, placement: Placement, bundles: Iterator[int], model: Path | str) -> None:
        learner = recipe.learner
        options = [placement.options(next(bundles), learner.cpus, learner.gpus) for _ in range(learner.workers)]
        super().__init__(LearnerWorker, "the learners", recipe.cluster, options, (recipe, str(model)))
        self._address = self._actors[0].rendezvous_address.remote()

    def ready(self) -> None:
        timeouts = self._timeouts
        host, port = wait(self._address, "learner 0", "name a port", timeouts.start_timeout)
        size = len(self._actors)
        meetings = [Rendezvous(rank, size, host, port, timeouts.step_timeout) for rank in range(size)]
        started = self._each("start", meetings, "load the model and meet", timeouts.start_timeout)
        self.trainable_parameters = int(started[0])

    def see(self, samples: Sequence[Sample]) -> list[Seen]:
        """What policy, reference and critic make of the samples, in order, before they learn from them."""
        return list(chain.from_iterable(self._each("see", self._deal(samples), "score the samples")))

    def train(
        self, samples: Sequence[TrainSample], rehearsed: Sequence[Prompt] = (), weight: float = 0.0
    ) -> dict[str, float]:
        """One RL step over all ranks, each with an equal share; metrics are the same on every rank.

        `rehearsed`: rows whose references are learnt beside, with that `weight`.
        """
        rows = self._deal(rehearsed) if rehearsed else [[] for _ in self._actors]
        answers = [
            actor.train.remote(share, part, weight)
            for actor, share, part in zip(self._actors, self._deal(samples), rows, strict=False)
        ]
        found: list[dict[str, float]] = wait(answers, self._name, "train", self._timeouts.step_timeout)
        return found[0]

    def logprobs(self, samples: Sequence[Sample]) -> list[tuple[float, ...]]:
        values: list[tuple[float, ...]] = self._all("logprobs", "score the probe", list(samples))[0]
        return values

    def weights(self, version: int) -> Any:
        """A Ray reference to the weights as `WeightUpdate`; they go from learner to rollout without the driver."""
        answers = [actor.weights.remote(version) for actor in self._actors]
        return answers[0]

    def refit(self, samples: Sequence[Sample]) -> dict[str, float]:
        """Fit the heads anew to samples, each rank to an equal share; metrics are the same on every rank."""
        metrics: dict[str, float] = self._each("refit", self._deal(samples), "fit the heads anew")[0]
        return metrics

    def heads(self, version: int) -> Any:
        """A Ray reference to the heads as `WeightUpdate`."""
        return self._actors[0].heads.remote(version)

    def save(self, path: Path) -> None:
        """The policy in Hugging Face layout, with its heads if it has any; with LoRA, its adapter beside it."""
        self._all("save", f"save the model in {path}", str(path))

    def save_state(self, path: Path) -> None:
        self._all("save_state", f"save their state in {path}", str(path))

    def load_state(self, path: Path) -> None:
        self._all("load_state", f"load their state from {path}", str(path))

    def checkpoint_difference(self, path: Path, samples: Sequence[Sample]) -> float:
        answer = self._actors[0].checkpoint_difference.remote(str(path), list(samples))
        return float(wait(answer, "learner 0", "load the checkpoint in Transformers", self._timeouts.step_timeout))


@dataclass(frozen=True)
class Asked:
    """Samples that rewards are at work on."""

    samples: Sequence[Sample]
    answers: Sequence[Any]
    """Ray references to `Answers`, one for each worker."""
    work: Counter[str]
    """What it took to ask."""


class Rewards(Workers):
    """All reward workers: samples are dealt out among them, whole groups to one; their answers are combined here."""

    def __init__(self, loaded: LoadedRecipe, placement: Placement, bundles: Iterator[int], model: Path | str) -> None:
        """`model`: a checkpoint whose tokens it is that are scored.

        Raises RecipeError when a `token_env` names a variable that is not set.
        """
        recipe = self._recipe = loaded.recipe
        cpus, gpus = reward_reservation(recipe)
        options = [placement.options(next(bundles), cpus, gpus) for _ in range(recipe.scoring.workers)]
        tokens = tokens_of([*recipe.rewards, *recipe.evaluation.rewards])
        terms = [
            terms_of(configs, loaded.base_dir, section, recipe.seed, tokens)
            for section, configs in (("rewards", recipe.rewards), ("evaluation.rewards", recipe.evaluation.rewards))
        ]
        arguments = (*terms, recipe.cluster.start_timeout)
        super().__init__(RewardWorker, "the reward workers", recipe.cluster, options, arguments)
        self.voice = Voice(recipe, placement, bundles, model) if recipe.branch == "tts" else None
        self.judges = Judges(recipe, placement, bundles)

    def ready(self) -> None:
        judges = self.judges.keywords()
        started = [actor.start.remote(rank, judges) for rank, actor in enumerate(self._actors)]
        wait(started, self._name, "load the rewards", self._timeouts.start_timeout)
        if self.voice:
            self.voice.ready()

    def score(
        self, samples: Sequence[Sample], step: int, group_size: int | None = None
    ) -> tuple[list[ScoredSample], Counter[str]]:
        """Each sample with its outcome by `rewards`, in order, and what that took (`rewards.score.Answers.work`).

        `group_size`: of consecutive samples of one prompt; none: outcomes are not normalised in groups.
        """
        return self.scored([self.ask(samples, group_size)], step, group_size)

    def ask(self, samples: Sequence[Sample], group_size: int | None = None) -> Asked:
        """Set `rewards` to work on samples; `scored` waits for what they say."""
        return self._ask("score", samples, group_size or 1)

    def scored(
        self, asked: Sequence[Asked], step: int, group_size: int | None = None
    ) -> tuple[list[ScoredSample], Counter[str]]:
        """As `score`, of all that was asked: the outcomes are those of asking about all samples at once."""
        samples = [sample for each in asked for sample in each.samples]
        answers, work = self._answers(asked)
        # Before RL there is an evaluation; schedules begin with the first step.
        scoring = self._recipe.scoring
        if isinstance(self._recipe.algorithm, GDPO):
            scoring = replace(scoring, normalize="terms")
        outcomes = combine(self._recipe.rewards, scoring, answers, group_size, max(step, 1))
        return list(map(ScoredSample, samples, outcomes)), work

    def evaluate(self, samples: Sequence[Sample]) -> list[ScoredSample]:
        """Each sample with its outcome by `evaluation.rewards`, in order; empty when there are none."""
        terms = self._recipe.evaluation.rewards
        if not terms:
            return []
        answers, _ = self._answers([self._ask("evaluate", samples, 1)])
        return list(map(ScoredSample, samples, combine(terms, ScoringConfig(), answers, None, 0)))

    def sounds(self, samples: Sequence[Sample]) -> Sounds:
        """What samples that `evaluate` was asked about sound like, from the workers that have decoded them."""
        assert self.voice is not None
        return self.voice.sounds(self._shares(samples, 1))

    def _shares(self, samples: Sequence[Sample], unit: int) -> list[Sequence[Sample]]:
        """One for each worker, or fewer, of whole units."""
        size = -(-len(samples) // unit // len(self._actors)) * unit
        return [samples[start : start + size] for start in range(0, len(samples), size)]

    def states(self) -> list[dict[str, Any]]:
        """What the rewards of each worker remember, and their random generators."""
        return self._all("state", "say what their rewards remember")

    def load_states(self, states: Sequence[Mapping[str, Any]]) -> None:
        self._each("load_state", states, "take up what their rewards remembered")

    def _ask(self, method: str, samples: Sequence[Sample], unit: int) -> Asked:
        shares = self._shares(samples, unit)
        work: Counter[str] = Counter()
        sounds: Sequence[Any] = [None] * len(shares)
        if self.voice:
            sounds, took = self.voice.decode(shares)
            work.update(took)
        batches = [PackedBatch.of(InputBatch.of(share)) for share in shares]
        seconds = _SCORING_SHARE * self._timeouts.step_timeout
        asked = [
            getattr(actor, method).remote(batch, seconds, heard)
            for actor, batch, heard in zip(self._actors, batches, sounds, strict=False)
        ]
        return Asked(samples, asked, work)

    def _answers(self, asked: Sequence[Asked]) -> tuple[list[list[Answer]], Counter[str]]:
        """One answer per term and sample, and what they took; `reward_busy`: seconds of the slowest worker."""
        work: Counter[str] = Counter()
        parts: list[Answers] = []
        busy = [0.0] * len(self._actors)
        for each in asked:
            came: list[Answers] = wait(each.answers, self._name, "score", self._timeouts.step_timeout)
            work.update(each.work)
            for worker, part in enumerate(came):
                busy[worker] += part.seconds
            parts += came
        for part in parts:
            work.update(part.work)
        work.update({"reward_busy": max(busy)})
        by_term = zip(*(part.by_term for part in parts), strict=True)
        return [list(chain.from_iterable(columns)) for columns in by_term], work


def tokens_of(rewards: Sequence[RewardConfig]) -> dict[str, str]:
    """The values of the variables that `token_env` names. Raises RecipeError when one is not set."""
    names = {reward.token_env for reward in rewards if reward.token_env}
    for name in sorted(names - os.environ.keys()):
        raise RecipeError(
            f"token_env is {name}: that environment variable is not set here; set it to the server's token"
        )
    return {name: os.environ[name] for name in names}
