"""A team without models: what it does depends on weights, random generators and what its rewards remember, as a real
one's does, and it keeps all of it where a real one does."""

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_platform import random_state
from rlhf_platform.learner.samples import TrainSample
from rlhf_platform.types import Prompt, Sample, Scored, ScoredSample, StopReason

GROUP = 2


class FakeRollouts:
    """Writes "yes" the likelier, the larger the weight."""

    def __init__(self) -> None:
        self.weight, self.version = 0.0, 0

    def sample(self, prompts: Sequence[Prompt], seed: int) -> list[Sample]:
        generator = np.random.default_rng(seed)
        return [self._answer(prompt, generator) for prompt in prompts for _ in range(GROUP)]

    def reply(self, prompts: Sequence[Prompt], seed: int) -> list[Sample]:
        generator = np.random.default_rng(seed)
        return [self._answer(prompt, generator) for prompt in prompts]

    def answer(self, prompts: Sequence[Prompt]) -> list[Sample]:
        return [self._answer(prompt, np.random.default_rng(0)) for prompt in prompts]

    def probe(self, prompts: Sequence[Prompt], seed: int) -> list[list[Sample]]:
        return [[self._answer(prompt, np.random.default_rng(seed)) for prompt in prompts]]

    def load_weights(self, update: tuple[int, float]) -> list[int]:
        self.version, self.weight = update
        return [self.version]

    def _answer(self, prompt: Prompt, generator: np.random.Generator) -> Sample:
        text = "yes" if generator.random() < 1 / (1 + np.exp(-self.weight)) else "no"
        return Sample(prompt, (1,), (-abs(self.weight),), text, StopReason.EOS, self.version)


class FakeLearners:
    """One weight, moved by the advantages, with momentum."""

    trainable_parameters = 1

    def __init__(self) -> None:
        self.weight, self.momentum = 0.0, 0.0

    def train(
        self, samples: Sequence[TrainSample], rehearsed: Sequence[Prompt] = (), weight: float = 0.0
    ) -> dict[str, float]:
        gradient = sum(s.advantage if s.sample.text == "yes" else -s.advantage for s in samples)
        self.momentum = 0.9 * self.momentum + gradient
        self.weight += 0.01 * self.momentum + 0.001 * np.random.normal()
        return {"kl": self.weight**2, "logprob_diff_max": 0.0}

    def logprobs(self, samples: Sequence[Sample]) -> list[tuple[float, ...]]:
        return [(-abs(self.weight),) for _ in samples]

    def weights(self, version: int) -> tuple[int, float]:
        return version, self.weight

    def save(self, path: Path) -> None:
        path.mkdir(parents=True)
        (path / "config.json").write_text("{}")
        (path / "model.txt").write_text(str(self.weight))


class FakeRewards:
    """1 for a yes, less a running mean, with noise of its own."""

    def __init__(self) -> None:
        self.mean = 0.0

    def score(
        self, samples: Sequence[Sample], step: int, group_size: int | None = None
    ) -> tuple[list[ScoredSample], Counter[str]]:
        return [ScoredSample(sample, self._score(sample)) for sample in samples], Counter()

    def ask(self, samples: Sequence[Sample], group_size: int | None = None) -> Sequence[Sample]:
        return samples

    def scored(
        self, asked: Sequence[Sequence[Sample]], step: int, group_size: int | None = None
    ) -> tuple[list[ScoredSample], Counter[str]]:
        return self.score([sample for each in asked for sample in each], step, group_size)

    def evaluate(self, samples: Sequence[Sample]) -> list[ScoredSample]:
        return []

    def _score(self, sample: Sample) -> Scored:
        value = float(sample.text == "yes") - self.mean + 0.1 * random.random()
        self.mean = 0.99 * self.mean + 0.01 * value
        return Scored(value, {"yes": value})


class FakeTeam:
    """In place of `rlhf_platform.train.team.Team`."""

    def __init__(self) -> None:
        self.rollouts, self.learners, self.rewards = FakeRollouts(), FakeLearners(), FakeRewards()
        self.user = None

    def state(self, path: Path) -> dict[str, Any]:
        path.mkdir()
        (path / "state.json").write_text(json.dumps([self.learners.weight, self.learners.momentum]))
        return {"mean": self.rewards.mean, "random": random_state.capture()}

    def load_state(self, path: Path, state: Mapping[str, Any]) -> None:
        self.learners.weight, self.learners.momentum = json.loads((path / "state.json").read_text())
        self.rewards.mean = state["mean"]
        random_state.restore(state["random"])
