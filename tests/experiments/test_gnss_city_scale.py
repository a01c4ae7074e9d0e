"""The large database in districts: the same records as in one piece, shared by processes, resumed."""

import dataclasses

import numpy as np
import pytest
from experiments.conftest import load

from jaxalign.core.errors import UserError
from jaxalign.gnss import database
from jaxalign.gnss.building import Settings, build
from jaxalign.gnss.grid import make_grid


@pytest.fixture(scope="module")
def scale():
    return load("gnss_city_scale", "config", "run")


@pytest.fixture(scope="module")
def config(scale, tmp_path_factory):
    out = tmp_path_factory.mktemp("city")
    return scale.config.Config(side=2, district_m=45.0, spacing_m=5.0, slices=2, draws=8, out=out)


@pytest.fixture(scope="module")
def world(scale, config):
    """City and sky, after two workers have made their districts."""
    city, sky = scale.run.city_of(config), scale.run.sky_of(config)
    for worker in (0, 1):
        scale.run.work(dataclasses.replace(config, worker=worker, of=2), city, sky)
    return city, sky


def test_districts_are_the_pieces_of_one_build(scale, config, world):
    city, sky = world
    names = sorted(path.name for path in config.out.glob("*.npz"))
    assert names == ["r000c000.npz", "r000c001.npz", "r001c000.npz", "r001c001.npz"]
    whole = build(city, make_grid(city, 5.0, np.array([[-45.0, -45.0], [45.0, 45.0]])), sky, Settings(8, 0))
    place = {tuple(cell): k for k, cell in enumerate(np.round(whole.grid.cells_m()[:, :2], 3))}
    seen = 0
    for name in names:
        part = database.load(config.out / name, city)
        rows = [place[tuple(cell)] for cell in np.round(part.grid.cells_m()[:, :2], 3)]
        seen += len(rows)
        for field in ("availability", "mean_m", "quantile_m", "tracked"):
            expected = getattr(whole.statistics, field)[:, rows]
            # files hold halves and bytes
            np.testing.assert_allclose(getattr(part.statistics, field), expected, rtol=2e-3, atol=5e-3, err_msg=field)
    assert seen == len(place)
    text = scale.run.report(config, 20)
    assert text.startswith(f"4 of 4 districts finished: {seen} cells x 2 slices")
    assert f"{seen / 1e6:.2f} M cells x 2 slices" in text


def test_what_is_finished_is_not_repeated(scale, config, world, capsys):
    first, second = (config.out / name for name in ("r000c000.npz", "r001c001.npz"))
    kept = second.stat().st_mtime_ns
    first.unlink()
    scale.run.work(dataclasses.replace(config, limit=0), *world)
    assert not first.exists()
    scale.run.work(config, *world)
    assert first.exists()
    assert second.stat().st_mtime_ns == kept
    assert capsys.readouterr().out.count("cells") == 1


def test_a_job_that_cannot_be_is_refused(scale, config):
    with pytest.raises(UserError, match="Worker 2 of 2"):
        scale.run.main(dataclasses.replace(config, worker=2, of=2))
    with pytest.raises(UserError, match="at least one"):
        scale.run.main(dataclasses.replace(config, slices=0))
