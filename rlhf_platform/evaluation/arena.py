"""Systems that spoke the same prompts, compared two by two: who wins how often, and who is ahead of all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isclose
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rlhf_platform.errors import DataError
from rlhf_platform.evaluation.bootstrap import Interval, wer_interval
from rlhf_platform.evaluation.utterances import System, Utterance

Qualities = Mapping[str, float]
"""How good what a system said is, by prompt id: higher is better. A prompt that could not be judged is not there."""

_POINTS = 400.0
"""Elo's scale: 400 points ahead are odds of ten to one."""


class Heard(Protocol):
    """What a system said to a prompt."""

    @property
    def whole(self) -> bool:
        """Whether it ended, and can be heard or read."""
        ...


@dataclass(frozen=True)
class Duel:
    """Two systems on the prompts that both have."""

    first: str
    second: str
    wins: int
    """Of the first."""
    ties: int
    losses: int
    left_out: int
    """Prompts without an outcome."""
    rate: Interval
    """Share of prompts that the first wins, a tie as half a prompt, with the bootstrap interval over prompts. Where
    all prompts end alike the interval is a point, and says nothing of other prompts."""


@dataclass(frozen=True)
class Rank:
    """Where a system stands."""

    system: str
    points: float
    """On Elo's scale; the mean over systems is 0."""


def duels(
    systems: Mapping[str, System], qualities: Mapping[str, Qualities], tie_margin: float = 0.0, seed: int = 0
) -> list[Duel]:
    """Every two systems, in order. Raises `DataError` when two have no prompt in common or none can be judged."""
    found = []
    for first, second in combinations(systems, 2):
        ours, theirs = qualities[first], qualities[second]
        outcomes = [
            outcome(a, b, ours.get(a.prompt_id), theirs.get(a.prompt_id), tie_margin)
            for a, b in common(first, systems[first], second, systems[second])
        ]
        found.append(tally(first, second, outcomes, seed))
    return found


def common(first: str, a: System, second: str, b: System) -> list[tuple[Utterance, Utterance]]:
    """What both said to the same prompts. Raises `DataError` when there is no such prompt, or its words differ."""
    shared = [(a[name], b[name]) for name in a if name in b]
    for one, other in shared:
        asked = [(u.text, u.instruction) for u in (one, other)]
        if asked[0] != asked[1]:
            raise DataError(
                f"{first} and {second}: prompt {one.prompt_id!r} is {asked[0]} and {asked[1]}: evaluate on the same"
            )
    if not shared:
        raise DataError(f"{first} and {second}: no prompt id in common; evaluate both on the same prompts")
    return shared


def outcome(a: Heard, b: Heard, quality_a: float | None, quality_b: float | None, tie_margin: float) -> float | None:
    """1 a wins, 0 b wins, 0.5 a tie, None where it cannot be told. What did not decode or end loses unheard."""
    if not (a.whole and b.whole):
        return 0.5 + 0.5 * (a.whole - b.whole)
    if quality_a is None or quality_b is None:
        return None
    ahead = quality_a - quality_b
    # 3.2 - 3.0 is a little more than 0.2.
    tied = abs(ahead) < tie_margin or isclose(abs(ahead), tie_margin, abs_tol=1e-9)
    return 0.5 if tied else float(ahead > 0)


def tally(first: str, second: str, outcomes: Sequence[float | None], seed: int = 0) -> Duel:
    """The duel of outcomes as `outcome` gives them. Raises `DataError` when there is none."""
    told = np.array([each for each in outcomes if each is not None])
    if not len(told):
        raise DataError(f"{first} and {second}: not one of {len(outcomes)} prompts could be judged")
    wins, losses = int((told > 0.5).sum()), int((told < 0.5).sum())
    # A share of prompts is an error rate with one word to a prompt.
    rate = wer_interval(told, np.ones(len(told)), seed=seed)
    return Duel(first, second, wins, len(told) - wins - losses, losses, len(outcomes) - len(told), rate)


def ranking(duels: Sequence[Duel]) -> list[Rank]:
    """All systems by the strengths of Bradley and Terry (Biometrika 39, 1952), the strongest first.

    A tie is half a win for each. Every two that met have two halves more, so that who won or lost all has a place.
    """
    names = list(dict.fromkeys(name for duel in duels for name in (duel.first, duel.second)))
    wins = np.zeros((len(names), len(names)))
    for duel in duels:
        i, j = names.index(duel.first), names.index(duel.second)
        wins[i, j] += duel.wins + duel.ties / 2 + 0.5
        wins[j, i] += duel.losses + duel.ties / 2 + 0.5
    points = _POINTS / np.log(10.0) * log_strengths(wins)
    ranks = [Rank(name, float(point)) for name, point in zip(names, points, strict=True)]
    return sorted(ranks, key=lambda rank: -rank.points)


def log_strengths(wins: npt.NDArray[np.float64], tolerance: float = 1e-9) -> npt.NDArray[np.float64]:
    """The most likely logarithms (S,) of strengths, mean 0, from how often i beat j (S, S).

    i beats j with odds strength_i : strength_j. Hunter's iteration (Annals of Statistics 32, 2004); every system must
    have won and lost.
    """
    games = wins + wins.T
    strengths = np.ones(len(wins))
    for _ in range(100_000):
        before = strengths
        strengths = wins.sum(axis=1) / (games / (before[:, None] + before[None, :])).sum(axis=1)
        strengths /= np.exp(np.log(strengths).mean())
        if np.abs(np.log(strengths / before)).max() < tolerance:
            break
    return np.log(strengths)
