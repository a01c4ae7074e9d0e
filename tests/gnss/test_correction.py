"""Inverting the database: against Bayes by hand, its flags, its controls, its honesty."""

import jax.numpy as jnp
import numpy as np
import pytest
from gnss_tables import GAUSSIAN, table

from jaxalign.core.errors import UserError
from jaxalign.gnss import correction
from jaxalign.gnss.correction import Reason
from jaxalign.gnss.time import GpsTime


def test_posterior_of_three_cells_by_hand():
    outdoor = [[1, 1, 0, 1]]
    mean = np.array([[4.0, 1.0], [0.0, 0.0], [-6.0, 2.0]])
    covariance = np.array([[8.0, 2.0, 5.0], [3.0, 0.0, 3.0], [15.0, -4.0, 8.0]])
    share = np.array([1.0, 0.5, 0.8])
    database = table(outdoor, mean, covariance, share)
    fix = np.array([[5.0, 2.0]])
    centres = np.array([[1.5, 1.5], [4.5, 1.5], [10.5, 1.5]])
    weight = []
    for place, off, (a, b, d), available in zip(centres, mean, covariance, share, strict=True):
        matrix = np.array([[a + 1, b], [b, d + 1]])
        gap = fix[0] - place - off
        density = np.exp(-0.5 * gap @ np.linalg.solve(matrix, gap)) / np.sqrt(np.linalg.det(matrix))
        weight.append(available * density)
    weight = np.array(weight) / np.sum(weight)
    expected = weight @ centres
    east = weight @ (centres[:, 0] - expected[0]) ** 2
    answer = correction.correct(database, 0, fix, GAUSSIAN)
    assert answer.corrected.all()
    np.testing.assert_allclose(answer.pos_m[0], expected, rtol=1e-3)
    np.testing.assert_allclose(answer.covariance_m2[0], [east + 0.75, 0.0, 0.75], rtol=1e-3, atol=1e-4)


def test_height_tells_two_cells_apart():
    database = table([[1, 1]], [[0.0, 0.0], [-3.0, 0.0]], [[4.0, 0.0, 4.0]] * 2)
    database.statistics.mean_m[0, :, 2] = [10.0, -10.0]
    flat = correction.correct(database, 0, np.array([[1.5, 1.5]]), GAUSSIAN)
    np.testing.assert_allclose(flat.pos_m[0], [3.0, 1.5], atol=1e-3)
    high = correction.correct(database, 0, np.array([[1.5, 1.5, 10.0], [1.5, 1.5, -10.0]]), GAUSSIAN)
    np.testing.assert_allclose(high.pos_m[:, 0], [1.5, 4.5], atol=1e-3)


def test_three_dimensional_distance_is_that_of_numpy():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(3, 3))
    matrix, gap = root @ root.T + np.eye(3), rng.normal(size=3)
    entries = matrix[[0, 0, 1, 0, 1, 2], [0, 1, 1, 2, 2, 2]]
    square, determinant = correction.distance_squared(jnp.float32(gap), jnp.float32(entries))
    np.testing.assert_allclose(square, gap @ np.linalg.solve(matrix, gap), rtol=1e-4)
    np.testing.assert_allclose(determinant, np.linalg.slogdet(matrix)[1], rtol=1e-4)


def test_no_correction_has_a_reason_and_leaves_the_fix():
    database = table(np.ones((1, 20)), np.zeros((20, 2)), [[1.0, 0.0, 1.0]] * 20, [0.0] * 10 + [1.0] * 10)
    fixes = np.array([[np.nan, 1.0], [-1.0, 1.5], [61.0, 1.5], [1.5, 1.5], [40.0, 1.5]])
    answer = correction.correct(database, 0, fixes, GAUSSIAN)
    expected = [Reason.NO_FIX, Reason.OUTSIDE_GRID, Reason.OUTSIDE_GRID, Reason.NOT_SIMULATED, Reason.CORRECTED]
    np.testing.assert_array_equal(answer.reason, expected)
    np.testing.assert_array_equal(answer.pos_m[:4], np.float32(fixes[:4]))
    assert np.isnan(answer.covariance_m2[:4]).all()
    assert np.isfinite(answer.covariance_m2[4]).all()
    late = GpsTime(np.array([2149, 2149]), np.array([100.0, 500.0]))
    aged = correction.correct_at(database, late, fixes[[4, 4]], GAUSSIAN, oldest_s=180.0)
    np.testing.assert_array_equal(aged.reason, [Reason.CORRECTED, Reason.TOO_OLD])
    np.testing.assert_array_equal(aged.pos_m[1], np.float32(fixes[4]))
    with pytest.raises(UserError, match="east, north"):
        correction.correct(database, 0, np.zeros((2, 4)))


@pytest.fixture(scope="module")
def biased():
    """A yard of 12 x 12 cells whose fixes come out 20 m too far east, within 2 m."""
    outdoor = np.zeros((12, 30), bool)
    outdoor[:, :12] = True
    return table(outdoor, [[20.0, 0.0]] * 144, [[4.0, 0.0, 4.0]] * 144)


@pytest.fixture(scope="module")
def received(biased):
    """Truth and fixes of 400 receivers of that yard."""
    rng = np.random.default_rng(1)
    truth = rng.uniform([6, 6], [30, 30], (400, 2))
    return truth, truth + np.array([20.0, 0.0]) + rng.normal(0, 2.0, truth.shape)


def test_a_known_bias_is_removed_and_the_covariance_is_honest(biased, received):
    truth, fixes = received
    answer = correction.correct(biased, 0, fixes, GAUSSIAN._replace(model_m=0.3))
    off = answer.pos_m - truth
    assert np.hypot(*off.T).mean() < 3.0
    a, b, d = answer.covariance_m2.T
    square = (d * off[:, 0] ** 2 - 2 * b * off[:, 0] * off[:, 1] + a * off[:, 1] ** 2) / (a * d - b * b)
    assert 0.60 < (square < 2.2789).mean() < 0.78
    assert 0.91 < (square < 5.9915).mean() < 0.99


def test_controls(biased, received):
    truth, fixes = received
    street = correction.street_prior(biased, 0, fixes)
    # it only knows where the yard is: pulled to its nearest edge, not back by the bias
    assert 5.0 < np.hypot(*(street.pos_m - truth).T).mean() < 25.0
    naive = correction.naive(biased, 0, fixes)
    np.testing.assert_allclose(naive.pos_m, np.float32(fixes) - [20.0, 0.0], atol=1e-4)


def test_look_up_is_the_posterior_of_the_cell_under_the_fix(biased, received):
    _, fixes = received
    product = correction.product(biased, 0, GAUSSIAN)
    answer = product.look_up(fixes)
    cell, _ = biased.grid.locate(fixes)
    centre = biased.grid.centres_m()[tuple(cell.T)]
    full = correction.correct(biased, 0, centre, GAUSSIAN)
    np.testing.assert_array_equal(answer.reason, full.reason)
    good = answer.corrected
    assert good.mean() > 0.9
    np.testing.assert_allclose((answer.pos_m - fixes)[good], (full.pos_m - centre)[good], atol=0.02)
    assert product.nbytes == 11 * 360
    outside = product.look_up(np.array([[-5.0, 3.0], [np.nan, 0.0]]))
    np.testing.assert_array_equal(outside.reason, [Reason.OUTSIDE_GRID, Reason.NO_FIX])
