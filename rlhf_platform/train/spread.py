"""How far the rewards of a step lie apart, and which of them say the same."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from rlhf_platform.types import Scored

CORRELATED_PARTS = 8
"""Parts whose correlations are logged, the first in alphabetical order: 28 pairs. More fill a screen and inform
nobody."""


def spread_metrics(outcomes: Sequence[Scored]) -> dict[str, float]:
    """Standard deviation of the reward, mean and deviation of each of its parts, and the parts' correlations.

    Of a part `f0` the deviation is the F0 spread that shrinks as a CER reward flattens prosody.
    """
    parts = [outcome.parts for outcome in outcomes]
    values = values_by_name(parts)
    return {
        "reward_std": deviation([outcome.value for outcome in outcomes]),
        **{f"reward/{name}": mean(each) for name, each in values.items()},
        **{f"reward_std/{name}": deviation(each) for name, each in values.items()},
        **{
            f"reward_shaped/{name}": mean(each)
            for name, each in values_by_name([outcome.shaped for outcome in outcomes]).items()
        },
        **{f"reward_correlation/{a}~{b}": found for (a, b), found in correlations(parts).items()},
    }


def correlations(parts: Sequence[Mapping[str, float]]) -> dict[tuple[str, str], float]:
    """Pearson's correlation in [-1, 1] of each pair of parts, over the samples that have both.

    Names of a pair are in alphabetical order. A pair of which one part does not vary has none.
    """
    names = sorted({name for each in parts for name in each})[:CORRELATED_PARTS]
    found: dict[tuple[str, str], float] = {}
    for a, b in combinations(names, 2):
        both = np.array([(each[a], each[b]) for each in parts if a in each and b in each]).reshape(-1, 2)
        x, y = _direction(both[:, 0]), _direction(both[:, 1])
        if x is not None and y is not None:
            found[a, b] = float(np.clip(x @ y, -1.0, 1.0))
    return found


def values_by_name(each: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """The values under each name, in order; a mapping without the name adds none."""
    found: dict[str, list[float]] = {}
    for mapping in each:
        for name, value in mapping.items():
            found.setdefault(name, []).append(value)
    return found


def mean(values: Sequence[float]) -> float:
    """NaN of nothing."""
    return sum(values) / len(values) if values else float("nan")


def deviation(values: Sequence[float]) -> float:
    """Standard deviation over all of `values`, which are the whole step and no sample of it; NaN of nothing."""
    return float(np.std(values)) if values else float("nan")


def _direction(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    """Differences from the mean, scaled to length 1; None where all values are the same."""
    if len(values) == 0 or values.min() == values.max():
        return None
    centred = values - values.mean()
    centred /= np.abs(centred).max()  # the square of what is very small or very large is no number
    scaled: npt.NDArray[np.float64] = centred / np.linalg.norm(centred)
    return scaled
