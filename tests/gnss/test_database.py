"""The database file: what is written is read, what is damaged is refused."""

import json

import numpy as np
import pytest
from gnss_cities import street

from jaxalign.core.errors import UserError
from jaxalign.gnss import database as databases
from jaxalign.gnss.constellation import Constellation
from jaxalign.gnss.frames import Geodetic
from jaxalign.gnss.grid import make_grid
from jaxalign.gnss.time import GpsTime
from jaxalign.gnss.twin import Statistics

CITY = street(20.0, 30.0, length=100.0)._replace(origin=Geodetic(0.6, 2.4, 50.0))


@pytest.fixture
def database():
    rng = np.random.default_rng(0)
    grid = make_grid(CITY, 5.0, np.array([[-10.0, -10.0], [20.0, 10.0]]))
    cells = int(grid.outdoor.sum())
    widths = {"mean_m": 3, "covariance_m2": 6, "quantile_m": 3}
    fields = {name: rng.uniform(0, 9, (2, cells, *((widths[name],) if name in widths else ()))).astype(np.float32)
              for name in Statistics._fields}  # fmt: skip
    fields["availability"] /= 9
    time = GpsTime(np.array([2149, 2149]), np.array([100.0, 220.0]))
    up = np.array([[0.0, 0.0, 1.0]], np.float32)
    sky = Constellation(("G01",), np.stack([up, up]), np.ones((1, 1), np.float32), time)
    return databases.make_database(grid, sky, Statistics(**fields), CITY, {"draws": 3})


@pytest.mark.parametrize("ending", ["npz", "parquet"])
def test_round_trip(database, tmp_path, ending):
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    path = databases.save(database, tmp_path / f"d.{ending}")
    read = databases.load(path, CITY)
    np.testing.assert_allclose(read.statistics.mean_m, database.statistics.mean_m, rtol=5e-4, atol=1e-4)
    np.testing.assert_allclose(read.statistics.covariance_m2, database.statistics.covariance_m2, rtol=5e-4, atol=1e-4)
    np.testing.assert_allclose(read.statistics.availability, database.statistics.availability, atol=0.5 / 255 + 1e-6)
    np.testing.assert_allclose(read.statistics.nlos, database.statistics.nlos, atol=0.126)
    np.testing.assert_array_equal(read.grid.outdoor, database.grid.outdoor)
    np.testing.assert_array_equal(read.time.second_of_week, [100.0, 220.0])
    assert (read.satellite, read.origin, read.settings) == (("G01",), CITY.origin, {"draws": 3})
    assert databases.bytes_per_record(database) == 2 * 13 + 3


def test_what_does_not_fit_is_refused(database, tmp_path):
    path = databases.save(database, tmp_path / "d.npz")
    with pytest.raises(UserError, match="another city"):
        databases.load(path, street(21.0, 30.0))
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(str(arrays["header"]))

    def rewrite(changed, **more):
        np.savez(path, **(arrays | more | {"header": np.array(json.dumps(header | changed))}))

    worse = arrays["mean_m"].copy()
    worse[0, 0, 0] += 1
    rewrite({}, mean_m=worse)
    with pytest.raises(UserError, match="checksum"):
        databases.load(path)
    rewrite({"version": 2})
    with pytest.raises(UserError, match="version 2"):
        databases.load(path)
    rewrite({"schema": "other"})
    with pytest.raises(UserError, match="'other'"):
        databases.load(path)
    rewrite({})
    assert databases.load(path).grid.shape == database.grid.shape


def test_damaged_files_are_refused(database, tmp_path):
    path = databases.save(database, tmp_path / "d.npz")
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"nothing", b""):
        path.write_bytes(content)
        with pytest.raises(UserError, match="damaged"):
            databases.load(path)
    flipped = bytearray(whole)
    flipped[whole.index(database.statistics.mean_m.astype(np.float16).tobytes())] ^= 0x01
    path.write_bytes(flipped)
    with pytest.raises(UserError, match="damaged"):
        databases.load(path)
    with pytest.raises(UserError, match="does not exist"):
        databases.load(tmp_path / "none.npz")
    with pytest.raises(UserError, match="ending"):
        databases.save(database, tmp_path / "d.txt")


def test_nearest_slice(database):
    nearest, gap = database.nearest_slice(GpsTime(np.array([2149, 2149]), np.array([130.0, 300.0])))
    np.testing.assert_array_equal(nearest, [0, 1])
    np.testing.assert_allclose(gap, [30.0, 80.0])
