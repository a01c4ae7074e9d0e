"""The whole receiver chain, from RINEX files to fixes, against RTKLIB's output and surveyed truth."""

import gzip

import numpy as np
import pytest
from gnss.recordings import committed, shared, table

from jaxalign.core.errors import UserError
from jaxalign.gnss import broadcast, frames, output, rinex_nav, rinex_obs, spp, virtual
from jaxalign.gnss.constants import LIGHT_SPEED_M_S
from jaxalign.gnss.pvt import Status
from jaxalign.gnss.time import GpsTime


def rtklib_positions(path):
    """Second of week, position and number of satellites of a file of RTKLIB's."""
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    rows = np.array([[float(cell) for cell in line.split(",")[1:7]] for line in lines if not line.startswith("%")])
    return rows[:, 0], rows[:, 1:4], rows[:, 5]


def compare(fixes, at, path):
    """Distances to RTKLIB's fixes and the epochs that it has."""
    second, pos, count = rtklib_positions(path)
    ours = spp.fix_time(at, fixes).second_of_week
    epoch = np.abs(ours[:, None] - second).argmin(0)
    assert np.abs(ours[epoch] - second).max() < 2e-3
    assert (fixes.used[epoch].sum(1) == count).all()
    return np.linalg.norm(fixes.pos_ecef_m[epoch] - pos, axis=1), epoch


def horizontal_errors(pos, truth):
    place = frames.geodetic_from_ecef(truth)
    rotation = frames.rotation_enu_from_ecef(place.latitude_rad, place.longitude_rad)
    enu = np.einsum("eij,ej->ei", rotation, pos - truth)
    return np.hypot(enu[:, 0], enu[:, 1])


@pytest.fixture(scope="module")
def sept():
    return rinex_obs.read(committed("SEPT078M1.21O.gz")), rinex_nav.read(committed("SEPT078M.21P.gz"))


@pytest.fixture(scope="module")
def sept_fixes(sept):
    observations, navigation = sept
    return spp.locate(spp.measurements(observations, navigation, "GEJ"), navigation.klobuchar["G"])


def test_open_sky_gps_from_files(sept):
    observations, navigation = sept
    fixes = spp.locate(spp.measurements(observations, navigation, "G"), navigation.klobuchar["G"])
    distance, epoch = compare(fixes, observations.time, committed("sept078_G.pos.gz"))
    assert len(epoch) == 60
    assert distance.max() < 2e-4  # RTKLIB prints tenths of a millimetre


def test_open_sky_of_three_systems_against_truth(sept_fixes):
    """Galileo's group delays, up to 2 m, are those of the records in use; RTKLIB takes those of the first records."""
    recording = table(committed("spp_sept078_GEJ.npz"))
    assert (sept_fixes.status == Status.GOOD).all()
    assert np.linalg.norm(sept_fixes.pos_ecef_m - recording["rtklib_xyz"], axis=1).max() < 0.5
    enu = frames.enu_from_ecef(sept_fixes.pos_ecef_m, frames.geodetic_from_ecef(recording["truth_xyz"][0]))
    assert np.median(np.hypot(enu[:, 0], enu[:, 1])) < 0.5


@pytest.fixture(scope="module")
def urban():
    observations = rinex_obs.read(shared("inputs/TST1_COM3_190428_124409.obs.gz"))
    navigation = rinex_nav.read(*(shared(f"inputs/TST1_hksc1180.19{kind}.gz") for kind in "nb"))
    data = spp.measurements(observations, navigation, "GC")
    return observations, data, navigation.klobuchar["G"], spp.locate(data, navigation.klobuchar["G"])


def test_urban_fixes_are_those_of_rtklib(urban):
    observations, fixes = urban[0], urban[3]
    distance, epoch = compare(fixes, observations.time, shared("rtklib_pos/tst1_GC.pos.gz"))
    # what RTKLIB keeps is GOOD, but for one epoch of five satellites in a bad geometry, and the rest is flagged
    good = fixes.status[epoch] == Status.GOOD
    assert good.sum() == 622
    assert fixes.status[epoch][~good] == Status.NOT_CONVERGED
    assert distance[good].max() < 2e-4
    assert (np.delete(fixes.status, epoch) != Status.GOOD).all()


@pytest.mark.parametrize(("by_cn0", "quantiles"), [(False, [12.3, 22.6, 44.2]), (True, [8.9, 16.1, 46.9])])
def test_urban_errors_against_truth(urban, by_cn0, quantiles):
    """Unscreened, over all 484 epochs with truth; the figures are a recorded solver's."""
    _, data, klobuchar, fixes = urban
    if by_cn0:
        fixes = spp.locate(data, klobuchar, spp.Options(by_cn0=True))
    truth = table(shared("spp_tst1_GC.npz"))["truth_xyz"]
    known = np.isfinite(truth[:, 0])
    horizontal = horizontal_errors(fixes.pos_ecef_m[known], truth[known])
    assert len(horizontal) == 484
    np.testing.assert_allclose(np.quantile(horizontal, [0.5, 0.68, 0.95]), quantiles, atol=0.06)


def test_static_urban_errors_against_truth():
    """GPS, Galileo, BeiDou by both weights; the recorded solver has RTKLIB's choice of Galileo's delays."""
    observations = rinex_obs.read(shared("inputs/TST2_2020_06_03_TST_03.obs.gz"))
    names = [f"inputs/TST2_hksc155{session}.20{kind}.gz" for session in "cd" for kind in "nbl"]
    navigation = rinex_nav.read(*map(shared, names))
    data = spp.measurements(observations, navigation, "GEC")
    truth = table(shared("spp_tst2_GREC.npz"))["truth_xyz"]
    known = np.isfinite(truth[:, 0])
    for by_cn0, quantiles, tolerance in ((False, [19.6, 21.2, 27.9], 0.4), (True, [3.33, 3.90, 7.93], 0.02)):
        fixes = spp.locate(data, navigation.klobuchar["G"], spp.Options(by_cn0=by_cn0))
        errors = horizontal_errors(fixes.pos_ecef_m[known], truth[known])
        assert len(errors) == 156
        np.testing.assert_allclose(np.quantile(errors, [0.5, 0.68, 0.95]), quantiles, atol=tolerance)


BIASES_M = {"G": 100.0, "J": 100.0, "R": -30.0, "E": 7.0}


def noise_free(navigation, place, at):
    """One epoch of all satellites above 16 degrees."""
    sky = broadcast.sky(navigation, place, at)
    seen = sky.usable[0] & (sky.elevation_rad[0] > np.radians(16))
    received = virtual.Received(sky.satellite[seen], np.zeros((1, seen.sum())), np.full((1, seen.sum()), 45.0))
    tag = at.plus(BIASES_M["G"] / LIGHT_SPEED_M_S)  # by the receiver's own clock
    where = frames.Geodetic(*(np.array([part]) for part in place))
    return virtual.observations(navigation, where, tag, received, clock_m=BIASES_M)


def test_four_systems_recover_a_simulated_place():
    navigation = rinex_nav.read(shared("inputs/046r_rnx.nav.gz"))
    place = frames.Geodetic(np.radians(35.0), np.radians(139.0), 50.0)
    at = GpsTime(np.array([2353]), np.array([6 * 86400 + 16.74 * 3600]))
    observations, truth = noise_free(navigation, place, at), frames.ecef_from_geodetic(place)
    fixes = spp.locate(spp.measurements(observations, navigation), spp.DEFAULT_KLOBUCHAR)
    assert fixes.status[0] == Status.GOOD
    assert {name[0] for name in observations.satellite[fixes.used[0]]} == set("GREJ")
    assert np.linalg.norm(fixes.pos_ecef_m[0] - truth) < 1e-3
    # no BeiDou: its clock stays at 0
    np.testing.assert_allclose(fixes.clock_bias_m[0], [100.0, -30.0, 7.0, 0.0], atol=1e-3)
    assert spp.fix_time(observations.time, fixes).minus(at) == pytest.approx(0, abs=1e-9)


def test_exclusion_leaves_more_epochs_consistent(sept):
    observations, navigation = sept
    data = spp.measurements(observations, navigation, "GEJ")
    ranges = data.pseudorange_m.copy()
    ranges[:, 4] += 200.0
    data = data._replace(pseudorange_m=ranges)
    plain = spp.locate(data, navigation.klobuchar["G"])
    assert (plain.status == Status.INCONSISTENT).all()
    mended = spp.locate(data, navigation.klobuchar["G"], spp.Options(max_exclusions=1))
    assert (mended.status == Status.GOOD).all()
    assert not mended.used[:, 4].any()


def test_old_ephemerides_leave_flagged_epochs(sept):
    observations, navigation = sept
    late = observations._replace(time=GpsTime(observations.time.week + 1, observations.time.second_of_week))
    fixes = spp.locate(spp.measurements(late, navigation, "GEJ"), navigation.klobuchar["G"])
    assert (fixes.status == Status.TOO_FEW).all()
    assert np.isnan(fixes.pos_ecef_m).all()


def test_systems_that_are_not_there(sept):
    observations, navigation = sept
    with pytest.raises(UserError, match="no system X"):
        spp.measurements(observations, navigation, "GX")
    with pytest.raises(UserError, match="no L1 pseudorange"):
        spp.measurements(observations, navigation, "R")


def test_nmea_and_csv(tmp_path, sept, sept_fixes):
    observations, _ = sept
    pos = sept_fixes.pos_ecef_m.copy()
    pos[1] = np.nan
    status = sept_fixes.status.copy()
    status[1] = Status.TOO_FEW
    points = output.track(observations.time, sept_fixes._replace(pos_ecef_m=pos, status=status))
    output.write_nmea(tmp_path / "fixes.nmea", points)
    sentences = (tmp_path / "fixes.nmea").read_text().split()
    assert len(sentences) == 120
    gga = sentences[0].split(",")
    assert gga[:2] == ["$GPGGA", "115942.00"]  # 12:00:00 GPS time less 18 s
    latitude = float(gga[2][:2]) + float(gga[2][2:]) / 60
    longitude = float(gga[4][:3]) + float(gga[4][3:]) / 60
    place = frames.geodetic_from_ecef(sept_fixes.pos_ecef_m[0])
    assert (latitude, longitude) == pytest.approx(np.degrees(place[:2]), abs=2e-9)
    assert gga[3] + gga[5] + gga[6] + gga[7] == f"NE1{sept_fixes.used[0].sum()}"
    assert sentences[2].startswith("$GPGGA,115943.00,,,,,0,")
    assert sentences[3].startswith("$GPRMC,115943.00,V,,,,,,,190321")
    # a sentence known from receivers' manuals
    assert (
        output.sentence("GPGLL,5300.97914,N,00259.98174,E,125926,A") == "$GPGLL,5300.97914,N,00259.98174,E,125926,A*28"
    )

    output.write_fixes_csv(tmp_path / "fixes.csv", points)
    lines = (tmp_path / "fixes.csv").read_text().splitlines()
    assert len(lines) == 61
    assert lines[2].split(",")[2:5] == ["", "", ""]
    assert lines[2].endswith("too_few")
    assert float(lines[1].split(",")[4]) == pytest.approx(place.height_m, abs=1e-4)
