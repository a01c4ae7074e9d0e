"""Held-out worlds, the statistics of the evaluation, and receivers that measure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gnss_cities import street
from gnss_tables import table

from jaxalign.core.errors import UserError
from jaxalign.gnss import evaluation, heldout, outcome, study
from jaxalign.gnss.city import inside
from jaxalign.gnss.city_generator import Plan
from jaxalign.gnss.constellation import constellation, time_slices
from jaxalign.gnss.correction import Corrected
from jaxalign.gnss.grid import make_grid
from jaxalign.gnss.pvt import linear_fix
from jaxalign.gnss.twin import Measured, weights
from jaxalign.gnss.walks import walk


def test_truth_differs_as_it_should():
    city = study.demo_city(3, Plan(blocks=(8, 8)))
    same = heldout.perturb(city, 1, heldout.NONE)
    np.testing.assert_allclose(same.start, city.start)
    truth = heldout.perturb(city, 1, heldout.Perturbation(height_m=3.0, position_m=0.7, wrong=0.1))
    rise = truth.top_m - city.top_m
    assert 2.5 < 1.4826 * np.median(np.abs(rise)) < 4.0
    assert 0.03 < (np.abs(rise) > 9.0).mean() < 0.2
    shift = (truth.start - city.start)[:: len(city.start) // 100]
    assert 0.5 < shift.std() < 0.9


@pytest.fixture(scope="module")
def place():
    city = study.demo_city(3, Plan(blocks=(3, 3)))
    return city, make_grid(city, 3.0, np.array([[-80.0, -80.0], [80.0, 80.0]]))


def test_receivers_and_walks_stay_outdoors(place):
    city, grid = place
    truth = heldout.perturb(city, 2)
    points = heldout.street_receivers(grid, truth, 200, 0)
    path = walk(grid, truth, 1, epochs=60)
    for places in (points, path):
        assert not inside(truth, places).any()
        cell, on_grid = grid.locate(places)
        assert on_grid.all()
        assert grid.outdoor[tuple(cell.T)].all()
        assert np.abs(places[:, :2]).max() <= 67.1
    np.testing.assert_allclose(np.hypot(*np.diff(path[:, :2], axis=0).T), 1.5)
    with pytest.raises(UserError, match="no room"):
        heldout.street_receivers(grid, truth, 10, 0, margin_m=90.0)
    with pytest.raises(UserError, match="walk of 500"):
        walk(grid, truth, 1, epochs=500, step_m=10.0)


@pytest.mark.slow
def test_ranges_and_fixes_of_receivers_belong_together():
    city = street(20.0, 30.0, length=600.0)._replace(origin=study.SHIPPED_PLACE)
    sky = constellation(study.shipped_navigation(), city.origin, time_slices(study.SHIPPED_START, 1, 60.0))
    places = np.array([[10.0, 0.0, 1.5], [3.0, 20.0, 1.5], [-5.0, 0.0, 1.5], [18.0, -40.0, 1.5]])
    world = heldout.World(city, places)
    epoch = world.epoch(jax.random.key(0), sky, 0, days=np.zeros(4, int))
    # indoors nothing is tracked: flagged, no number
    np.testing.assert_array_equal(epoch.has_fix, [True, True, False, True])
    assert not epoch.observed.tracked[2].any()
    assert np.isfinite(epoch.observed.range_m).all()
    # a receiver that solves its ranges from its fix at street level is led to its fix's height and nowhere else
    measured = Measured(*(jnp.asarray(part)[:, :, None] for part in epoch.observed))
    for k in (0, 1, 3):
        step, _, _ = linear_fix(
            jnp.asarray(epoch.observed.range_m[k], jnp.float32),
            jnp.asarray(sky.direction_enu[0]),
            weights(measured)[k, :, 0],
            jnp.argmax(jnp.asarray(sky.clock_of), axis=0),
            2,
        )
        np.testing.assert_allclose(step, [0.0, 0.0, epoch.up_m[k]], atol=0.01)
    again = world.epoch(jax.random.key(1), sky, 0, days=np.zeros(4, int))
    assert (np.abs(again.error_m - epoch.error_m)[[0, 1, 3]] > 0).all()
    one = epoch.rows(np.array([True, False, False, False]))
    assert one.fix_m.shape == (1, 2)


def test_summary_and_intervals():
    rng = np.random.default_rng(0)
    error = np.abs(rng.normal(0, 5.0, 900))
    result = evaluation.summarise(error, np.arange(900))
    np.testing.assert_allclose(result.percentile_m, np.percentile(error, [50, 68, 95]))
    assert (result.interval_m[:, 0] < result.percentile_m).all()
    assert (result.interval_m[:, 1] > result.percentile_m).all()
    # the standard error of a median: 1 / (2 f sqrt(n))
    width = 2 * 1.96 / (2 * (2 * 0.3178 / 5.0) * 30)
    np.testing.assert_allclose(np.diff(result.interval_m[0])[0], width, rtol=0.3)
    # three rows of the same receiver tell no more than one
    tripled = evaluation.summarise(np.repeat(error, 3), np.repeat(np.arange(900), 3))
    np.testing.assert_allclose(np.diff(tripled.interval_m[0])[0], width, rtol=0.35)


def test_coverage_of_an_honest_and_of_a_vain_covariance():
    rng = np.random.default_rng(0)
    truth = np.zeros((4000, 2))
    places = rng.multivariate_normal([0, 0], [[4.0, 1.0], [1.0, 2.0]], 4000)
    honest = Corrected(places, np.tile([4.0, 1.0, 2.0], (4000, 1)), np.zeros(4000, int))
    inside_68, inside_95, given = evaluation.coverage(evaluation.normalised_square(honest, truth))
    np.testing.assert_allclose([inside_68, inside_95, given], [0.68, 0.95, 1.0], atol=0.02)
    vain = honest._replace(covariance_m2=honest.covariance_m2 / 9)
    assert evaluation.coverage(evaluation.normalised_square(vain, truth))[1] < 0.6
    some = honest._replace(covariance_m2=np.where(np.arange(4000)[:, None] % 2, np.nan, honest.covariance_m2))
    assert evaluation.coverage(evaluation.normalised_square(some, truth))[2] == 0.5


def test_tables_and_pools(tmp_path):
    database = table([[1, 1, 1, 1]], np.arange(8.0).reshape(4, 2), [[1.0, 0.0, 1.0]] * 4)
    mixed = evaluation.shuffled(database)
    assert sorted(mixed.statistics.mean_m[0, :, 0]) == [0.0, 2.0, 4.0, 6.0]
    assert (mixed.statistics.mean_m != database.statistics.mean_m).any()
    one = evaluation.Errors({"none": np.array([4.0, 6.0]), "twin": np.array([1.0, 3.0])}, np.array([0, 2]), 0.5, {})
    walks = evaluation.TrackErrors({"none": np.array([1.0])}, np.array([0]))
    kept = outcome.Outcome(one, walks, {0.0: np.array([1.0]), 300.0: np.array([2.0])})
    outcome.save(kept, tmp_path / "city.npz")
    both, along, ageing = outcome.pool([kept, outcome.load(tmp_path / "city.npz")])
    np.testing.assert_array_equal(both.receiver, [0, 2, 3, 5])
    np.testing.assert_array_equal(along.track, [0, 1])
    np.testing.assert_array_equal(ageing[300.0], [2.0, 2.0])
    text = evaluation.table(both.method, both.receiver)
    assert "5.0" in text.splitlines()[1]
    assert text.splitlines()[2].rstrip().endswith("60%")
    rows = evaluation.rows(both.method, both.receiver)
    assert [row["median_m"] for row in rows] == [5.0, 2.0]


def test_averaging_keeps_its_place_without_a_fix():
    fixes = np.array([[0.0, 0.0], [np.nan, np.nan], [10.0, 0.0]])
    np.testing.assert_allclose(evaluation.averaged(fixes, 0.1), [[0, 0], [0, 0], [1.0, 0]])
