"""Confidence intervals of a mean over the steps of a run, by the moving-block bootstrap.

Künsch, "The jackknife and the bootstrap for general stationary observations", Annals of Statistics 1989. Steps of a
run are not independent: each starts from the weights that the last one left. Blocks of consecutive steps are drawn
rather than steps, which keeps what hangs together within a block.

A run has few blocks, and the plain percentile interval is then too narrow. Deviations of a resample are therefore
widened by the share of the variance that blocks of this length leave out, n / (n - l), and by Student's t with
n / l - 1 degrees of freedom over the normal quantile. With n from 8 to 100 a 95 % interval then holds the mean of an
AR(1) series of coefficient 0.5 in about 90 % of cases, where independent steps would give 75 %.
"""

from math import ceil
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from rlhf_platform.evaluation.bootstrap import Interval

LEAST = 4
"""Steps below which there is no interval."""


def block_length(steps: int) -> int:
    """Consecutive steps in a block: the cube root of their number, rounded up (Hall, Horowitz and Jing 1995)."""
    return ceil(round(steps ** (1 / 3), 9))


def mean_difference(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    paired: bool,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean of `b` (M,) minus mean of `a` (N,), each a value per step in order.

    `paired`: value t of both is of the same step, N = M; the interval is then that of the mean of their differences.
    Raises `ValueError` for fewer than `LEAST` steps, values that are not finite, or paired series of two lengths.
    """
    rng = np.random.default_rng(seed)
    first, second = _series(a), _series(b)
    point = float(second.mean() - first.mean())
    if paired:
        if len(first) != len(second):
            raise ValueError(f"paired series have {len(first)} and {len(second)} steps: the same number is needed")
        deviations = _deviations(second - first, resamples, confidence, rng)
    else:
        deviations = _deviations(second, resamples, confidence, rng) - _deviations(first, resamples, confidence, rng)
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(deviations, [tail, 100.0 - tail])
    return Interval(point, point + float(low), point + float(high), confidence)


def _series(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    series = np.asarray(values, dtype=np.float64)
    if series.ndim != 1 or len(series) < LEAST or not np.isfinite(series).all():
        raise ValueError(f"a series of shape {series.shape}: at least {LEAST} finite values are needed")
    return series


def _deviations(
    series: npt.NDArray[np.float64], resamples: int, confidence: float, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Of each resample's mean from their mean (resamples,), widened as the head of this file says.

    From their own mean and not the series': the ends of a series are in fewer blocks than its middle.
    """
    steps = len(series)
    length = block_length(steps)
    starts = rng.integers(0, steps - length + 1, size=(resamples, ceil(steps / length), 1))
    drawn = (starts + np.arange(length)).reshape(resamples, -1)[:, :steps]
    means: npt.NDArray[Any] = series[drawn].mean(axis=1)
    normal = NormalDist().inv_cdf(0.5 + confidence / 2)
    wider = _student(normal, steps / length - 1) / normal * (steps / (steps - length)) ** 0.5
    return (means - means.mean()) * wider


def _student(z: float, degrees: float) -> float:
    """Student's quantile from the normal's, by the first terms of its expansion (Abramowitz and Stegun 26.7.5)."""
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
