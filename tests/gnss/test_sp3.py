"""SP3 files and their interpolation against RTKLIB's recordings and a satellite on a known circle."""

import numpy as np
import pytest
from gnss.recordings import shared, table

from jaxalign.core.errors import UserError
from jaxalign.gnss import sp3
from jaxalign.gnss.constants import EARTH_RATE_RAD_S
from jaxalign.gnss.time import GpsTime


@pytest.mark.parametrize(
    ("file", "recording"), [("COD_GREJ.SP3.gz", "sp3_cod2021265.npz"), ("igs15904.sp3.gz", "sp3_igs2010182.npz")]
)
def test_recorded_states(file, recording):
    orbits, case = sp3.read(shared(f"inputs/{file}")), table(shared(recording))
    names = [f"{s}{p - 192 * (s == 'J'):02d}" for s, p in zip(case["sys"], case["prn"])]
    states = sp3.satellite_states(
        orbits, np.searchsorted(orbits.satellite, names), GpsTime(case["gps_week"], case["gps_sow"])
    )
    assert (states.valid == (case["clk_precise"] != 0)).all()  # 0: none
    assert states.valid.mean() > 0.95
    np.testing.assert_allclose(states.pos_ecef_m[states.valid], case["xyz_precise"][states.valid], atol=1e-6, rtol=0)
    np.testing.assert_allclose(states.clock_s[states.valid], case["clk_precise"][states.valid], atol=1e-13, rtol=0)


RADIUS_M, RATE = 26.56e6, 1.4585e-4


def circle(seconds):
    """Circular inertial orbit, seen from the turning Earth."""
    x, y, z = np.cos(RATE * seconds), np.sin(RATE * seconds) * np.cos(0.96), np.sin(RATE * seconds) * np.sin(0.96)
    c, s = np.cos(EARTH_RATE_RAD_S * seconds), np.sin(EARTH_RATE_RAD_S * seconds)
    return RADIUS_M * np.stack([c * x + s * y, -s * x + c * y, z], axis=-1)


@pytest.fixture
def large_file(tmp_path):
    """An SP3-d file of 100 satellites, whose header has more lines than SP3-c's."""
    names = [f"{system}{number:02d}" for system in "GRE" for number in range(1, 34)] + ["C01"]
    lines = ["#dP2021  9 22  0  0  0.00000000      40 ORBIT IGS14 HLM  TST"]
    lines += [
        f"+  {100 if start == 0 else '':>3}   " + "".join(names[start : start + 17]) for start in range(0, 100, 17)
    ]
    lines += ["%c M  cc GPS ccc cccc cccc cccc cccc ccccc ccccc ccccc ccccc", "/* a comment"]
    for k in range(40):
        lines.append(f"*  2021  9 22 {k // 4:2d} {15 * (k % 4):2d}  0.00000000")
        for s, name in enumerate(names):
            x, y, z = circle(900.0 * k + 100.0 * s) / 1e3
            clock = 999999.999999 if name == "G02" else 10.0 + k
            lines.append(f"P{name}{x:14.6f}{y:14.6f}{z:14.6f}{clock:14.6f}")
    lines.append("EOF")
    path = tmp_path / "large.sp3"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_many_satellites_and_the_true_circle(large_file):
    orbits = sp3.read(large_file)
    assert len(orbits.satellite) == 100
    column = orbits.satellite.tolist().index("G04")
    seconds = np.array([4000.0, 17000.0, 30000.0])
    at = orbits.time.at(np.zeros(3, int)).plus(seconds)
    states = sp3.satellite_states(orbits, np.full(3, column), at)
    # the circle turns with the Earth since the file's first epoch, the satellite is 300 s ahead of it
    expected = circle(seconds + 300.0)
    np.testing.assert_allclose(states.pos_ecef_m, expected, atol=2e-2, rtol=0)  # nodes are given to the millimetre
    np.testing.assert_allclose(states.clock_s, (10.0 + seconds / 900) * 1e-6, atol=1e-12)


def test_version_a_names_satellites_of_gps_by_number(large_file):
    lines = large_file.read_text().splitlines()
    lines = [line for line in lines if not line.startswith("P") or line.startswith("PG")]
    old = [f"P {int(line[2:4]):2d}{line[4:]}" if line.startswith("P") else line for line in lines]
    old[0] = "#a" + old[0][2:]
    large_file.with_suffix(".a").write_text("\n".join(old) + "\n")
    orbits = sp3.read(large_file.with_suffix(".a"))
    assert orbits.satellite.tolist() == [f"G{number:02d}" for number in range(1, 34)]


def test_missing_clock_and_far_times_are_invalid(large_file):
    orbits = sp3.read(large_file)
    columns = np.array([orbits.satellite.tolist().index(name) for name in ("G02", "G03", "G03", "G03")])
    at = orbits.time.at(np.zeros(4, int)).plus(np.array([5000.0, 5000.0, -1000.0, 39 * 900.0 + 1000.0]))
    states = sp3.satellite_states(orbits, columns, at)
    assert states.valid.tolist() == [False, True, False, False]
    assert np.isnan(states.pos_ecef_m[~states.valid]).all()


def test_other_formats_are_refused(tmp_path):
    (tmp_path / "x.sp3").write_text("nothing of the kind\n")
    with pytest.raises(UserError, match="give an SP3 file"):
        sp3.read(tmp_path / "x.sp3")
