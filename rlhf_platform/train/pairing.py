"""A run that makes pairs of what the policy answers, for a reward model or DPO to learn from, and trains nothing."""

import json
from collections.abc import Sequence
from dataclasses import replace

from rlhf_platform.algorithms.dpo import best_and_worst
from rlhf_platform.data.pairs import Answer, Origin, Pair, write_pairs
from rlhf_platform.data.sampler import PromptSampler
from rlhf_platform.errors import RewardError
from rlhf_platform.recipe.preferences import MakePairs
from rlhf_platform.train.advantages import rewards_of
from rlhf_platform.train.cluster import placed
from rlhf_platform.train.context import RunContext
from rlhf_platform.train.failures import FailureWindow, failure_metrics
from rlhf_platform.train.measuring import sample_metrics
from rlhf_platform.train.offline import start_sampling
from rlhf_platform.train.preparing.prepare import Data
from rlhf_platform.types import ScoredSample

FILE = "pairs.jsonl"


def make_pairs(run: RunContext, data: Data, model: str) -> None:
    """Write `pairs.jsonl` into the run's folder. Raises RewardError when no two answers lie far enough apart."""
    recipe, folder, config = run.recipe, run.folder, run.recipe.algorithm
    assert isinstance(config, MakePairs)
    without_learner = replace(recipe, learner=replace(recipe.learner, workers=0))
    step = recipe.rollout.prompts_per_step
    rounds = -(-(config.prompts or len(data.rl)) // step)
    sampler = PromptSampler(data.rl, step, recipe.seed)
    failures = FailureWindow(recipe)
    scored: list[ScoredSample] = []
    with placed(without_learner) as placement:
        rollouts, rewards = start_sampling(run, placement, model, data.rl, learners=0)
        folder.status(phase="pairs")
        with run.display.phase("answers", rounds) as phase:
            for number in range(1, rounds + 1):
                samples = rollouts.sample(sampler.next(), recipe.seed * 1_000_003 + number)
                found, _ = rewards.score(samples, 0, config.group_size)
                failures.new_step()
                failures.check(found)
                scored += found
                phase.update(number, f"reward {sample_metrics(found, recipe.branch)['reward']:.3f}")
    pairs = ranked_pairs(scored, config.group_size, config.pairs_per_prompt, config.margin)
    if not pairs:
        raise RewardError(
            f"algorithm.margin is {config.margin:g}: no two of {config.group_size} answers to any prompt have rewards "
            "that far apart; lower it, or raise rollout.temperature"
        )
    write_pairs(folder.path / FILE, pairs)
    metrics = (
        sample_metrics(scored, recipe.branch)
        | failure_metrics(scored, config.group_size)
        | {"pairs": float(len(pairs))}
    )
    run.wandb.metrics(0, metrics)
    folder.write("results.json", json.dumps(metrics, indent=1))
    mean = sum(pair.margin for pair in pairs) / len(pairs)
    run.display.line(f"{folder.path / FILE}: {len(pairs)} pairs of {len(scored)} answers, margin {mean:.3g} on average")


def ranked_pairs(scored: Sequence[ScoredSample], group_size: int, most: int, margin: float = 0.0) -> list[Pair]:
    """Of each group the best with the worst, the second best with the second worst, and so on, `most` at most.

    Only pairs whose rewards differ by more than nothing and at least `margin`; samples without a reward are in none.
    """
    pairs: list[Pair] = []
    rewards, came_out = rewards_of(scored, group_size)
    for _ in range(most):
        best, worst, differ = best_and_worst(rewards, came_out)
        for group in differ.nonzero().flatten().tolist():
            places = [int(index[group]) for index in (best, worst)]
            lead = float(rewards[group, places[0]] - rewards[group, places[1]])
            samples = [scored[group * group_size + place].sample for place in places]
            came_out[group, places] = False
            if samples[0].tokens != samples[1].tokens and lead >= margin:
                chosen, rejected = (Answer(sample.text, sample.tokens) for sample in samples)
                origin = Origin(source="rollout")
                pairs.append(Pair(len(pairs) + 1, samples[0].prompt, chosen, rejected, lead, origin=origin))
    return pairs
