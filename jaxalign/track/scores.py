"""Scores over runs and tasks: interquartile means with bootstrap intervals.

Source: Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice",
https://arxiv.org/abs/2108.13264 (the library rliable).
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy import stats

Scores = Float[np.ndarray, "runs tasks"]


def iqm(scores: Scores) -> float:
    """Mean of the middle half of all scores: a quarter of them is left out at either end."""
    return float(stats.trim_mean(np.ravel(scores), 0.25))


def stratified_bootstrap(
    scores: Scores, statistic: Callable[[Scores], float] = iqm, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of a statistic; runs are drawn with replacement within every task.

    Args:
        scores: one per run and task.
        statistic: of scores shaped like these.
        resamples: how often runs are drawn.
        seed: of the draws.

    Raises:
        ValueError: there are no scores, or one is not finite.
    """
    scores = np.asarray(scores, float)
    if scores.ndim != 2 or not scores.size or not np.isfinite(scores).all():
        raise ValueError(f"scores of shape {scores.shape} give no interval; give finite ones, [runs, tasks].")
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(scores), size=(resamples, *scores.shape))
    values = [statistic(np.take_along_axis(scores, rows, axis=0)) for rows in drawn]
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
