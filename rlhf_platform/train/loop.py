"""The RL loop: rollout, reward, advantage, update, sync."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch

from rewards.algebra import effective_weights
from rlhf_platform.algorithms.dapo import has_spread, overlong_penalty
from rlhf_platform.data.sampler import PromptSampler
from rlhf_platform.learner.objective import sees_first
from rlhf_platform.recipe.algorithms import DAPO
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.tracking.clock import PhaseClock
from rlhf_platform.train.advantages import advantages_of, rewards_of
from rlhf_platform.train.drafting import Drafting
from rlhf_platform.train.failures import FailureWindow, failure_metrics
from rlhf_platform.train.measuring import sample_metrics
from rlhf_platform.train.rehearsing import Rehearsing
from rlhf_platform.train.sync import sync
from rlhf_platform.train.team import Team
from rlhf_platform.train.waves import sample_and_score
from rlhf_platform.types import Failed, Prompt, Scored, ScoredSample, StopReason


@dataclass(frozen=True)
class Collected:
    """What a step has to learn from."""

    prompts: Sequence[Prompt]
    """All that were drawn."""
    samples: Sequence[ScoredSample]
    """Whole groups, as many prompts as the recipe says."""
    failed: Sequence[ScoredSample]
    """All that have no reward, also of groups that were not kept."""
    metrics: dict[str, float]


@dataclass(frozen=True)
class StepResult:
    """One RL step: what was sampled and scored, and the numbers a person asks for."""

    step: int
    prompts: Sequence[Prompt]
    failed: Sequence[ScoredSample]
    metrics: Mapping[str, float]


def rl_steps(
    recipe: Recipe,
    team: Team,
    sampler: PromptSampler,
    probe: Sequence[Prompt],
    done: int = 0,
    history: Sequence[Mapping[str, float]] = (),
    rehearsing: Rehearsing | None = None,
) -> Iterator[StepResult]:
    """Run the steps after `done`, up to `recipe.steps`; rollout and learner hold the same weights, version `done`.

    All that a step depends on is the actors' state, the sampler's, its number, and whether rewards failed in the steps
    before (`history`: their metrics).
    """
    failures, drafting = FailureWindow(recipe, history), Drafting(recipe, team, history)
    for step in range(done + 1, recipe.steps + 1):
        clock = PhaseClock()
        got = collect(recipe, team, sampler, step, clock, failures, drafting)
        seen = None
        if sees_first(recipe.algorithm):
            with clock.phase("logprobs"):
                seen = team.learners.see([s.sample for s in got.samples])
        advantages = advantages_of(got.samples, recipe.algorithm, seen)
        with clock.phase("update"):
            rehearsed, weight = rehearsing.next(step) if rehearsing else ([], 0.0)
            metrics = team.learners.train(advantages, rehearsed, weight)
            if recipe.rehearsal.metric:
                metrics["rehearsal_weight"] = weight
        with clock.phase("sync"):
            proof = sync(team.learners, team.rollouts, step, probe, recipe.backbone.dtype)
        metrics |= {"weight_version": proof.version, "probe_diff_max": proof.difference}
        metrics |= drafting.step([s.sample for s in got.samples], step, clock)
        # What `collect` counted is of all samples, also of groups that were not kept.
        said = sample_metrics(got.samples, recipe.branch) | got.metrics | metrics | clock.seconds()
        said |= {f"reward_weight/{name}": weight for name, weight in effective_weights(recipe.rewards, step).items()}
        yield StepResult(step, got.prompts, got.failed, said)


def collect(
    recipe: Recipe,
    team: Team,
    sampler: PromptSampler,
    step: int,
    clock: PhaseClock,
    failures: FailureWindow,
    drafting: Drafting,
) -> Collected:
    """A step's scored samples.

    DAPO draws again, up to `algorithm.max_rounds` times, while too few prompts have rewards with spread; those without
    then only fill the step up. Raises RewardError when too many rewards fail.
    """
    algorithm, wanted = recipe.algorithm, recipe.rollout.prompts_per_step
    rounds = algorithm.max_rounds if isinstance(algorithm, DAPO) else 1
    drawn: list[Prompt] = []
    groups: list[list[ScoredSample]] = []
    teaches: list[bool] = []
    work: Counter[str] = Counter()
    failures.new_step()
    for number in range(rounds):
        prompts = sampler.next()
        seed = (recipe.seed * 1_000_003 + step) * rounds + number
        scoring = sample_and_score(recipe, team, prompts, step, seed, clock, drafting)
        scored = scoring.samples
        failures.check(scored)
        drawn += prompts
        groups += [scored[i : i + algorithm.group_size] for i in range(0, len(scored), algorithm.group_size)]
        teaches += has_spread(*rewards_of(scored, algorithm.group_size)).tolist()
        work.update(scoring.work)
        if team.user:
            work["sessions_silent"] += scoring.silent
        if sum(teaches) >= wanted:
            break
    best: Sequence[int] = range(len(groups))
    if rounds > 1:
        best = sorted(sorted(best, key=lambda group: not teaches[group])[:wanted])
    kept = in_shares(list(chain.from_iterable(groups[g] for g in best)), algorithm.group_size, recipe.learner.workers)
    if isinstance(algorithm, DAPO):
        kept = penalised(kept, recipe.rollout.max_new_tokens, algorithm.overlong_share)
    everything = list(chain.from_iterable(groups))
    metrics = failure_metrics(everything, algorithm.group_size) | {"groups_with_spread": sum(teaches) / len(teaches)}
    if (busy := work.pop("reward_busy", 0.0)) and recipe.rollout.waves > 1:
        metrics["reward_overlap"] = max(0.0, 1.0 - clock.seconds()["seconds/reward"] / busy)
    return Collected(drawn, kept, [s for s in everything if isinstance(s.outcome, Failed)], metrics | work)


def in_shares(scored: list[ScoredSample], group_size: int, ranks: int) -> list[ScoredSample]:
    """The samples without the last groups that would give the learner's ranks unequal shares: ranks that have less to
    do would wait. Sessions end when they end, so that a step may have any number of groups."""
    while len(scored) % ranks and len(scored) > group_size:
        scored = scored[:-group_size]
    return scored


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
