"""From labels to levels, from votes to a verdict, from a level to a reward. Pure functions."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import isfinite

from rewards.judge.types import HIGHEST, LOWEST

PHI: Mapping[float, float] = {-2: 0.0, -1: 0.25, 0: 0.5, 1: 0.75, 2: 1.0}
"""What a level is worth unless the recipe says otherwise."""


def swapped(levels: Sequence[float]) -> list[float]:
    """Levels seen from the reply that was shown second."""
    return [-level for level in levels]


def mean(values: Sequence[float]) -> float:
    """Raises `ZeroDivisionError` for none."""
    return sum(values) / len(values)


def expected_level(weights: Mapping[str, float], levels: Mapping[str, float]) -> float:
    """Sum of p(label) × level, with `weights` (those of labels, at least 0) made to sum to 1.

    As G-Eval (2303.16634) reads a score off the probabilities. Raises `ValueError` when the weights sum to nothing.
    """
    total = sum(weights.values())
    if not total > 0.0:
        raise ValueError("no label has any probability")
    return sum(weight * levels[label] for label, weight in weights.items()) / total


def contradict(first: float, second: float) -> bool:
    """Whether the two orders' means, both seen from the candidate, name different winners."""
    return first * second < 0.0


def agreement(votes: Sequence[float]) -> float:
    """Share of the votes that have the commonest sign, in (0, 1]; 1 for none."""
    if not votes:
        return 1.0
    signs = [(vote > 0) - (vote < 0) for vote in votes]
    return max(signs.count(sign) for sign in signs) / len(signs)


def abstains(first: Sequence[float], second: Sequence[float], votes: Sequence[float], least: float) -> bool:
    """Whether the orders contradict each other, or fewer than the share `least` of the votes agree.

    `first`, `second`: levels of each order, seen from the candidate; `second` may be empty.
    """
    return (bool(second) and contradict(mean(first), mean(second))) or agreement(votes) < least


def check_phi(phi: Mapping[float, float]) -> dict[float, float]:
    """The map with its keys as numbers, in order. Raises `ValueError` unless two or more levels have finite values that
    never fall."""
    try:
        points = sorted((float(level), float(value)) for level, value in phi.items())
    except (TypeError, ValueError):
        raise ValueError(f"phi is {dict(phi)!r}: levels and values are numbers, as {{-2: 0, 0: 0.5, 2: 1}}") from None
    if len(points) < 2 or not all(isfinite(number) for point in points for number in point):
        raise ValueError(f"phi is {dict(phi)!r}: two or more levels with finite values are needed")
    if any(low[1] > high[1] for low, high in pairwise(points)):
        raise ValueError(f"phi is {dict(phi)!r}: a higher level must not be worth less")
    return dict(points)


def worth(level: float, phi: Mapping[float, float]) -> float:
    """phi at a level, linear between its points and constant beyond them. `phi`: as `check_phi` gives it."""
    points = list(phi.items())
    if level <= points[0][0]:
        return points[0][1]
    for (low, value), (high, next_value) in pairwise(points):
        if level <= high:
            return value + (next_value - value) * (level - low) / (high - low)
    return points[-1][1]


def to_vote(level: float) -> int:
    """The nearest whole level, halves towards 0: what a mean says as one vote."""
    nearest = int(abs(level) + 0.5 - 1e-9) * (1 if level > 0 else -1)
    return max(LOWEST, min(HIGHEST, nearest))
