"""`jaxalign gnss correct` on RINEX: a walk in a city that is not the model's, through files, against where it went."""

from pathlib import Path

import jax
import numpy as np
import pytest
from gnss_tables import table

from jaxalign.cli import gnss
from jaxalign.core.errors import UserError
from jaxalign.gnss import database, fixes, heldout, ranging, rinex_obs, study, virtual
from jaxalign.gnss.city_files import write_city
from jaxalign.gnss.constellation import constellation, time_slices
from jaxalign.gnss.correction import Reason
from jaxalign.gnss.grid import make_grid
from jaxalign.gnss.walks import walk

STEPS = 40


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """City file and observation file of a walk in its perturbed twin, and the way."""
    folder = tmp_path_factory.mktemp("walk")
    city, navigation = study.demo_city(5), study.shipped_navigation()
    sky = constellation(navigation, study.SHIPPED_PLACE, time_slices(study.SHIPPED_START, 1, 1.0))
    truth = heldout.perturb(city, 6)
    path = walk(make_grid(city, 3.0, np.array([[-80.0, -80.0], [80.0, 80.0]])), truth, 3, epochs=STEPS)
    epoch = heldout.World(truth, path).epoch(jax.random.key(1), sky, 0, days=np.zeros(STEPS, int))
    rinex_obs.write(folder / "walk.rnx", virtual.of_epoch(navigation, study.SHIPPED_PLACE, epoch, sky, 0))
    write_city(city, folder / "city.json")
    return folder, path[:, :2]


def places(path):
    """Local places of a file of corrected fixes."""
    return fixes.read(path).local_m(study.SHIPPED_PLACE)[:, :2]


def test_pseudoranges_find_the_street(recorded, capsys):
    """The truth's heights, walls, echoes and noise are not the model's; the goal is a third of the error."""
    folder, way = recorded
    config = gnss.Correct(
        observations=folder / "walk.rnx", city=folder / "city.json", method="ranging", out=folder / "places.csv"
    )
    answer = gnss.correct(config)
    ordinary = ranging.position(rinex_obs.read(folder / "walk.rnx"), study.shipped_navigation())
    before = np.hypot(*(ordinary.fixes.local_m(study.SHIPPED_PLACE)[:, :2] - way).T)
    after = np.hypot(*(places(folder / "places.csv") - way).T)
    known = np.isfinite(before)
    assert known.sum() > STEPS / 2
    assert np.median(after[known]) < np.median(before[known]) / 3
    np.testing.assert_array_equal(answer.reason == Reason.CORRECTED, known)
    assert f"{known.sum()} corrected" in capsys.readouterr().out


def test_a_database_corrects_the_fixes_of_observations(recorded, tmp_path):
    """Cells whose fixes come out 12 m too far east, and exactly there: everything moves back."""
    folder, _ = recorded
    made = table(np.ones((120, 120), bool), [[12.0, 0.0]] * 120**2, [[0.01, 0.0, 0.01]] * 120**2)
    made = made._replace(origin=study.SHIPPED_PLACE, grid=made.grid._replace(low_m=np.array([-180.0, -180.0])))
    made = database.save(made, tmp_path / "d.npz")
    config = gnss.Correct(
        observations=folder / "walk.rnx", database=made, oldest_seconds=1e6, systems="GE", out=tmp_path / "out.csv"
    )
    answer = gnss.correct(config)
    ordinary = ranging.position(
        rinex_obs.read(folder / "walk.rnx"), study.shipped_navigation(), ranging.Search(systems="GE")
    )
    fix = ordinary.fixes.local_m(study.SHIPPED_PLACE)[:, :2]
    inside = answer.corrected & (np.abs(fix) < 100.0).all(axis=1)
    assert inside.sum() > STEPS / 2
    # a twentieth of the belief is that the twin is wrong, which holds the place back by 0.6 m
    np.testing.assert_allclose(answer.pos_m[inside], fix[inside] - [12.0, 0.0], atol=1.0)


def test_streets_of_unknown_height_are_refused(recorded, tmp_path):
    folder, _ = recorded
    write_city(study.demo_city(5), tmp_path / "city.geojson")
    config = gnss.Correct(observations=folder / "walk.rnx", city=tmp_path / "city.geojson", method="ranging")
    with pytest.raises(UserError, match="give --ground-height-m"):
        gnss.correct(config)


def test_an_epoch_beyond_the_ephemerides_has_no_fix_and_the_others_keep_theirs(recorded):
    folder, _ = recorded
    city, navigation = study.demo_city(5), study.shipped_navigation()
    observations = rinex_obs.read(folder / "walk.rnx")
    late = observations.time.second_of_week.copy()
    late[-1] += 12 * 3600.0
    observations = observations._replace(time=observations.time._replace(second_of_week=late))
    answer = ranging.match(city, ranging.position(observations, navigation), navigation)
    assert answer.reason[-1] == Reason.NO_FIX
    assert answer.corrected[:-1].sum() > STEPS / 2


def test_an_epoch_without_satellites_is_flagged_and_a_far_city_refused(recorded):
    folder, _ = recorded
    city, navigation = study.demo_city(5), study.shipped_navigation()
    observations = rinex_obs.read(folder / "walk.rnx")
    empty = {code: value.copy() for code, value in observations.values.items()}
    for value in empty.values():
        value[0, 3:] = np.nan
        value[1:] = np.nan
    positioned = ranging.position(observations._replace(values=empty), navigation)
    answer = ranging.match(city, positioned, navigation)
    assert (answer.reason == Reason.NO_FIX).all()
    assert np.isnan(answer.pos_m).all()
    place = study.SHIPPED_PLACE
    away = city._replace(origin=place._replace(latitude_rad=place.latitude_rad + 0.01))
    with pytest.raises(UserError, match="m from the city"):
        ranging.match(away, ranging.position(observations, navigation), navigation)
    with pytest.raises(UserError, match="where on Earth"):
        ranging.match(city._replace(origin=None), positioned, navigation)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either --fixes"),
        ({"fixes": Path("a"), "observations": Path("b")}, "either --fixes"),
        ({"fixes": Path("a"), "method": "ranging"}, "--observations and --city"),
        ({"observations": Path("b"), "method": "ranging"}, "--observations and --city"),
        ({"observations": Path("b"), "city": Path("c"), "method": "ranging", "filter": True}, "leave it out"),
    ],
)
def test_what_does_not_go_together_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        gnss.correct(gnss.Correct(**options))
