"""Interquartile means and bootstrap intervals against known answers."""

import numpy as np
import pytest

from jaxalign.track import scores


def test_the_outer_quarters_do_not_count():
    assert scores.iqm(np.array([[-1e6, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 1e6]])) == pytest.approx(3.5)


def test_the_interval_of_a_mean_is_the_normal_one():
    """Of many runs: 1.96 standard errors on either side."""
    runs = np.random.default_rng(0).normal(5.0, 2.0, (400, 1))
    low, high = scores.stratified_bootstrap(runs, lambda x: float(np.mean(x)))
    half = 1.96 * runs.std() / 20
    assert (low, high) == pytest.approx((runs.mean() - half, runs.mean() + half), abs=0.03)


def test_tasks_are_not_mixed():
    """Runs that agree within each task leave no doubt, however far apart the tasks are."""
    assert scores.stratified_bootstrap(np.tile([[1.0, 100.0]], (5, 1))) == (50.5, 50.5)


@pytest.mark.parametrize("bad", [np.zeros((0, 1)), np.array([[np.nan]])])
def test_no_scores_no_interval(bad):
    with pytest.raises(ValueError, match=r"give finite ones, \[runs, tasks\]"):
        scores.stratified_bootstrap(bad)
