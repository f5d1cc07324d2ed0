"""The RL loop: rollout, reward, advantage, update, sync."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import Tensor

from rlhf_platform.algorithms.dapo import has_spread, overlong_penalty
from rlhf_platform.data.sampler import PromptSampler
from rlhf_platform.learner.learner import TrainSample
from rlhf_platform.learner.objective import advantages_in_groups
from rlhf_platform.recipe.algorithms import DAPO, AlgorithmConfig
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.tracking.clock import PhaseClock
from rlhf_platform.train.measuring import check_failures, sample_metrics
from rlhf_platform.train.sync import sync
from rlhf_platform.train.team import Team
from rlhf_platform.types import Prompt, Scored, ScoredSample, StopReason


@dataclass(frozen=True)
class StepResult:
    """One RL step: what was sampled and scored, and the numbers a person asks for."""

    step: int
    prompts: Sequence[Prompt]
    """All that were drawn."""
    samples: Sequence[ScoredSample]
    metrics: Mapping[str, float]


def rl_steps(
    recipe: Recipe, team: Team, sampler: PromptSampler, probe: Sequence[Prompt], done: int = 0
) -> Iterator[StepResult]:
    """Run the steps after `done`, up to `recipe.steps`; rollout and learner hold the same weights, version `done`.

    All that a step depends on is the actors' state, the sampler's, and its number.
    """
    for step in range(done + 1, recipe.steps + 1):
        clock = PhaseClock()
        drawn, scored, spread = collect(recipe, team, sampler, step, clock)
        advantages = advantages_of(scored, recipe.algorithm)
        with clock.phase("update"):
            metrics = team.learners.train(advantages)
        with clock.phase("sync"):
            proof = sync(team.learners, team.rollouts, step, probe, recipe.backbone.dtype)
        metrics |= {"weight_version": proof.version, "probe_diff_max": proof.difference, "groups_with_spread": spread}
        yield StepResult(step, drawn, scored, sample_metrics(scored) | metrics | clock.seconds())


def collect(
    recipe: Recipe, team: Team, sampler: PromptSampler, step: int, clock: PhaseClock
) -> tuple[list[Prompt], list[ScoredSample], float]:
    """The prompts that a step draws, its scored samples, and the share of the prompts whose rewards have spread.

    DAPO draws again, up to `algorithm.max_rounds` times, while too few prompts have; those without then only fill the
    step up. Raises RewardError when too many rewards fail.
    """
    algorithm, wanted = recipe.algorithm, recipe.rollout.prompts_per_step
    rounds = algorithm.max_rounds if isinstance(algorithm, DAPO) else 1
    drawn: list[Prompt] = []
    groups: list[list[ScoredSample]] = []
    teaches: list[bool] = []
    for number in range(rounds):
        prompts = sampler.next()
        with clock.phase("rollout"):
            samples = team.rollouts.sample(prompts, seed=(recipe.seed * 1_000_003 + step) * rounds + number)
        with clock.phase("reward"):
            scored = team.rewards.score(samples)
            check_failures(scored, recipe.scoring.max_failure_rate)
        drawn += prompts
        groups += [scored[i : i + algorithm.group_size] for i in range(0, len(scored), algorithm.group_size)]
        teaches += has_spread(*rewards_of(scored, algorithm.group_size)).tolist()
        if sum(teaches) >= wanted:
            break
    best = sorted(range(len(groups)), key=lambda group: not teaches[group])[:wanted]
    kept = list(chain.from_iterable(groups[group] for group in sorted(best)))
    if isinstance(algorithm, DAPO):
        kept = penalised(kept, recipe.rollout.max_new_tokens, algorithm.overlong_share)
    return drawn, kept, sum(teaches) / len(teaches)


def penalised(scored: Sequence[ScoredSample], max_new_tokens: int, overlong_share: float) -> list[ScoredSample]:
    """DAPO's penalty for samples that are cut, or about to be, added to the reward as the part `overlong`."""
    lengths = torch.tensor([len(s.sample.tokens) for s in scored])
    cut = torch.tensor([s.sample.stop_reason is StopReason.LENGTH for s in scored])
    penalties = overlong_penalty(lengths, cut, max_new_tokens, overlong_share).tolist()
    return [
        replace(s, outcome=Scored(s.outcome.value + penalty, {**s.outcome.parts, "overlong": penalty}))
        if isinstance(s.outcome, Scored)
        else s
        for s, penalty in zip(scored, penalties, strict=True)
    ]


def rewards_of(scored: Sequence[ScoredSample], group_size: int) -> tuple[Tensor, Tensor]:
    """Rewards (P, G) and which of them came out (P, G); 0 stands where one did not (law 2: it counts nowhere)."""
    came_out = torch.tensor([isinstance(s.outcome, Scored) for s in scored]).view(-1, group_size)
    rewards = torch.tensor([s.outcome.value if isinstance(s.outcome, Scored) else 0.0 for s in scored])
    return rewards.view(-1, group_size), came_out


def advantages_of(scored: Sequence[ScoredSample], algorithm: AlgorithmConfig) -> list[TrainSample]:
    """Advantages within each group of consecutive `group_size` samples; a failed sample counts nowhere (law 2)."""
    rewards, counts = rewards_of(scored, algorithm.group_size)
    advantages = advantages_in_groups(algorithm, rewards, counts)
    return [
        TrainSample(s.sample, float(advantage), bool(count))
        for s, advantage, count in zip(scored, advantages.flatten(), counts.flatten(), strict=True)
    ]
