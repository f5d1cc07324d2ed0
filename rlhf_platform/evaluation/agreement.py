"""How far raters agree: Krippendorff's alpha, "Computing Krippendorff's Alpha-Reliability", 2011."""

from collections.abc import Iterable

import krippendorff
import numpy as np
import numpy.typing as npt

from rlhf_platform.evaluation.bootstrap import Interval


def alpha(
    ratings: Iterable[tuple[str, str, float]], *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> Interval | str:
    """Agreement of (item, rater, value), with the bootstrap interval over items, or why there is none.

    1 is full agreement, 0 what chance gives, below 0 less than that. Values count as ordinal: of b < tie < a, two who
    say a and b are further apart than one who says tie is from either, which nominal values would not know; and scores
    of 1 to 5 need not be equally far apart. Items with one rating say nothing and are left out.
    """
    counts = _counts(ratings)
    if not len(counts):
        return "no item has ratings of two raters"
    point = _alpha(counts)
    if np.isnan(point):
        return "all ratings are the same, so chance cannot be told from agreement"
    rng = np.random.default_rng(seed)
    drawn = [_alpha(counts[rng.integers(0, len(counts), len(counts))]) for _ in range(resamples)]
    tail = 50.0 * (1.0 - confidence)
    # A draw in which all ratings are the same has no alpha.
    low, high = np.nanpercentile(drawn, [tail, 100.0 - tail])
    return Interval(point, float(low), float(high), confidence)


def _counts(ratings: Iterable[tuple[str, str, float]]) -> npt.NDArray[np.int64]:
    """How many raters gave each value (V, rising), of each item that two or more rated: (N, V)."""
    by_item: dict[str, dict[str, float]] = {}
    for item, rater, value in ratings:
        by_item.setdefault(item, {})[rater] = value
    rated = [[*values.values()] for values in by_item.values() if len(values) > 1]
    domain = sorted({value for values in rated for value in values})
    return np.array([[values.count(value) for value in domain] for values in rated], dtype=np.int64)


def _alpha(counts: npt.NDArray[np.int64]) -> float:
    """NaN where there is one value only."""
    if np.count_nonzero(counts.sum(axis=0)) < 2:
        return float("nan")
    return float(krippendorff.alpha(value_counts=counts, level_of_measurement="ordinal"))
