"""Bootstrap confidence intervals of means and correlations over frames that come in groups (persons or clips).

Frames of one person resemble each other, so whole groups are drawn with replacement, not frames. A drawing is a row of
weights, how often each frame was drawn, which makes every statistic a matrix product.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 2000
_ROUNDING = 64 * np.finfo(np.float64).eps
"""Spread, relative to the numbers' size, that may be rounding alone."""


class Estimate(NamedTuple):
    """A statistic's `value`, and `low` and `high` of its confidence interval."""

    value: float
    low: float
    high: float


def resample_weights(groups: Sequence[object], resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Draw as many groups as there are, with replacement, `resamples` times.

    Args:
        groups: (N,) the group of each frame.
        resamples: number of drawings.
        seed: of the drawings; equal groups and seeds give equal weights.

    Returns:
        (1 + resamples, N) float64, how often each frame was drawn; the first row is 1, the frames as they are.

    Raises:
        ValueError: no frame.
    """
    if not len(groups):
        raise ValueError("groups: expected at least one frame, got none")
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    count = len(numbers)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    weights = np.concatenate([np.ones((1, count)), drawn])
    return weights[:, [numbers[group] for group in groups]]


def estimate_mean(values: np.ndarray, weights: np.ndarray) -> Estimate:
    """Return the mean of values (N,), with its percentile interval over the drawings (1 + resamples, N)."""
    return _with_interval(_average(values, weights))


def estimate_correlation(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> Estimate:
    """Return Pearson's correlation of values (N,) and (N,), with its interval; NaN if either does not vary.

    Drawings in which either does not vary are left out of the interval.
    """
    if any(np.ptp(values) <= _ROUNDING * np.abs(values).max() for values in (first, second)):
        return Estimate(float("nan"), float("nan"), float("nan"))
    first, second = ((values - values.mean()) / values.std() for values in (first, second))
    means = [_average(values, weights) for values in (first, second)]
    variances = [_variance(values, mean, weights) for values, mean in zip((first, second), means, strict=True)]
    covariance = _average(first * second, weights) - means[0] * means[1]
    return _with_interval(np.clip(covariance / np.sqrt(variances[0] * variances[1]), -1, 1))


def _average(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return weights @ values / weights.sum(axis=1)


def _variance(values: np.ndarray, mean: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the variance of values (N,) in each drawing, NaN where they do not vary."""
    square = _average(values**2, weights)
    variance = square - mean**2
    return np.where(variance > _ROUNDING * square, variance, np.nan)


def _with_interval(statistics: np.ndarray) -> Estimate:
    tail = (1 - CONFIDENCE) / 2
    drawn = statistics[1:][np.isfinite(statistics[1:])]
    low, high = np.quantile(drawn, [tail, 1 - tail]) if len(drawn) else (float("nan"), float("nan"))
    return Estimate(float(statistics[0]), float(low), float(high))
