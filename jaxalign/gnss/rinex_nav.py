"""Navigation files: RINEX 2.11, 3 and 4. Broken records are skipped, counted and reported.

Layout: RINEX 2.11 tables A3, A10; 3.05 tables A6 to A15; 4.01 tables A7 to A34.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxalign.core.errors import UserError
from jaxalign.gnss import columns, time
from jaxalign.gnss.constants import BDT_BEHIND_GPST_S, BEIDOU_GEO, GRAVITY, SECONDS_PER_WEEK
from jaxalign.gnss.glonass import GlonassElements
from jaxalign.gnss.orbits import KeplerElements

KEPLER_SYSTEMS = "GEJC"
# Continuation lines after the epoch line, by system
_CONTINUATION = {"G": 7, "E": 7, "J": 7, "C": 7, "R": 3, "S": 3, "I": 7}
# Year, month, day, hour, minute, second
_EPOCH_COLUMNS_2 = ((3, 5), (6, 8), (9, 11), (12, 14), (15, 17), (17, 22))
_EPOCH_COLUMNS = ((4, 8), (9, 11), (12, 14), (15, 17), (18, 20), (21, 23))
_KEPLER_MESSAGES = ("LNAV", "INAV", "FNAV", "D1", "D2", "D1D2")


class Navigation(NamedTuple):
    """Content of a navigation file.

    Attributes:
        satellite: of each Kepler record, such as "G05", ``[N]``.
        kepler: orbits and clocks ``[N]``.
        health: as broadcast, 0 is healthy, ``[N]``.
        accuracy_m: URA or SISA in metres as in the file, ``[N]``.
        group_delay_s: ``[N, 2]``: GPS, QZSS TGD; Galileo BGD E1-E5a, E1-E5b; BeiDou TGD1, TGD2.
        data_source: Galileo's bits (9: clock of E1-E5b, I/NAV; 8: E1-E5a, F/NAV), ``[N]``.
        issue: of data (IODE, IODnav, AODE), ``[N]``.
        glonass_satellite: such as "R01", ``[M]``.
        glonass: states and clocks ``[M]``.
        glonass_health: ``[M]``.
        klobuchar: alpha and beta ``[8]`` by system letter ("G", "C", "J").
        nequick: Galileo's a0, a1, a2 ``[3]``, or None.
        report: what was skipped.
    """

    satellite: np.ndarray
    kepler: KeplerElements
    health: np.ndarray
    accuracy_m: np.ndarray
    group_delay_s: np.ndarray
    data_source: np.ndarray
    issue: np.ndarray
    glonass_satellite: np.ndarray
    glonass: GlonassElements
    glonass_health: np.ndarray
    klobuchar: dict[str, np.ndarray]
    nequick: np.ndarray | None
    report: columns.ReadReport


class _Records(NamedTuple):
    """Raw records of one length: satellite ``[N]``, epoch, values ``[N, V]`` (NaN: blank)."""

    satellite: np.ndarray
    date: np.ndarray
    second_of_day: np.ndarray
    values: np.ndarray


def read(*paths: str | Path) -> Navigation:
    """Reads one or several navigation files (GPS, Galileo, BeiDou, QZSS, GLONASS) as if they were one.

    Raises:
        UserError: for a missing file, a file that is not navigation data, or files without any usable record.
    """
    report = columns.ReadReport({})
    raw: dict[str, list[_Records]] = {}
    ionosphere: dict[str, np.ndarray] = {}
    for path in paths:
        lines = columns.read_lines(path)
        pairs = columns.header(lines, path)
        version = columns.version_and_type(pairs, path, "NGH")
        _header_ionosphere(pairs, ionosphere)
        if version >= 4:
            _message_ionosphere(lines, ionosphere)
        for system, records in _file_records(lines, len(pairs), version, pairs[0][1][20], report).items():
            raw.setdefault(system, []).append(records)
    joined = {system: _Records(*map(np.concatenate, zip(*parts))) for system, parts in raw.items()}
    if not sum(len(records.satellite) for records in joined.values()):
        raise UserError(f"There is no usable ephemeris in {', '.join(map(str, paths))}: {report}.")
    parts = [_kepler(joined[system], system) for system in KEPLER_SYSTEMS if system in joined]
    parts = parts or [_kepler(_no_records(30), "G")]
    kepler: Any = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    glonass: Any = _glonass(joined.get("R", _no_records(15)))
    nequick = ionosphere.pop("E", None)
    return Navigation(*kepler, *glonass, klobuchar=ionosphere, nequick=nequick, report=report)


def _no_records(values: int) -> _Records:
    return _Records(np.empty(0, "<U3"), np.empty(0, "datetime64[D]"), np.empty(0), np.empty((0, values)))


def _header_ionosphere(pairs, ionosphere) -> None:
    """Coefficients of the header: RINEX 2 ION ALPHA and BETA, RINEX 3 IONOSPHERIC CORR."""
    halves: dict[str, list[float]] = {}
    for label, content in pairs:
        if label in ("ION ALPHA", "ION BETA"):
            key, start = ("GPSA" if label == "ION ALPHA" else "GPSB"), 2
        elif label == "IONOSPHERIC CORR":
            key, start = content[:4].strip(), 5
        else:
            continue
        cells = [content[k : k + 12].replace("D", "E").strip() for k in range(start, start + 48, 12)]
        try:
            halves.setdefault(key, [float(cell or "0") for cell in cells])
        except ValueError:
            continue
    for system, name in (("G", "GPS"), ("J", "QZS"), ("C", "BDS")):
        if name + "A" in halves and name + "B" in halves:
            ionosphere.setdefault(system, np.array(halves[name + "A"] + halves[name + "B"]))
    if "GAL" in halves:
        ionosphere["E"] = np.array(halves["GAL"][:3])


def _message_ionosphere(lines, ionosphere) -> None:
    """RINEX 4 ION messages: 8 coefficients (GPS, BeiDou, QZSS) or Galileo's 3, the last one of each system.

    BeiDou's CNVX message holds another model (BDGIM) and is passed over.
    """
    for k, line in enumerate(lines):
        if not line.startswith(b"> ION") or k + 2 >= len(lines):
            continue
        if line[6:7] == b"C" and b"CNVX" in line:
            continue
        block = columns.line_matrix(lines[k + 1 : k + 4], 80)
        cells = [columns.numbers(block, c, c + 19)[0] for c in (4, 23, 42, 61)]
        flat = np.stack(cells, axis=1).ravel()[1:]
        wanted = 3 if line[6:7] == b"E" else 8
        if np.isfinite(flat[:wanted]).all():
            ionosphere[line[6:7].decode()] = flat[:wanted]


def _file_records(lines, start, version, kind, report) -> dict[str, _Records]:
    """Records of one file by system letter."""
    matrix = columns.line_matrix(lines[start:], 80) if lines[start:] else np.full((0, 80), 32, np.uint8)
    if version < 3:
        first, system = (matrix[:, :2] != ord(" ")).any(1), "R" if kind == "G" else "G"
        systems = np.full(len(matrix), system)
    else:
        first = (matrix[:, 0] >= ord("A")) & (matrix[:, 0] <= ord("Z"))
        systems = matrix[:, :1].copy().view("S1").ravel().astype("U1")
        if version >= 4:
            first &= _known_message(lines[start:], report, start + 1)
    starts = np.flatnonzero(first)
    tops = np.flatnonzero(first | (matrix[:, 0] == ord(">")) | (matrix[:, 0] > ord("9")))
    ends = np.append(tops[1:], len(matrix))[np.searchsorted(tops, starts)]
    records = {}
    for system in sorted({*systems[starts]}):
        chosen = systems[starts] == system
        if system not in GRAVITY:
            report.note(f"record of a system that is not used ({system})", starts[chosen] + start + 1)
            continue
        length = _CONTINUATION[system]
        complete = (ends - starts > length) & chosen
        report.note("record cut off", starts[chosen & ~complete] + start + 1)
        records[system] = _parse(matrix, starts[complete], system, version, (report, start + 1))
    return records


def _known_message(lines, report, offset) -> np.ndarray:
    """RINEX 4: True on the epoch lines of legacy ephemerides, the only messages that are read."""
    known = np.zeros(len(lines), bool)
    for k, line in enumerate(lines):
        if not line.startswith(b"> ") or k + 1 >= len(lines):
            continue
        kind, _, message = [*line[2:].decode("ascii", "replace").split(), "", "", ""][:3]
        if kind == "EPH" and message in (*_KEPLER_MESSAGES, "FDMA"):
            known[k + 1] = True
        elif kind == "EPH":
            report.note(f"ephemeris message that is not used ({message})", k + offset)
    return known


def _parse(matrix, starts, system, version, reporting) -> _Records:
    """Numbers of complete records of one system; `reporting` is the report and the number of the first line."""
    report, offset = reporting
    rows = np.concatenate([matrix[starts + k] for k in range(_CONTINUATION[system] + 1)], axis=1)
    shift = 3 if version < 3 else 4
    cells = [columns.numbers(rows, *part) for part in (_EPOCH_COLUMNS_2 if version < 3 else _EPOCH_COLUMNS)]
    first_value = shift + 19
    value_columns = [first_value + 19 * k for k in range(3)]
    for line in range(1, _CONTINUATION[system] + 1):
        value_columns += [80 * line + shift + 19 * k for k in range(4)]
    number = columns.text(rows, 0 if version < 3 else 1, 2 if version < 3 else 3)
    read = [columns.numbers(rows, c, c + 19) for c in value_columns]
    broken = np.stack([bad for _, bad in cells + read]).any(axis=0)
    calendar = np.stack([value for value, _ in cells], axis=1)
    values = np.stack([value for value, _ in read], axis=1)
    required = 14 if system == "R" else 19
    good = ~broken & columns.all_finite(calendar) & columns.all_finite(values[:, :required])
    good &= np.char.isdigit(number) & _plausible(calendar, values, system)
    report.note("record with unreadable or impossible numbers", starts[~good] + offset)
    calendar, number = calendar[good], number[good].astype(int)
    date, second = time.date_and_second(calendar)
    return _Records(np.array([f"{system}{n:02d}" for n in number], "<U3"), date, second, values[good])


def _plausible(calendar, values, system) -> np.ndarray:
    """Calendar within its ranges and, for Kepler records, an ellipse around the Earth."""
    with np.errstate(invalid="ignore"):
        good = (calendar[:, 1] >= 1) & (calendar[:, 1] <= 12) & (calendar[:, 2] >= 1) & (calendar[:, 2] <= 31)
        if system != "R":
            good &= (values[:, 8] >= 0) & (values[:, 8] < 1) & (values[:, 10] > 2525.0)
    return good


def _kepler(records: _Records, system: str):
    """The first seven fields of `Navigation` for the records of one system."""
    v = records.values
    toc = time.from_calendar(records.date, records.second_of_day)
    shift = BDT_BEHIND_GPST_S if system == "C" else 0.0
    # the week of t_oe is that which brings it nearest to t_oc: the files' week numbers roll over
    ahead = v[:, 11] - toc.second_of_week
    ahead -= np.round(ahead / SECONDS_PER_WEEK) * SECONDS_PER_WEEK
    toe = toc.plus(ahead + shift).normalised()
    toc = toc.plus(np.full(len(v), shift)).normalised()
    number = np.array([int(name[1:]) for name in records.satellite], int)
    filled = np.nan_to_num(v)
    model = GRAVITY[system]
    elements = KeplerElements(
        toe=toe,
        toc=toc,
        toe_own_s=v[:, 11],
        sqrt_semi_major_axis=v[:, 10],
        eccentricity=v[:, 8],
        inclination_rad=v[:, 15],
        inclination_rate_rad_s=filled[:, 19],
        omega0_rad=v[:, 13],
        omega_rate_rad_s=v[:, 18],
        perigee_rad=v[:, 17],
        mean_anomaly_rad=v[:, 6],
        mean_motion_difference_rad_s=v[:, 5],
        cuc_rad=v[:, 7],
        cus_rad=v[:, 9],
        crc_m=v[:, 16],
        crs_m=v[:, 4],
        cic_rad=v[:, 12],
        cis_rad=v[:, 14],
        clock_s=v[:, 0],
        clock_rate=v[:, 1],
        clock_rate_rate_per_s=v[:, 2],
        mu_m3_s2=np.full(len(v), model.mu_m3_s2),
        earth_rate_rad_s=np.full(len(v), model.earth_rate_rad_s),
        is_geostationary=np.isin(number, BEIDOU_GEO) if system == "C" else np.zeros(len(v), bool),
    )
    second_delay = filled[:, 26] if system in "EC" else np.zeros(len(v))
    health, source, issue = (filled[:, k].astype(int) for k in (24, 20, 3))
    delays = np.stack([filled[:, 25], second_delay], axis=1)
    return records.satellite, elements, health, filled[:, 23], delays, source, issue


def _glonass(records: _Records):
    """The three GLONASS fields of `Navigation`; epochs are UTC, rounded to the quarter hour of the broadcast frame."""
    v = records.values
    quarter = np.floor((records.second_of_day + 450.0) / 900.0) * 900.0
    vectors = np.stack([v[:, 3:6], v[:, 7:10], v[:, 11:14]], axis=1) * 1e3
    channel = v[:, 10].astype(int)
    elements = GlonassElements(
        toe=time.gps_from_utc(records.date, quarter),
        pos_ecef_m=vectors[:, :, 0],
        vel_ecef_m_s=vectors[:, :, 1],
        acceleration_m_s2=vectors[:, :, 2],
        tau_s=-v[:, 0],
        gamma=v[:, 1],
        channel=np.where(channel > 128, channel - 256, channel),
    )
    return records.satellite, elements, v[:, 6].astype(int)
