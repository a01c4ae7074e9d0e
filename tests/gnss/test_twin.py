"""The twin: laws of streets, statistics of draws, blocks, devices, resuming."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gnss_cities import street

from jaxalign.core.errors import UserError
from jaxalign.gnss import building, study
from jaxalign.gnss.constellation import View, constellation, time_slices
from jaxalign.gnss.frames import Geodetic
from jaxalign.gnss.grid import make_grid
from jaxalign.gnss.time import GpsTime
from jaxalign.gnss.twin import QUANTILES, Fixes, Measured, Statistics, scatter, statistics


@pytest.fixture(scope="module")
def canyon():
    """A street along north, 20 m wide and 30 m deep, with a grid over 60 m of it, and the shipped satellites."""
    city = street(20.0, 30.0, length=600.0)._replace(origin=study.SHIPPED_PLACE)
    grid = make_grid(city, 4.0, np.array([[0.0, -30.0], [20.0, 30.0]]))
    sky = constellation(study.shipped_navigation(), city.origin, time_slices(study.SHIPPED_START, 2, 120.0))
    return city, grid, sky


SETTINGS = building.Settings(draws=32, block=40)


@pytest.fixture(scope="module")
def built(canyon, tmp_path_factory):
    parts = tmp_path_factory.mktemp("parts")
    steps = []
    database = building.build(*canyon, SETTINGS, parts=parts, done=lambda n, of: steps.append((n, of)))
    return database, parts, steps


def test_a_street_blurs_across_and_not_along(built, canyon):
    database, _, _ = built
    part = database.statistics
    sure = part.availability == 1
    assert sure.mean() > 0.9
    east, _, north = (part.covariance_m2[..., k][sure] for k in range(3))
    assert np.median(east + part.mean_m[..., 0][sure] ** 2) > 2 * np.median(north + part.mean_m[..., 1][sure] ** 2)
    # a street that does not end looks the same everywhere along it
    along = canyon[1].raster(part.tracked[0])[:, 2]
    assert np.ptp(along) <= 0.25 * along.mean()
    assert (part.nlos <= part.tracked).all()
    assert not any(np.isnan(field).any() for field in part)


def test_every_block_is_reported_and_kept(built, canyon):
    database, parts, steps = built
    assert steps == [(k + 1, 4) for k in range(4)]
    files = sorted(parts.glob("*.npz"))
    assert len(files) == 4
    files[0].write_bytes(files[0].read_bytes()[:100])
    files[1].unlink()
    before = files[2].stat().st_mtime_ns
    again = building.build(*canyon, SETTINGS, parts=parts)
    for one, other in zip(database.statistics, again.statistics, strict=True):
        np.testing.assert_array_equal(one, other)
    assert files[2].stat().st_mtime_ns == before


def test_statistics_are_those_of_the_draws_with_a_fix():
    rng = np.random.default_rng(0)
    error, good = rng.normal(size=(50, 3, 3)), rng.uniform(size=(50, 3)) < 0.7
    good[:, 2] = False
    error[~good] = np.nan
    drawn = Fixes(jnp.asarray(error), jnp.where(good, 2.0, jnp.inf), jnp.asarray(good))
    tracked = rng.uniform(size=(50, 4, 3)) < 0.5
    measured = Measured(jnp.zeros((50, 4, 3)), jnp.zeros((50, 4, 3)), jnp.asarray(tracked))
    direct = jnp.zeros((4, 3), bool).at[0].set(True)
    result = jax.jit(statistics)(drawn, measured, direct)
    np.testing.assert_allclose(result.availability, good.mean(0), rtol=1e-6)
    np.testing.assert_allclose(result.nlos, tracked[:, 1:].sum(1).mean(0), rtol=1e-6)
    for cell in (0, 1):
        kept = error[good[:, cell], cell]
        np.testing.assert_allclose(result.mean_m[cell], kept.mean(0), atol=1e-6)
        matrix = np.cov(kept.T, ddof=0)
        np.testing.assert_allclose(
            result.covariance_m2[cell], matrix[[0, 0, 1, 0, 1, 2], [0, 1, 1, 2, 2, 2]], atol=1e-5
        )
        horizontal = np.hypot(*kept[:, :2].T)
        expected = np.quantile(horizontal, QUANTILES, method="inverted_cdf")
        np.testing.assert_allclose(result.quantile_m[cell], expected, rtol=1e-5)
    assert all((np.asarray(field)[2] == 0).all() for field in result[:5])


def test_scatter_undoes_the_tiling(canyon):
    city, grid, _ = canyon
    from jaxalign.gnss.tiles import build_tiles

    cells = grid.cells_m()
    tiles = build_tiles(city, cells, capacity=16)
    east = np.asarray(tiles.receivers[..., 0] + tiles.centre[:, :1])
    back = scatter(tiles, Statistics(*[east] * len(Statistics._fields)), len(cells))
    np.testing.assert_allclose(back.hdop, cells[:, 0], atol=1e-4)


def test_times_and_places_without_satellites_are_refused():
    navigation = study.shipped_navigation()
    late = time_slices(GpsTime(2149, 5 * 86400 + 20 * 3600.0), 1, 60.0)
    with pytest.raises(UserError, match=r"2021-03-19 20:00:00 GPST only 0 satellites.*covers"):
        constellation(navigation, study.SHIPPED_PLACE, late)
    with pytest.raises(UserError, match="needs 5"):
        constellation(navigation, Geodetic(-0.7, -1.0, 0.0), time_slices(study.SHIPPED_START, 1, 60.0))


def test_grid_looks_up_and_refuses():
    city = street(20.0, 30.0, length=100.0)
    grid = make_grid(city, 3.0, np.array([[-10.0, -9.0], [20.0, 9.0]]))
    cell, on_grid = grid.locate(np.array([[-9.9, -8.9], [19.9, 8.9], [20.1, 0.0], [np.nan, 0.0]]))
    np.testing.assert_array_equal(cell[:2], [[0, 0], [5, 9]])
    np.testing.assert_array_equal(on_grid, [True, True, False, False])
    assert not grid.outdoor[:, :3].any()
    assert grid.outdoor[:, 4:].all()
    for spacing, area in (
        (0.0, None),
        (3.0, np.array([[0.0, 0.0], [0.0, 5.0]])),
        (3.0, np.array([[-9, 0.0], [-1, 9]])),
    ):
        with pytest.raises(UserError):
            make_grid(city, spacing, area)


def test_a_view_has_one_clock_per_system(canyon):
    sky = canyon[2]
    assert sky.clock_of.shape[0] == 2
    for name, clock in zip(sky.satellite, sky.clock_of.T, strict=True):
        assert clock.sum() == 1
        assert clock[0] == (name[0] in "GJ")
    assert isinstance(sky.at(0), View)
    np.testing.assert_allclose(np.linalg.norm(sky.direction_enu, axis=-1), 1, rtol=1e-6)
