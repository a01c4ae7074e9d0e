"""Observation files: read, written, broken, and quickly."""

import gzip
import time as clock

import numpy as np
import pytest
from gnss.recordings import committed, shared, table

from jaxalign.core.errors import UserError
from jaxalign.gnss import output, rinex_obs

SEPT = "SEPT078M1.21O.gz"


@pytest.fixture(scope="module")
def sept():
    return rinex_obs.read(committed(SEPT))


def agree_with_recording(observations, recording):
    """Pseudoranges and C/N0 equal those that RTKLIB read."""
    assert (observations.time.week == recording["gps_week"]).all()
    np.testing.assert_allclose(observations.time.second_of_week, recording["gps_sow"], atol=1e-6, rtol=0)
    column = {name: s for s, name in enumerate(observations.satellite)}
    ranges, strengths = observations.first_of("C"), observations.first_of("S")
    for e, count in enumerate(recording["nsat"]):
        letters, numbers = recording["sys"][e, :count], recording["prn"][e, :count]
        here = [column[f"{s}{p - 192 * (s == 'J'):02d}"] for s, p in zip(letters, numbers)]
        assert ranges[e, here].tolist() == recording["P"][e, :count].tolist()
        np.testing.assert_allclose(strengths[e, here], recording["cn0"][e, :count], atol=0.13)  # RTKLIB keeps quarters


def test_version_3(sept):
    agree_with_recording(sept, table(committed("spp_sept078_GEJ.npz")))
    assert sept.approximate_pos_ecef_m.tolist() == [-3962108.4557, 3381308.8777, 3668678.1749]
    assert sept.report.total == 0


def test_urban_file_is_read_within_a_second():
    path = shared("inputs/TST1_COM3_190428_124409.obs.gz")
    began = clock.perf_counter()
    observations = rinex_obs.read(path)
    assert clock.perf_counter() - began < 1.0
    assert len(observations.time.week) == 1760
    agree_with_recording(observations, table(shared("spp_tst1_GC.npz")))


VERSION_2 = """\
     2.11           OBSERVATION DATA    M (MIXED)           RINEX VERSION / TYPE
     6    L1    C1    S1    P2    L2    D1                  # / TYPES OF OBSERV
  2021     3    19    12     0    0.0000000     GPS         TIME OF FIRST OBS
                                                            END OF HEADER
 21  3 19 12  0  0.0000000  0  2G05  9
 112345678.123 7  21234567.250          45.500    21234570.125          1.000
      1234.500
 112345679.123    21234568.250          44.500
                                                                            \

 21  3 19 12  0  1.0000000  4  2
                            COMMENT LINES OF AN EVENT       COMMENT
                            COMMENT LINES OF AN EVENT       COMMENT
this line belongs nowhere
 21  3 19 12  0  2.5000000  0 13G01G02G03G04G05G06G07G08G09G10G11G12
                                R13
"""


def version_2(tmp_path):
    last = "".join(f"{'':16}{20000000 + s:14.3f}\n\n" for s in range(13))
    path = tmp_path / "file.21o"
    path.write_text(VERSION_2 + last)
    return rinex_obs.read(path)


def test_version_2(tmp_path):
    observations = version_2(tmp_path)
    assert observations.time.second_of_week.tolist() == [475200.0, 475202.5]
    assert len(observations.satellite) == 13
    g05, g09, r13 = (observations.satellite.tolist().index(name) for name in ("G05", "G09", "R13"))
    assert observations.values["C1"][:, g05].tolist() == [21234567.250, 20000004.0]
    assert observations.values["D1"][0, g05] == 1234.5
    assert observations.values["P2"][0, g05] == 21234570.125
    assert np.isnan(observations.values["P2"][0, g09])
    assert observations.values["C1"][1, r13] == 20000012.0
    assert observations.first_of("C")[0, g09] == 21234568.250
    assert observations.report.skipped == {"line where an epoch should begin": [13]}


@pytest.mark.parametrize(
    ("system", "named", "second"),
    [
        ("C", "BDT", 471614.0), ("C", "   ", 471614.0),
        ("R", "GLO", 471618.0), ("R", "   ", 471618.0),
        ("G", "   ", 471600.0), ("C", "GPS", 471600.0),
    ],
)  # fmt: skip
def test_files_of_one_system_may_leave_its_time_scale_out(tmp_path, system, named, second):
    """BDT is 14 s behind GPS time, GLONASS time is UTC, then 18 s behind."""
    header = [
        (f"     3.04           OBSERVATION DATA    {system}", "RINEX VERSION / TYPE"),
        (f"{system}    1 C1C", "SYS / # / OBS TYPES"),
        (f"  2021     3    19    11     0    0.0000000     {named}", "TIME OF FIRST OBS"),
        ("", "END OF HEADER"),
    ]
    lines = [f"{content:60}{label}" for content, label in header]
    lines += ["> 2021 03 19 11 00  0.0000000  0  1", f"{system}05{21234567.25:14.3f}"]
    (tmp_path / "one.obs").write_text("\n".join(lines) + "\n")
    assert rinex_obs.read(tmp_path / "one.obs").time.second_of_week.tolist() == [second]


def test_broken_records_are_skipped_and_counted(tmp_path):
    text = gzip.decompress(committed(SEPT).read_bytes()).decode().splitlines()
    epochs = [k for k, line in enumerate(text) if line.startswith(">")]
    text[epochs[3]] = text[epochs[3]].replace("2021", "2x21")
    text[epochs[5] + 1] = text[epochs[5] + 1].replace(".", ";")
    text[epochs[6] + 1] = "Q" + text[epochs[6] + 1][1:]
    path = tmp_path / "file.obs"
    path.write_text("\n".join([*text[:-1], text[-1][:20]]))
    observations = rinex_obs.read(path)
    assert len(observations.time.week) == 59
    assert observations.report.skipped == {
        "epoch that cannot be read, with its satellites": [epochs[3] + 1],
        "record with unreadable numbers": [epochs[5] + 2],
        "record of an unknown satellite": [epochs[6] + 2],
    }


def test_written_file_reads_back(tmp_path, sept):
    rinex_obs.write(tmp_path / "copy.rnx", sept)
    copy = rinex_obs.read(tmp_path / "copy.rnx")
    assert copy.satellite.tolist() == sept.satellite.tolist()
    assert (copy.time.second_of_week == sept.time.second_of_week).all()
    assert copy.values.keys() == sept.values.keys()
    for code, value in sept.values.items():
        np.testing.assert_allclose(copy.values[code], value, atol=5.1e-4, rtol=0)


def test_csv_has_a_line_for_each_record(tmp_path, sept):
    output.write_observations_csv(tmp_path / "sept.csv", sept)
    lines = (tmp_path / "sept.csv").read_text().splitlines()
    names = lines[0].split(",")
    first = dict(zip(names, lines[1].split(",")))
    column = sept.satellite.tolist().index(first["satellite"])
    assert float(first["C1C"]) == sept.values["C1C"][0, column]
    assert len(lines) - 1 == np.isfinite(np.stack(list(sept.values.values()))).any(0).sum()


def test_file_without_epochs(tmp_path):
    path = tmp_path / "empty.obs"
    path.write_text("\n".join([*VERSION_2.splitlines()[:4], "junk"]))
    with pytest.raises(UserError, match="no usable epoch"):
        rinex_obs.read(path)
