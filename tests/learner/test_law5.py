"""Law 5 on the real learner: a batch has one gradient by each algorithm, however it is split, packed and dealt out."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_platform.learner.learner import Learner
from rlhf_platform.learner.process_group import Rendezvous, free_port
from rlhf_platform.learner.samples import Seen
from rlhf_platform.recipe.algorithms import (
    CISPO,
    DAPO,
    GDPO,
    GRPO,
    GSPO,
    PPO,
    RL_ALGORITHMS,
    RLOO,
    DrGRPO,
    OnlineConfig,
    OnlineDPO,
    ReinforcePP,
)
from rlhf_platform.recipe.schema import LearnerConfig, Recipe
from rlhf_platform.train.advantages import advantages_of
from rlhf_platform.types import Failed, Prompt, Sample, Scored, ScoredSample, StopReason

GROUP = 4
ALGORITHMS: list[OnlineConfig] = [
    GRPO(entropy_coef=0.01),
    DrGRPO(kl_coef=0.1, kl_estimator="straight_through"),
    DAPO(importance="token_mask"),
    GSPO(minibatches=1, importance="sequence"),
    CISPO(ratio_cap=1.05),
    GDPO(),
    RLOO(importance="sequence_mask"),
    ReinforcePP(),
    PPO(minibatches=1, dual_clip=3.0, critic_learning_rate=1.0),
    PPO(minibatches=1, critic="trunk", critic_learning_rate=1.0),
    OnlineDPO(),
]
"""All that differs between them is at work: clips, caps, masks, bonus, KL in loss and reward, critics."""
NAMES = [f"{a.type}-{getattr(a, 'critic', '')}".rstrip("-") for a in ALGORITHMS]
WHOLE = {"micro_batch_size": 64, "micro_batch_tokens": None, "micro_batch_seconds": None, "packing": False}
TIGHT = {"micro_batch_size": 3, "micro_batch_tokens": 120, "micro_batch_seconds": 2.0, "packing": True}

Gradients = dict[str, torch.Tensor]


def scored_for(clips: list[Prompt]) -> list[ScoredSample]:
    """Four samples of each clip, of different lengths; one reward failed."""
    made = []
    for i in range(GROUP * len(clips)):
        tokens = tuple(40 + (7 * i + 3 * k) % 200 for k in range(1 + (5 * i) % 7))
        # The behaviour log-probs of another program: off by some tenths, so that importance weights are not 1.
        logprobs = tuple(-5.0 - 0.3 * math.sin(i + k) for k in range(len(tokens)))
        sample = Sample(clips[i // GROUP], tokens, logprobs, "", StopReason.EOS, 0)
        made.append(ScoredSample(sample, Failed("raised", "") if i == 5 else Scored(math.cos(i), {})))
    return made


def moved(seen: Seen, number: int) -> Seen:
    """As if the policy had learnt since: every ratio, every KL and every value error is of its own size."""
    wave = np.sin(np.arange(len(seen.trained), dtype=np.float32) * 3 + number)

    def off(array: Any, by: float) -> Any:
        return None if array is None else array + by * wave

    return replace(
        seen,
        logprobs=off(seen.logprobs, 0.3),
        reference=off(seen.reference, 0.2),
        penalty=off(seen.penalty, 0.1),
        values=off(seen.values, 0.3),
    )


def recipe_of(algorithm: OnlineConfig, ranks: int, stage: int = 0) -> Recipe:
    """Plain gradient descent by a rate of 1, so that a step is the gradient."""
    learner = LearnerConfig(workers=ranks, zero_stage=stage, optimizer="sgd", learning_rate=1.0, max_grad_norm=1e9)
    return Recipe(name="test", steps=2, algorithm=replace(algorithm, group_size=GROUP), learner=learner)


class OneStep:
    """A learner whose step can be taken again from the same weights, split otherwise."""

    def __init__(self, recipe: Recipe, model: Path, rendezvous: Rendezvous, scored: list[ScoredSample]) -> None:
        self._learner = Learner(recipe, model, rendezvous)
        self._rank, self._world = rendezvous.rank, rendezvous.world_size
        self._modules = [
            self._learner._policy,
            *([self._learner._critic._engine.module] if self._learner._critic else []),
        ]
        self._start = [p.detach().clone() for p in self._parameters()]
        mine = self._share([s.sample for s in scored])
        seen: list[list[Seen]] = [[] for _ in range(self._world)]
        torch.distributed.all_gather_object(seen, self._learner.see(mine))
        everything = [moved(it, i) for i, it in enumerate(it for part in seen for it in part)]
        samples = advantages_of(scored, recipe.algorithm, everything)
        by_id = {id(s.sample): it for s, it in zip(scored, everything, strict=True)}
        self._samples = self._share([replace(s, seen=by_id[id(s.sample)]) for s in samples])
        self._everyone = samples

    def _share(self, items: list[Any]) -> list[Any]:
        size = len(items) // self._world
        return items[self._rank * size : (self._rank + 1) * size]

    def _parameters(self) -> Iterator[torch.nn.Parameter]:
        return (p for module in self._modules for p in module.parameters() if p.requires_grad)

    def moving(self, split: dict[str, Any]) -> tuple[float, dict[str, float]]:
        """How much likelier good samples have become than bad ones, and the metrics, when the policy moves in a step:
        two minibatches, twice."""
        learner, fixed, engine = self._learner, self._learner._algorithm, self._learner._engine
        learner._config = replace(learner._config, **split)
        learner._algorithm, rate = replace(fixed, epochs=2, minibatches=2), engine._rate
        engine._rate = lambda _: 0.05
        samples = [s.sample for s in self._everyone]
        before = learner.logprobs(samples)
        seen_anew = [replace(s, seen=None) for s in self._samples]
        metrics = learner.train(self._samples if learner._critic else seen_anew)
        after = learner.logprobs(samples)
        gain = sum(
            float(np.mean(np.asarray(item.advantage) * (np.asarray(new) - np.asarray(old)))) * item.counts
            for item, old, new in zip(self._everyone, before, after, strict=True)
        )
        learner._algorithm, engine._rate = fixed, rate
        self._reset()
        return gain, metrics

    def _reset(self) -> None:
        for parameter, start in zip(self._parameters(), self._start, strict=True):
            parameter.data.copy_(start)

    def gradients(self, split: dict[str, Any]) -> Gradients:
        self._learner._config = replace(self._learner._config, **split)
        self._learner.train(self._samples)
        found = {}
        for number, (parameter, start) in enumerate(zip(self._parameters(), self._start, strict=True)):
            found[str(number)] = start - parameter.detach()
        self._reset()
        return found


def assert_same(ours: Gradients, theirs: Gradients) -> None:
    assert any(gradient.abs().max() > 1e-3 for gradient in ours.values()), "nothing was learnt"
    for name, gradient in ours.items():
        torch.testing.assert_close(theirs[name], gradient, rtol=1e-4, atol=1e-5)


def hold_for_any_split(step: OneStep, whole: Gradients) -> None:
    sizes, tokens, seconds = st.integers(1, 16), st.none() | st.integers(64, 800), st.none() | st.floats(0.5, 20.0)

    @settings(max_examples=6, deadline=None, database=None)
    @given(sizes, tokens, seconds, st.booleans())
    def holds(size: int, tokens: int | None, seconds: float | None, packing: bool) -> None:
        budget = {"micro_batch_tokens": tokens, "micro_batch_seconds": seconds}
        assert_same(whole, step.gradients({"micro_batch_size": size, "packing": packing, **budget}))

    holds()


def _one_rank(rank: int, port: int, model: Path, clips: list[Prompt], out: Path) -> None:
    torch.set_num_threads(1)
    meeting = Rendezvous(rank, 1, "127.0.0.1", port, timeout=120)
    found, moving = {}, {}
    for name, algorithm in zip(NAMES, ALGORITHMS, strict=True):
        step = OneStep(recipe_of(algorithm, 1), model, meeting, scored_for(clips))
        whole = found[name] = step.gradients(WHOLE)
        hold_for_any_split(step, whole)
        moving[name] = step.moving(WHOLE)
    torch.save((found, moving), out)
    torch.distributed.destroy_process_group()


def _two_ranks(rank: int, port: int, model: Path, clips: list[Prompt], out: Path) -> None:
    torch.set_num_threads(1)
    meeting = Rendezvous(rank, 2, "127.0.0.1", port, timeout=120)
    found, moving = {}, {}
    for name, algorithm in zip(NAMES, ALGORITHMS, strict=True):
        step = OneStep(recipe_of(algorithm, 2), model, meeting, scored_for(clips))
        found[name] = [step.gradients(WHOLE), step.gradients(TIGHT)]
        moving[name] = step.moving(TIGHT)
    if rank == 0:
        torch.save((found, moving), out)
    torch.distributed.destroy_process_group()


Moving = dict[str, tuple[float, dict[str, float]]]


@pytest.fixture(scope="module")
def one_rank(
    tiny_checkpoint: Path, clips: list[Prompt], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Gradients], Moving]:
    out = tmp_path_factory.mktemp("law5") / "one.pt"
    mp.spawn(_one_rank, (free_port(), tiny_checkpoint, clips, out), nprocs=1, join=True)
    found: tuple[dict[str, Gradients], Moving] = torch.load(out)
    return found


@pytest.fixture(scope="module")
def two_ranks(
    tiny_checkpoint: Path, clips: list[Prompt], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, list[Gradients]], Moving]:
    out = tmp_path_factory.mktemp("law5") / "two.pt"
    mp.spawn(_two_ranks, (free_port(), tiny_checkpoint, clips, out), nprocs=2, join=True)
    found: tuple[dict[str, list[Gradients]], Moving] = torch.load(out)
    return found


def test_every_algorithm_is_held_to_it() -> None:
    assert {a.type for a in ALGORITHMS} == set(RL_ALGORITHMS)


def test_one_rank_has_one_gradient_however_its_samples_are_packed(
    one_rank: tuple[dict[str, Gradients], Moving],
) -> None:
    """The property itself is asserted in the rank's process, by hypothesis; a split that it finds fails the fixture."""
    assert list(one_rank[0]) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_two_ranks_have_the_gradient_of_one(
    name: str, one_rank: tuple[dict[str, Gradients], Moving], two_ranks: tuple[dict[str, list[Gradients]], Moving]
) -> None:
    for gradients in two_ranks[0][name]:
        assert_same(one_rank[0][name], gradients)


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_that_moves_within_a_step_moves_alike_on_two_ranks_and_towards_what_is_better(
    name: str, one_rank: tuple[dict[str, Gradients], Moving], two_ranks: tuple[dict[str, list[Gradients]], Moving]
) -> None:
    (gain, ours), (again, theirs) = one_rank[1][name], two_ranks[1][name]
    assert gain > 0.05
    assert again == pytest.approx(gain, rel=1e-2)
    # A token at the edge of a clip falls on either side of it by rounding.
    edges = {"clip_fraction", "value_clip_fraction"}
    assert ours.keys() == theirs.keys()
    for metric in ours.keys() - {"padding_share"}:  # of the split itself
        near = 0.05 if metric in edges else 1e-5
        assert ours[metric] == pytest.approx(theirs[metric], rel=5e-3, abs=near), metric
