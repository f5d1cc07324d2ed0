"""Offline training in rounds: take pairs that no round had before, train on them, serve what came of it."""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rlhf_platform.algorithms.dpo import best_and_worst
from rlhf_platform.data.pairs import Answer, Judgement, Pair, write_pairs
from rlhf_platform.data.sampler import PromptSampler
from rlhf_platform.errors import RecipeError, RewardError
from rlhf_platform.learner.preference import Round
from rlhf_platform.recipe.preferences import JudgedConfig, PreferenceConfig
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.tracking.clock import PhaseClock
from rlhf_platform.train.advantages import rewards_of
from rlhf_platform.train.failures import FailureWindow, failure_metrics
from rlhf_platform.train.measuring import sample_metrics
from rlhf_platform.types import Failed, Prompt, Sample, ScoredSample


class Rollouts(Protocol):
    """What a round asks of `rlhf_platform.train.team.Rollouts`."""

    def sample(self, prompts: Sequence[Prompt], seed: int) -> list[Sample]: ...
    def restart(self, model: Path, probe: Sequence[Prompt]) -> None: ...


class Rewards(Protocol):
    """What a round asks of `rlhf_platform.train.team.Rewards`."""

    def score(
        self, samples: Sequence[Sample], step: int, group_size: int | None = None
    ) -> tuple[list[ScoredSample], Counter[str]]: ...


class Trainer(Protocol):
    """What a round asks of `rlhf_platform.train.stages.JudgedTrainer`."""

    def train(self, task: Round, judgements: Sequence[Judgement]) -> dict[str, float]: ...


@dataclass(frozen=True)
class RoundResult:
    """One round: what it drew, what came of it, and the numbers a person asks for."""

    number: int
    """From 1."""
    step: int
    """Optimiser steps of the run so far."""
    checkpoint: Path
    """The policy, or the reward model, after the round."""
    metrics: Mapping[str, float]
    prompts: Sequence[Prompt]
    failed: Sequence[ScoredSample]
    """Samples that have no reward."""


@dataclass(frozen=True)
class Material:
    """What a round learns from."""

    judgements: Sequence[Judgement]
    prompts: Sequence[Prompt]
    failed: Sequence[ScoredSample]
    metrics: Mapping[str, float]


def preference_rounds(
    recipe: Recipe,
    sampling: tuple[Rollouts, Rewards] | None,
    trainer: Trainer,
    prompts: Sequence[Prompt],
    model: Path | str,
    folder: Path,
    probe: Sequence[Prompt],
    judgements: Sequence[Judgement] | None = None,
    done: int = 0,
    policy: Path | str | None = None,
    history: Sequence[Mapping[str, float]] = (),
) -> Iterator[RoundResult]:
    """Run the rounds after `done`, which have left `policy` (none: the warm start); rollout serves it.

    `model`: the warm start. `judgements`: those of `data.pairs`; none: each round's are made by `sampling` from
    `prompts`, of which none is drawn twice; with judgements a reward model needs no sampling. What a round leaves is in
    `folder`: `pairs/round_N.jsonl` and, until the next but one, `rounds/round_N`. All that a round depends on is the
    checkpoint before it, its number, and what the reward functions remember. Raises RecipeError when there are too few
    prompts or pairs, RewardError when none of a round's prompts can be judged.
    """
    algorithm = recipe.algorithm
    assert isinstance(algorithm, JudgedConfig)
    rounds, moving = rounds_of(algorithm)
    size = round_size(recipe, len(prompts if judgements is None else judgements), judgements is not None)
    sampler = PromptSampler(prompts, recipe.rollout.prompts_per_step, recipe.seed) if judgements is None else None
    failures = FailureWindow(recipe, history)
    policy = policy or model
    for number in range(1, rounds + 1):
        drawn = draw(sampler, size // recipe.rollout.prompts_per_step) if sampler else []
        if number <= done:
            continue
        clock = PhaseClock()
        if judgements is None:
            assert sampling is not None
            material = made(recipe, *sampling, drawn, number, failures, clock)
            write_pairs(folder / "pairs" / f"round_{number}.jsonl", material.judgements)
        else:
            part = judgements[(number - 1) * size : number * size]
            material = Material(part, list({j.prompt.id: j.prompt for j in part}.values()), (), {})
        first, last = (recipe.steps * n // rounds for n in (number - 1, number))
        out = _checkpoint(folder, number)
        shutil.rmtree(out.parent, ignore_errors=True)  # of an attempt that was cut off
        task = Round(str(policy), str(policy if moving else model), first, last - first, str(out), number)
        with clock.phase("update"):
            metrics = trainer.train(task, material.judgements)
        if isinstance(algorithm, PreferenceConfig) and sampling is not None:
            with clock.phase("sync"):
                sampling[0].restart(out, probe)
        metrics |= {"round": number, "pairs": len(material.judgements), **material.metrics, **clock.seconds()}
        yield RoundResult(number, last, out, metrics, material.prompts, material.failed)
        shutil.rmtree(_checkpoint(folder, number - 1).parent, ignore_errors=True)
        policy = out


def draw(sampler: PromptSampler, times: int) -> list[Prompt]:
    """The prompts of a round."""
    return [prompt for _ in range(times) for prompt in sampler.next()]


def made(
    recipe: Recipe,
    rollouts: Rollouts,
    rewards: Rewards,
    prompts: Sequence[Prompt],
    number: int,
    failures: FailureWindow,
    clock: PhaseClock,
) -> Material:
    """Pairs that the policy makes of prompts: the best of `algorithm.group_size` samples against the worst.

    A prompt whose rewards are all equal, or of which fewer than two came out (law 2), makes none. Raises RewardError
    when none makes one.
    """
    step = recipe.rollout.prompts_per_step
    group = recipe.algorithm.group_size
    scored: list[ScoredSample] = []
    failures.new_step()
    for start in range(0, len(prompts), step):
        with clock.phase("rollout"):
            seed = recipe.seed * 1_000_003 + number * (len(prompts) // step) + start // step
            samples = rollouts.sample(prompts[start : start + step], seed)
        with clock.phase("reward"):
            found, _ = rewards.score(samples, number, group)
        failures.check(found)
        scored += found
    pairs = pairs_of(scored, group)
    if not pairs:
        raise RewardError(
            f"rewards: in round {number} all samples of each of {len(prompts)} prompts have the same reward, so that "
            "nothing can be chosen; raise algorithm.group_size or rollout.temperature"
        )
    metrics = sample_metrics(scored, recipe.branch) | failure_metrics(scored, group)
    metrics["groups_with_spread"] = len(pairs) / len(prompts)
    return Material(pairs, prompts, [s for s in scored if isinstance(s.outcome, Failed)], metrics)


def pairs_of(scored: Sequence[ScoredSample], group_size: int) -> list[Pair]:
    """The best of each group against its worst, with the difference of their rewards as the margin."""
    rewards, came_out = rewards_of(scored, group_size)
    best, worst, differ = best_and_worst(rewards, came_out)
    pairs: list[Pair] = []
    for group in differ.nonzero().flatten().tolist():
        chosen, rejected = (int(index[group]) for index in (best, worst))
        samples = [scored[group * group_size + place].sample for place in (chosen, rejected)]
        margin = float(rewards[group, chosen] - rewards[group, rejected])
        if samples[0].tokens != samples[1].tokens:
            better, worse = (Answer(sample.text, sample.tokens) for sample in samples)
            pairs.append(Pair(len(pairs) + 1, samples[0].prompt, better, worse, margin))
    return pairs


def rounds_of(algorithm: JudgedConfig) -> tuple[int, bool]:
    """How many rounds there are, and whether the reference moves along."""
    if isinstance(algorithm, PreferenceConfig):
        return algorithm.rounds, algorithm.reference == "moving"
    return 1, False


def round_size(recipe: Recipe, available: int, given: bool) -> int:
    """Prompts, or with `given` lines of `data.pairs`, of a round. Raises RecipeError when there are too few."""
    algorithm = recipe.algorithm
    assert isinstance(algorithm, JudgedConfig)
    rounds, _ = rounds_of(algorithm)
    what = "lines of data.pairs" if given else f"prompts of data.rl_split={recipe.data.rl_split}"
    unit = 1 if given else recipe.rollout.prompts_per_step
    size = algorithm.pairs_per_round or available // rounds // unit * unit
    if size == 0:
        at_a_time = "" if given else f", {unit} at a time (rollout.prompts_per_step)"
        raise RecipeError(
            f"algorithm.rounds is {rounds}: {available} {what} are too few for as many rounds{at_a_time}; lower it"
        )
    if size * rounds > available:
        raise RecipeError(
            f"algorithm.pairs_per_round is {size}: algorithm.rounds={rounds} take {size * rounds} {what}, each once, "
            f"and there are {available}; lower one of them or add data"
        )
    return size


def _checkpoint(folder: Path, number: int) -> Path:
    return folder / "rounds" / f"round_{number}" / "checkpoint"
