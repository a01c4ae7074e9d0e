"""Virtual receivers' files, solved by another program: cssrlib reads both files and finds the fixes that we predict."""

import gzip

import jax.numpy as jnp
import numpy as np
import pytest
from gnss.recordings import committed

from jaxalign.gnss import broadcast, frames, pvt, rinex_nav, rinex_obs, study, virtual
from jaxalign.gnss.columns import ReadReport
from jaxalign.gnss.constants import L1_HZ, LIGHT_SPEED_M_S
from jaxalign.gnss.constellation import Constellation
from jaxalign.gnss.frames import Geodetic
from jaxalign.gnss.heldout import Epoch
from jaxalign.gnss.matching import Observed
from jaxalign.gnss.time import GpsTime

CLOCK_M = 4321.0
FNAV = 258  # data source of Galileo records that cssrlib's single-frequency solver does not take


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A navigation file of GPS and Galileo's I/NAV, three places at three times and the satellites over them."""
    lines = gzip.decompress(committed("SEPT078M.21P.gz").read_bytes()).decode().splitlines()
    body = next(k for k, line in enumerate(lines) if "END OF HEADER" in line) + 1
    first = [k for k in range(body, len(lines)) if lines[k][0] != " "]
    kept = lines[:body]
    for start, end in zip(first, [*first[1:], len(lines)], strict=True):
        source = float(lines[start + 5][23:42].replace("D", "e"))
        if lines[start][0] == "G" or (lines[start][0] == "E" and source != FNAV):
            kept += lines[start:end]
    path = tmp_path_factory.mktemp("files") / "world.21P"
    path.write_text("\n".join(kept) + "\n")
    navigation = rinex_nav.read(path)
    at = GpsTime(np.full(3, 2149), study.SHIPPED_START.second_of_week + 420.0 + 40.0 * np.arange(3))
    latitude, longitude, height = study.SHIPPED_PLACE
    place = Geodetic(latitude + 1e-4 * np.arange(3), np.full(3, longitude), height + np.array([0.0, 30.0, 5.0]))
    middle = broadcast.sky(navigation, Geodetic(*(part[0] for part in place)), at)
    seen = middle.usable.all(axis=0) & (middle.elevation_rad > np.radians(12.0)).all(axis=0)
    return path, navigation, place, at, middle.satellite[seen], middle.direction_enu[:, seen]


def solved_elsewhere(navigation_path, observation_path, start_m, monkeypatch):
    """Positions ``[E, 3]`` and clocks (m) of cssrlib's reader, orbits, clocks, atmosphere and solver."""
    library = pytest.importorskip("cssrlib.gnss")
    rinex, pntpos = pytest.importorskip("cssrlib.rinex"), pytest.importorskip("cssrlib.pntpos")
    # the troposphere's mapping as RTKLIB and we have it; the library's own is Niell's
    monkeypatch.setattr(pntpos, "tropmapf", lambda t, pos, el, model: (1 / np.sin(el), 1 / np.sin(el)))
    reader = rinex.rnxdec()
    reader.setSignals([library.rSigRnx(f"{system}{kind}1C") for system in "GE" for kind in "CLS"])
    navigation = library.Nav(nf=1)
    navigation.pmode, navigation.ephopt = 0, 0
    reader.decode_nav(str(navigation_path), navigation)
    navigation.ion = np.asarray(virtual.spp.DEFAULT_KLOBUCHAR).reshape(2, 4)
    reader.decode_obsh(str(observation_path))
    fixes = []
    for start in start_m:
        epoch = reader.decode_obs()
        solver = pntpos.stdpos(navigation, pos0=start)
        for _ in range(5):  # Gauss-Newton: the filter forgets what it knew
            navigation.t, navigation.smode = epoch.t, 1
            navigation.P[:] = np.diag([1e10] * 4)
            assert solver.process(epoch) == 0
        fixes.append(navigation.x[:4].copy())
    reader.fobs.close()
    fixes = np.array(fixes)
    return fixes[:, :3], fixes[:, 3]


def written(world, error_m, path):
    """The observation file of the receivers, with the carrier phases that the other program insists on."""
    _, navigation, place, at, satellite, _ = world
    received = virtual.Received(satellite, error_m, np.full(error_m.shape, 45.0))
    clocks = {"G": CLOCK_M, "E": CLOCK_M}
    observed = virtual.observations(navigation, place, at, received, clock_m=clocks)
    observed.values["L1C"] = observed.values["C1C"] * L1_HZ / LIGHT_SPEED_M_S
    rinex_obs.write(path, observed)
    return frames.ecef_from_geodetic(place)


def test_another_program_finds_the_receivers(world, tmp_path, monkeypatch):
    truth = written(world, np.zeros((3, len(world[4]))), tmp_path / "free.21O")
    assert {name[0] for name in world[4]} == {"G", "E"}
    fixes, clocks = solved_elsewhere(world[0], tmp_path / "free.21O", truth + 20.0, monkeypatch)
    assert np.linalg.norm(fixes - truth, axis=1).max() < 5e-3
    np.testing.assert_allclose(clocks, CLOCK_M, atol=5e-3)


def test_another_program_makes_the_errors_that_the_twin_predicts(world, tmp_path, monkeypatch):
    """Echoes of tens of metres through the files, against the linear fix that the twin makes of them."""
    rng = np.random.default_rng(4)
    direction = world[5]
    error = rng.normal(0.0, 2.0, direction.shape[:2])
    error[:, 1] += 43.0
    error[1:, 3] += 21.0
    error[2, 5] = np.nan  # not tracked
    truth = written(world, error, tmp_path / "echoes.21O")
    fixes, _ = solved_elsewhere(world[0], tmp_path / "echoes.21O", truth, monkeypatch)
    weight = np.where(np.isfinite(error), 1 / (0.5**2 + (0.25 / direction[..., 2]) ** 2), 0.0)  # the other program's
    for e in range(3):
        expected, _, _ = pvt.linear_fix(
            jnp.asarray(np.nan_to_num(error[e]), jnp.float32), jnp.asarray(direction[e], jnp.float32),
            jnp.asarray(weight[e], jnp.float32), jnp.zeros(direction.shape[1], jnp.int32), 1,
        )  # fmt: skip
        place = Geodetic(*(part[e] for part in world[2]))
        found = frames.enu_from_ecef(fixes[e], place)
        assert np.linalg.norm(found) > 3.0
        # the troposphere that the receiver takes off is that of its fix: 0.3 mm per metre of height
        np.testing.assert_allclose(found, expected, atol=1e-2)


def test_a_walk_is_recorded_with_its_errors(world):
    _, navigation, place, at, satellite, direction = world
    count = len(satellite)
    error, fix = np.arange(3.0 * count).reshape(3, count), np.array([[5.0, 1.0], [np.nan, np.nan], [0.0, -9.0]])
    truth = np.array([[0.0, 0.0], [1.5, 0.0], [3.0, 0.0]])
    tracked = np.ones((3, count), bool)
    tracked[1, 2] = False
    ranges = error + np.nan_to_num(fix - truth) @ direction[0][:, :2].T
    observed = Observed(ranges, np.full((3, count), 40.0), tracked)
    epoch = Epoch(truth, fix, np.zeros(3), observed, np.ones(3))
    sky = Constellation(tuple(satellite), direction[:1], np.ones((1, count), np.float32), at.at([0]))
    origin = Geodetic(*(part[0] for part in place))
    walk = virtual.of_epoch(navigation, origin, epoch, sky, 0)
    assert walk.report == ReadReport({})
    assert np.isfinite(walk.values["C1C"]).sum() == 3 * count - 1
    np.testing.assert_allclose(walk.time.second_of_week - at.second_of_week[0], [0.0, 1.0, 2.0])
    clean = virtual.of_epoch(
        navigation, origin, epoch._replace(observed=observed._replace(range_m=ranges - error)), sky, 0
    )
    difference = walk.values["C1C"] - clean.values["C1C"]
    np.testing.assert_allclose(difference[tracked], error[tracked], atol=1e-6)
