"""Straight lines through means over seeds, with bootstrap intervals."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxalign.core.errors import UserError

RESAMPLES = 2000


class Slope(NamedTuple):
    """A fitted slope and its 95 % interval."""

    estimate: float
    low: float
    high: float

    def __str__(self):
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def contains(self, value: float) -> bool:
        """Whether the interval does."""
        return self.low <= value <= self.high


def fit_slope(
    x: Float[np.ndarray, " sizes"],
    y: Float[np.ndarray, "sizes seeds"],
    of_mean: Callable[[np.ndarray], np.ndarray] = lambda mean: mean,
    seed: int = 0,
) -> Slope:
    """Least-squares slope of the mean over seeds against x; the interval resamples the seeds of every size.

    With few seeds a bootstrap interval is too narrow; five or more are advisable.

    Args:
        x: of every size.
        y: of every size and seed; sizes are independent of one another.
        of_mean: applied to the means before the fit, such as np.log.
        seed: of the resampling.

    Raises:
        UserError: fewer than two sizes, or values that do not fit to them.
    """
    if len(x) < 2 or y.shape[0] != len(x) or y.shape[1] < 1:
        raise UserError(f"A slope through {len(x)} sizes of shape {y.shape}; give at least two, a row of seeds each.")
    random = np.random.default_rng(seed)
    sizes, seeds = y.shape
    drawn = y[np.arange(sizes), random.integers(seeds, size=(RESAMPLES, seeds, sizes))].mean(1)  # (resamples, sizes)
    slopes = _slope(x, of_mean(drawn))
    low, high = np.quantile(slopes, [0.025, 0.975]) if seeds > 1 else (math.nan, math.nan)
    return Slope(float(_slope(x, of_mean(y.mean(1)))), float(low), float(high))


def _slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    centred = x - x.mean()
    return np.asarray((y * centred).sum(-1) / (centred**2).sum())


def hop_cost(alpha: float) -> float:
    """Predicted slope of n^alpha MID of the chain against log n, in this world with exact comparisons.

    First-passage percolation on the matching: d/d(log n) = 1 / lambda, lambda = 2^alpha Gamma(1 + 1/alpha)^alpha.

    Raises:
        UserError: alpha is not in (0, 1).
    """
    if not 0 < alpha < 1:
        raise UserError(f"alpha is {alpha:g}; choose a number between 0 and 1, both excluded.")
    return 1 / (2**alpha * math.exp(alpha * math.lgamma(1 + 1 / alpha)))
