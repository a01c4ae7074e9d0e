"""`jaxalign gnss`: what is refused, and fixes through files."""

import json

import numpy as np
import pytest
import tyro
from gnss_tables import table

from jaxalign.cli import gnss
from jaxalign.core.errors import UserError
from jaxalign.gnss import database as databases
from jaxalign.gnss import fixes, output
from jaxalign.gnss.frames import Geodetic, ecef_from_enu, geodetic_from_ecef
from jaxalign.gnss.pvt import Status
from jaxalign.gnss.time import GpsTime

ORIGIN = Geodetic(0.6, 2.4, 50.0)


@pytest.fixture
def shifted(tmp_path):
    """A database on a yard of 60 m whose fixes come out 12 m too far east."""
    outdoor = np.ones((20, 20), bool)
    made = table(outdoor, [[12.0, 0.0]] * 400, [[1.0, 0.0, 1.0]] * 400)
    return databases.save(made._replace(origin=ORIGIN), tmp_path / "d.npz")


def received(local_m):
    """A track of fixes at places east, north, up; NaN where there is none."""
    place = geodetic_from_ecef(ecef_from_enu(np.nan_to_num(np.asarray(local_m, float)), ORIGIN))
    count = len(local_m)
    status = np.where(np.isnan(np.asarray(local_m)[:, 0]), Status.TOO_FEW, Status.GOOD)
    time = GpsTime(np.full(count, 2149), np.arange(count, dtype=float))
    return output.Track(time, place, np.full(count, 8), np.ones(count), status)


PLACES = [[42.0, 30.0, 1.5], [np.nan] * 3, [-200.0, 0.0, 1.5], [43.0, 20.0, 1.5]]


@pytest.mark.parametrize("ending", ["csv", "nmea"])
@pytest.mark.parametrize("filtered", [False, True])
def test_fixes_go_in_and_corrected_places_come_out(shifted, tmp_path, ending, filtered, capsys):
    source = tmp_path / f"fixes.{ending}"
    (output.write_fixes_csv if ending == "csv" else output.write_nmea)(source, received(PLACES))
    out = tmp_path / "out.geojson"
    answer = gnss.correct(gnss.Correct(source, shifted, filter=filtered, out=out))
    np.testing.assert_allclose(answer.pos_m[0], [30.0, 30.0], atol=2.5 if filtered else 1.0)
    features = json.loads(out.read_text())["features"]
    kinds = [feature["properties"]["correction"] for feature in features]
    assert kinds == ["corrected", "predicted" if filtered else "no_fix", "outside_grid", "corrected"]
    assert (features[1]["geometry"] is None) != filtered
    longitude, latitude = features[2]["geometry"]["coordinates"]
    back = fixes.read(source)
    np.testing.assert_allclose(
        [longitude, latitude], np.degrees([back.place.longitude_rad[2], back.place.latitude_rad[2]]), atol=1e-7
    )
    assert "4 fixes" in capsys.readouterr().out


def test_csv_out_and_old_databases(shifted, tmp_path):
    source, out = tmp_path / "fixes.csv", tmp_path / "out.csv"
    output.write_fixes_csv(source, received(PLACES[:1]))
    source.write_text(source.read_text().replace("2149,", "2150,") + "2150,x,1,2,3\n")
    gnss.correct(gnss.Correct(source, shifted, out=out))
    lines = out.read_text().splitlines()
    assert len(lines) == 2
    assert lines[1].endswith("too_old")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (gnss.Twin(start="noon"), "--start is 'noon'"),
        (gnss.Twin(slices=0), "--slices is 0"),
        (gnss.Twin(spacing_m=-3.0), "--spacing-m is -3"),
        (gnss.Twin(mask_deg=95.0), "--mask-deg is 95"),
        (gnss.Twin(start="2021-03-19T20:00:00"), "only 0 satellites"),
        (gnss.Twin(place=(99.0, 0.0, 0.0)), "--place is"),
    ],
)
def test_a_twin_is_refused(config, message):
    with pytest.raises(UserError, match=message):
        gnss.twin(config)


@pytest.mark.parametrize("first", ["GGA", "RMC"])
def test_nmea_over_midnight_in_either_order(tmp_path, first):
    """Sentences of two receivers' habits, and a damaged byte between them."""
    lines = []
    for clock, date in (("235959.00", "190321"), ("000000.00", "200321"), ("000001.00", "200321")):
        pair = [
            output.sentence(f"GPGGA,{clock},4025.0000000,N,00342.0000000,W,1,08,1.0,650.000,M,,M,,"),
            output.sentence(f"GPRMC,{clock},A,4025.0000000,N,00342.0000000,W,,,{date},,,A"),
        ]
        lines += pair if first == "GGA" else pair[::-1]
    path = tmp_path / "log.nmea"
    path.write_bytes("\r\n".join(lines).encode() + b"\r\n$GPGGA,12\xff*00\r\n")
    read = fixes.read(path)
    assert read.skipped == 1
    assert read.time.week.tolist() == [2149] * 3
    utc = 6 * 86400.0 + 18  # Saturday's midnight, in GPS time
    np.testing.assert_array_equal(read.time.second_of_week, utc + np.array([-1.0, 0.0, 1.0]))


def test_files_are_refused(shifted, tmp_path):
    with pytest.raises(UserError, match="ends in"):
        gnss.twin(gnss.Twin(out=tmp_path / "d.txt"))
    for content, message in (
        ("", "lacks the columns"),
        ("gps_week,a\n", "lacks the columns"),
        ("$GPGGA,1*00\n", "no readable"),
    ):
        source = tmp_path / "bad.csv"
        source.write_text(content)
        with pytest.raises(UserError, match=message):
            gnss.correct(gnss.Correct(source, shifted))
    with pytest.raises(UserError, match="cannot be read"):
        gnss.correct(gnss.Correct(tmp_path / "none.csv", shifted))
    with pytest.raises(UserError, match="--step-m is 0"):
        gnss.correct(gnss.Correct(tmp_path / "none.csv", shifted, filter=True, step_m=0.0))
    with pytest.raises(UserError, match="--receivers is 0"):
        gnss.demo(gnss.Demo(receivers=0))
    with pytest.raises(UserError, match="--cities is 0"):
        gnss.evaluate(gnss.Evaluate(cities=0))


def test_the_command_line_names_the_four():
    for name, kind in (("twin", gnss.Twin), ("evaluate", gnss.Evaluate), ("demo", gnss.Demo)):
        assert isinstance(tyro.cli(gnss.Gnss, args=[name]).command, kind)
    parsed = tyro.cli(gnss.Gnss, args=["correct", "--fixes", "a.csv", "--ground-height-m", "12"]).command
    assert isinstance(parsed, gnss.Correct)
    assert parsed.ground_height_m == 12.0
    with pytest.raises(UserError, match="--cities is 0"):
        gnss.main(gnss.Gnss(gnss.Evaluate(cities=0)))
