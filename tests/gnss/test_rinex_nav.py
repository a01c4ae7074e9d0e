"""Navigation files: versions 2, 3 and 4, and what is broken in them."""

import gzip

import jax
import numpy as np
import pytest
from gnss.recordings import committed, shared

from jaxalign.core.errors import UserError
from jaxalign.gnss import rinex_nav

SEPT = "SEPT078M.21P.gz"


def lines_of(name):
    return gzip.decompress(committed(name).read_bytes()).decode().splitlines()


def write(tmp_path, lines):
    path = tmp_path / "file.nav"
    path.write_text("\n".join(lines) + "\n")
    return path


def first_record(lines):
    return next(k for k, line in enumerate(lines) if "END OF HEADER" in line) + 1


def test_ionosphere_of_the_header():
    navigation = rinex_nav.read(committed(SEPT))
    assert navigation.klobuchar["G"].tolist() == [1.118e-8, 7.451e-9, -5.960e-8, -5.960e-8, 9.011e4, 0, -196600, -65540]
    assert navigation.nequick is not None
    assert navigation.nequick.tolist() == [45.5, 0.05859, 0.002228]
    assert navigation.report.total == 0


def test_version_4_skips_and_counts_messages_it_does_not_use():
    path = shared("inputs/046r_rnx.nav.gz")
    navigation = rinex_nav.read(path)
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    messages = [line.split() for line in lines if line.startswith("> EPH")]
    used = [words for words in messages if words[3] in ("LNAV", "INAV", "FNAV", "D1", "D2", "FDMA")]
    assert len(navigation.satellite) + len(navigation.glonass_satellite) == len(used) > 200
    assert navigation.report.total == len(messages) - len(used)
    assert "CNV3" in str(navigation.report)
    assert np.isfinite(navigation.kepler.mean_anomaly_rad).all()


def version_4(lines):
    """The same records as a RINEX 4 file, with an ionosphere message and one that is not used."""
    start = first_record(lines)
    records = []
    for line in lines[start:]:
        if line[0].isalpha():
            records.append(f"> EPH {line[:3]} {'INAV' if line[0] == 'E' else 'LNAV'}")
        records.append(line)
    other = [
        "> EPH G01 CNAV",
        *[line.replace(" 2021 ", " 2020 ") for line in lines[start : start + 8]],
        "> ION G01 LNAV",
        "    2025 02 15 15 59 42 1.000000000000E-08 2.000000000000E-08-3.000000000000E-08",
        "    -4.000000000000E-08 5.000000000000E+04 6.000000000000E+04-7.000000000000E+04",
        "    -8.000000000000E+04 0.000000000000E+00",
        "> ION C19 CNVX",  # BDGIM, no Klobuchar
        "    2025 02 15 16 00 00 2.725000000000E+01 0.000000000000E+00 7.750000000000E+00",
        "     1.000000000000E+00 2.000000000000E+00 3.000000000000E+00 4.000000000000E+00",
        "     5.000000000000E+00 6.000000000000E+00",
    ]
    header = [
        "     4.02           NAVIGATION DATA     M                   RINEX VERSION / TYPE",
        "                                                            END OF HEADER",
    ]
    return header + other + records


def test_version_4_holds_the_same(tmp_path):
    three = rinex_nav.read(committed(SEPT))
    four = rinex_nav.read(write(tmp_path, version_4(lines_of(SEPT))))
    assert (four.satellite == three.satellite).all()
    for old, new in zip(jax.tree.leaves(three.kepler), jax.tree.leaves(four.kepler)):
        assert (old == new).all()
    assert four.klobuchar["G"].tolist() == [1e-8, 2e-8, -3e-8, -4e-8, 5e4, 6e4, -7e4, -8e4]
    assert "C" not in four.klobuchar
    assert four.report.skipped == {"ephemeris message that is not used (CNAV)": [3]}


def test_broken_records_are_skipped_and_counted(tmp_path):
    text = lines_of(SEPT)
    start = first_record(text)
    whole = rinex_nav.read(committed(SEPT))
    text[start + 2] = text[start + 2].replace(".", "x", 1)  # a number that is none
    text[start + 8 + 2] = "     .999000000000D+03" * 4  # no orbit
    del text[start + 16 + 3]  # a line lost
    text = text[:-3]  # the end of the file lost
    navigation = rinex_nav.read(write(tmp_path, text))
    assert len(navigation.satellite) == len(whole.satellite) - 4
    assert navigation.report.skipped["record cut off"] == [start + 17, len(text) - 4]
    assert navigation.report.skipped["record with unreadable or impossible numbers"] == [start + 1, start + 9]


def test_version_2_glonass(tmp_path):
    text = [
        "     2.01           GLONASS NAV DATA                        RINEX VERSION / TYPE",
        "                                                            END OF HEADER",
        " 3 98  2 15  0 15  0.0 0.163525342941D-03 0.363797880709D-11 0.108000000000D+05",
        "    0.106275903320D+05-0.348924636841D+00 0.931322574615D-09 0.000000000000D+00",
        "   -0.944422070313D+04 0.288163375854D+01 0.931322574615D-09 0.210000000000D+02",
        "    0.212257280273D+05 0.144599342346D+01-0.186264514923D-08 0.300000000000D+01",
    ]
    navigation = rinex_nav.read(write(tmp_path, text))
    assert navigation.glonass_satellite.tolist() == ["R03"]
    assert navigation.glonass.channel.tolist() == [21]
    np.testing.assert_allclose(navigation.glonass.pos_ecef_m[0], [10627590.3320, -9444220.70313, 21225728.0273])
    np.testing.assert_allclose(navigation.glonass.vel_ecef_m_s[0], [-348.924636841, 2881.63375854, 1445.99342346])
    assert navigation.glonass.tau_s.tolist() == [-0.163525342941e-3]
    assert navigation.glonass.toe.second_of_week.tolist() == [900 + 12]  # 12 leap seconds in February 1998, a Sunday
    assert len(navigation.satellite) == 0


def test_several_files_are_one():
    once, twice = rinex_nav.read(committed(SEPT)), rinex_nav.read(committed(SEPT), committed(SEPT))
    assert sorted(twice.satellite) == sorted([*once.satellite, *once.satellite])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (["nonsense"], "RINEX VERSION"),
        (["     3.04           OBSERVATION DATA    M                   RINEX VERSION / TYPE"], "END OF HEADER"),
        (
            [
                "     9.04           NAVIGATION DATA     M                   RINEX VERSION / TYPE",
                " " * 60 + "END OF HEADER",
            ],
            "versions 2, 3 and 4",
        ),
        (
            [
                "     3.04           OBSERVATION DATA    M                   RINEX VERSION / TYPE",
                " " * 60 + "END OF HEADER",
            ],
            "type 'O'",
        ),
        (
            [
                "     3.04           N: GNSS NAV DATA    M                   RINEX VERSION / TYPE",
                " " * 60 + "END OF HEADER",
            ],
            "no usable ephemeris",
        ),
    ],
)
def test_bad_files_are_refused_in_a_sentence(tmp_path, content, sentence):
    with pytest.raises(UserError, match=sentence):
        rinex_nav.read(write(tmp_path, content))


def test_missing_file():
    with pytest.raises(UserError, match="There is no file"):
        rinex_nav.read("nowhere.21N")
