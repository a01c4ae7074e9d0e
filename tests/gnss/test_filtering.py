"""The filter: against enumeration of all paths, and what it must do with walls and gaps."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from gnss_tables import GAUSSIAN, table

from jaxalign.core.errors import UserError
from jaxalign.gnss.correction import Reason
from jaxalign.gnss.filtering import Motion, follow, forward_backward


def test_forward_backward_equals_the_sum_over_all_paths():
    rng = np.random.default_rng(0)
    outdoor = np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
    score = rng.normal(0, 1, (4, 2, 3))
    leak, step = 0.01, 0.8
    filtered, smoothed = forward_backward(jnp.asarray(score), jnp.asarray(outdoor), step, leak, reach=4)
    cells = [(r, c) for r in range(2) for c in range(3) if outdoor[r, c]]
    taps = np.exp(-0.5 * (np.arange(-4, 5) / step) ** 2)
    taps /= taps.sum()

    def step_chance(a, b):
        return (1 - leak) * taps[4 + b[0] - a[0]] * taps[4 + b[1] - a[1]] + leak / len(cells)

    for length, result, at in ((4, smoothed, range(4)), (3, filtered, [2]), (4, filtered, [3])):
        density = np.zeros((4, 2, 3))
        for path in itertools.product(cells, repeat=length):
            weight = np.exp(sum(score[t][cell] for t, cell in enumerate(path)))
            for a, b in itertools.pairwise(path):
                weight *= step_chance(a, b)
            for t, cell in enumerate(path):
                density[t][cell] += weight
        for t in at:
            np.testing.assert_allclose(result[t], density[t] / density[t].sum(), rtol=2e-4, atol=1e-6)


@pytest.fixture(scope="module")
def yard():
    return table(np.ones((12, 12)), np.zeros((144, 2)), [[36.0, 0.0, 36.0]] * 144)


def test_a_walk_is_followed_through_noise_and_a_gap(yard):
    rng = np.random.default_rng(2)
    truth = np.linspace([6.0, 6.0], [30.0, 30.0], 40)
    fixes = np.clip(truth + rng.normal(0, 6.0, truth.shape), 0.1, 35.9)
    fixes[15:20] = np.nan
    track = follow(yard, np.zeros(40, int), fixes, Motion(step_m=2.0, temper=1.0), GAUSSIAN)
    seen = np.isfinite(fixes[:, 0])

    def off(places):
        return np.hypot(*(places - truth).T)

    assert off(track.filtered.pos_m).mean() < 0.65 * off(fixes)[seen].mean()
    assert off(track.smoothed.pos_m).mean() < off(track.filtered.pos_m).mean()
    assert np.isfinite(track.filtered.pos_m).all()
    # without fixes it grows unsure
    assert track.filtered.covariance_m2[19, 0] > track.filtered.covariance_m2[14, 0]
    np.testing.assert_array_equal(track.filtered.reason, np.where(seen, Reason.CORRECTED, Reason.PREDICTED))


def test_a_receiver_that_leaves_the_grid_is_not_held_back(yard):
    fixes = np.column_stack([np.linspace(18.0, 600.0, 20), np.full(20, 18.0)])
    within = fixes[:, 0] < 36
    for places in follow(yard, np.zeros(20, int), fixes, Motion(), GAUSSIAN):
        np.testing.assert_array_equal(places.reason, np.where(within, Reason.CORRECTED, Reason.OUTSIDE_GRID))
        np.testing.assert_allclose(places.pos_m[~within], fixes[~within], rtol=1e-6)
        np.testing.assert_array_equal(np.isnan(places.covariance_m2[:, 0]), ~within)


def test_long_steps_are_followed():
    """Nothing but noise-free fixes on open ground: with any step the filter is as good as a single fix."""
    field = table(np.ones((12, 60)), np.zeros((720, 2)), [[4.0, 0.0, 4.0]] * 720)
    fixes = np.column_stack([np.arange(10.0, 175.0, 20.0), np.full(9, 18.0)])
    track = follow(field, np.zeros(9, int), fixes, Motion(step_m=20.0), GAUSSIAN)
    assert np.hypot(*(track.filtered.pos_m - fixes).T).max() < 1.5


@pytest.mark.parametrize("step_m", [0.0, -1.0, np.nan])
def test_a_step_without_length_is_refused(yard, step_m):
    with pytest.raises(UserError, match="The step between fixes"):
        follow(yard, np.zeros(2, int), np.full((2, 2), 18.0), Motion(step_m=step_m))


def test_a_track_elsewhere_is_refused(yard):
    with pytest.raises(UserError, match="None of the fixes"):
        follow(yard, np.zeros(2, int), np.array([[-50.0, 0.0], [np.nan, 0.0]]))
