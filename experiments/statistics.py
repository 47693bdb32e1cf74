"""Statistics of a comparison over seeds: means, interquartile means and their intervals.

Intervals are 95 % percentile bootstrap intervals over runs (Agarwal et al., 2021, "Deep Reinforcement Learning at the
Edge of the Statistical Precipice"). They are stratified: each curve or scenario is resampled separately. The bootstrap is
SciPy's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.integrate import trapezoid

RESAMPLES = 2000
MIN_RUNS = 3  # the fewest runs for an interval: with two it would just be the two values


@dataclass(frozen=True)
class Estimate:
    """A number, or one number per step, with its 95 % interval."""

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def has_interval(self) -> bool:
        """Whether there were enough runs (``MIN_RUNS``) for an interval."""
        return not bool(np.isnan(self.low).any() or np.isnan(self.high).any())

    def __str__(self) -> str:
        interval = "" if not self.has_interval else f" [{float(self.low):.3f}, {float(self.high):.3f}]"
        return f"{float(self.value):.3f}{interval}"

    def overlaps(self, other: Estimate) -> bool:
        """Whether the intervals overlap; a missing interval overlaps with every other."""
        return not bool(self.low > other.high or other.low > self.high)


def mean_and_error(runs: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean over runs and its standard error (NaN for a single run): [runs, ...] -> two of [...]."""
    mean = runs.mean(axis=0)
    return mean, runs.std(axis=0, ddof=1) / np.sqrt(len(runs)) if len(runs) > 1 else np.full_like(mean, np.nan)


def mean_and_band(runs: NDArray[np.float64]) -> Estimate:
    """Mean over runs, with one standard error on each side in place of the 95 % interval."""
    mean, error = mean_and_error(runs)
    return Estimate(mean, mean - error, mean + error)


def interquartile_mean(*groups: NDArray[np.float64]) -> Estimate:
    """The mean of the middle half of the runs, [runs, ...] -> [...].

    Args:
        *groups: The runs of one scenario each. The result is the mean over scenarios, so scenarios have equal weight
            whatever their number of runs. The interval resamples each scenario separately.
    """

    def statistic(*resampled: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        return np.mean([stats.trim_mean(each, 0.25, axis=axis) for each in resampled], axis=0)

    return _bootstrap(groups, statistic)


def probability_of_improvement(first: NDArray[np.float64], second: NDArray[np.float64]) -> Estimate:
    """The share of pairs in which a run of ``first`` [n] beats one of ``second`` [m]; a tie counts as half."""

    def statistic(a: NDArray[np.float64], b: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        a, b = np.moveaxis(a, axis, -1), np.moveaxis(b, axis, -1)
        difference = a[..., :, None] - b[..., None, :]
        return (np.sign(difference) / 2 + 0.5).mean(axis=(-2, -1))

    return _bootstrap((first, second), statistic)


def area_under_curve(steps: NDArray[np.float64], curves: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of each curve over the steps, by the trapezoidal rule: steps [T], curves [runs, T] -> [runs]."""
    return trapezoid(curves, steps, axis=1) / (steps[-1] - steps[0])


def _bootstrap(groups: tuple[NDArray[np.float64], ...], statistic: Callable[..., NDArray[np.float64]]) -> Estimate:
    value = np.asarray(statistic(*groups, axis=0))
    if min(len(group) for group in groups) < MIN_RUNS:
        return Estimate(value, np.full_like(value, np.nan), np.full_like(value, np.nan))
    interval = stats.bootstrap(
        groups,
        statistic,
        n_resamples=RESAMPLES,
        axis=0,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Estimate(value, interval.low, interval.high)
