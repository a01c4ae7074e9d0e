"""Ranging-domain matching on signals made by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
from gnss_cities import sky
from scipy.stats import norm

from jaxalign.gnss.constellation import View
from jaxalign.gnss.correction import Reason
from jaxalign.gnss.grid import Grid
from jaxalign.gnss.matching import Matching, Observed, match, ranging_score, shadow_score
from jaxalign.gnss.twin import Signals

S = 10
VIEW = View(sky(S, 3), np.repeat(np.eye(2, dtype=np.float32), [6, 4], axis=1))
GRID = Grid(np.zeros(2), 3.0, np.ones((20, 20), bool))


@pytest.fixture(scope="module")
def street():
    """A street where the western half hides satellites 0 to 2, echoing 1 and 2, and a receiver in the west."""
    cells = GRID.cells_m()
    west = cells[:, 0] < 30
    cn0 = np.full((400, S), 44.0)
    cn0[west, 0] = -100.0
    cn0[np.ix_(west, [1, 2])] = 33.0
    bias = np.zeros((400, S))
    bias[np.ix_(west, [1, 2])] = 40.0
    direct = np.ones((400, S), bool)
    direct[np.ix_(west, [0, 1, 2])] = False
    signals = Signals(*(np.asarray(part, np.float32) for part in (cn0, bias, np.full((400, S), 1.0))), direct)
    truth, fix = np.array([13.5, 31.5]), np.array([38.0, 20.0])
    clock = np.array([120.0, -75.0]) @ VIEW.clock_of
    ranges = -(VIEW.direction_enu[:, :2] @ (truth - fix)) + bias[0] + clock
    tracked = np.ones(S, bool)
    tracked[0] = False
    return signals, truth, fix, Observed(ranges[None], np.where(tracked, cn0[0], -np.inf)[None], tracked[None])


def test_the_true_cell_is_found_whatever_the_clocks(street):
    signals, truth, fix, observed = street
    answer = match(GRID, signals, fix[None], observed, VIEW)
    assert answer.corrected.all()
    assert np.hypot(*(answer.pos_m[0] - truth)) < 2.0
    other = observed._replace(range_m=observed.range_m + np.array([-300.0, 900.0]) @ VIEW.clock_of)
    np.testing.assert_allclose(match(GRID, signals, fix[None], other, VIEW).pos_m, answer.pos_m, atol=0.1)


def test_shadows_alone_tell_the_side_of_the_street(street):
    signals, _, fix, observed = street
    answer = match(GRID, signals, fix[None], observed, VIEW, Matching(shadow=1.0), ranging=False)
    assert answer.pos_m[0, 0] < 30.0
    np.testing.assert_allclose(answer.pos_m[0, 1], 30.0, atol=1.5)


def test_one_wild_range_does_not_move_the_place(street):
    signals, _, fix, observed = street
    answer = match(GRID, signals, fix[None], observed, VIEW)
    wild = np.array(observed.range_m)
    wild[0, 5] += 150.0
    moved = match(GRID, signals, fix[None], observed._replace(range_m=wild), VIEW)
    assert np.hypot(*(moved.pos_m - answer.pos_m)[0]) < 3.0


def test_shadow_score_is_the_sum_of_the_logarithms():
    options = Matching(cn0_db=4.0, surprise=0.1, threshold_dbhz=25.0)
    predicted = Signals(
        *(np.array(row, np.float32) for row in ([40.0, 24.0, -100.0], [0] * 3, [1] * 3)), np.ones(3, bool)
    )
    observed = Observed(np.zeros(3), np.array([36.0, -np.inf, 30.0]), np.array([True, False, True]))
    first = np.log(0.9) + np.log(0.9 * norm.pdf(36, 40, 4) + 0.1 / 25)
    second = np.log(1 - norm.cdf(-0.25))
    third = np.log(0.1) + np.log(0.9 * norm.pdf(30, 25, 4) + 0.1 / 25)
    np.testing.assert_allclose(shadow_score(observed, predicted, options), first + second + third, rtol=1e-5)


def test_a_ranging_score_of_a_perfect_place_is_the_log_density_at_zero():
    view = View(VIEW.direction_enu[:6], np.ones((1, 6), np.float32))
    predicted = Signals(*(jnp.full(6, value) for value in (44.0, 0.0, 1.0)), jnp.ones(6, bool))
    observed = Observed(jnp.full(6, 12.0), jnp.full(6, 44.0), jnp.ones(6, bool))
    score = ranging_score(observed, predicted, jnp.zeros(2), view, Matching(direct_m=0.0, common_m=0.0))
    np.testing.assert_allclose(score, 0.0, atol=1e-5)
    worse = ranging_score(observed, predicted, jnp.array([5.0, 0.0]), view, Matching(direct_m=0.0, common_m=0.0))
    assert worse < -3


def test_flags(street):
    signals, _, fix, observed = street
    fixes = np.array([fix, [-5.0, 10.0], [np.nan, 0.0]])
    three = Observed(*(np.repeat(part, 3, axis=0) for part in observed))
    answer = match(GRID, signals, fixes, three, VIEW)
    np.testing.assert_array_equal(answer.reason, [Reason.CORRECTED, Reason.OUTSIDE_GRID, Reason.NO_FIX])
    np.testing.assert_array_equal(answer.pos_m[1:], np.float32(fixes[1:]))
