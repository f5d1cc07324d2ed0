"""A step's prompts, sampled in waves: while one is sampled, the rewards of the one before are at work."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.tracking.clock import PhaseClock
from rlhf_platform.train.drafting import Drafting
from rlhf_platform.train.sessions import go_on, over_sessions
from rlhf_platform.train.team import Team
from rlhf_platform.types import Prompt, ScoredSample

_SEEDS = 104_729
"""From one wave to the next: more than there are rollout workers and turns of a session."""


@dataclass(frozen=True)
class Scoring:
    """What prompts came to."""

    samples: list[ScoredSample]
    """In groups, wave by wave; in each as `rlhf_platform.train.sessions.Played` has them."""
    work: Counter[str]
    """What it took to score them, for metrics."""
    silent: int
    """Sessions that ended early."""


def sample_and_score(
    recipe: Recipe, team: Team, prompts: Sequence[Prompt], step: int, seed: int, clock: PhaseClock, drafting: Drafting
) -> Scoring:
    """Sample the prompts, play their sessions and score all of it.

    The phase `reward` is what is waited for when there is nothing left to sample.
    """
    group = recipe.algorithm.group_size
    asked, sessions, silent = [], list[int](), 0
    for wave, part in enumerate(parts(prompts, recipe.rollout.waves)):
        drawn = seed + wave * _SEEDS
        with clock.phase("rollout"):
            samples = team.rollouts.sample(part, drawn)
            played = go_on(samples, team.rollouts.reply, group, recipe.dialogue, team.user, drawn)
        with clock.phase("reward"):
            asked.append(team.rewards.ask(played.samples, group))
        drafting.look()
        sessions += [len(sessions) + number for number in played.sessions]
        silent += played.silent
    with clock.phase("reward"):
        scored, work = team.rewards.scored(asked, step, group)
    return Scoring(over_sessions(scored, sessions, recipe.dialogue.session_weight), work, silent)


def parts(prompts: Sequence[Prompt], waves: int) -> list[Sequence[Prompt]]:
    """As many parts as there are waves, or prompts if these are fewer, of nearly the same size."""
    count = min(waves, len(prompts))
    cuts = [len(prompts) * number // count for number in range(count + 1)]
    return [prompts[a:b] for a, b in pairwise(cuts)]
