"""Observation files: RINEX 2.11, 3 and 4, read column-wise in NumPy; RINEX 3.04 written.

Broken records are skipped, counted and reported. Layout: RINEX 2.11 table A2, RINEX 3.05 tables A2 and A3.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxalign.core.errors import UserError
from jaxalign.gnss import columns, time
from jaxalign.gnss.time import GpsTime

SYSTEMS = "GREJCIS"
# Codes of single-frequency pseudoranges on L1, E1, B1I, G1 by preference; the last is RINEX 2's
L1_CODES = {
    "G": ("C1C", "C1P", "C1W", "C1S", "C1L", "C1X", "C1"),
    "R": ("C1C", "C1P", "C1"),
    "E": ("C1C", "C1A", "C1B", "C1X", "C1Z", "C1"),
    "J": ("C1C", "C1S", "C1L", "C1X", "C1Z", "C1"),
    "C": ("C2I", "C2Q", "C2X", "C1I", "C1"),
}


class Observations(NamedTuple):
    """Content of an observation file.

    Attributes:
        time: receiver time tags ``[E]``, GPS time.
        satellite: such as "G05", ``[S]``, sorted.
        values: code (such as "C1C") to ``[E, S]`` in the file's units (m, cycles, Hz, dB-Hz), NaN where absent.
        approximate_pos_ecef_m: of the header ``[3]``, NaN if not given.
        report: what was skipped.
    """

    time: GpsTime
    satellite: np.ndarray
    values: dict[str, np.ndarray]
    approximate_pos_ecef_m: np.ndarray
    report: columns.ReadReport

    def first_of(self, letter: str, codes: dict[str, tuple[str, ...]] = L1_CODES) -> np.ndarray:
        """``[E, S]`` of the first code of each system's list that is present, its C replaced by `letter` (C L D S)."""
        chosen = np.full((len(self.time.week), len(self.satellite)), np.nan)
        systems = np.array([name[0] for name in self.satellite])
        for system, names in codes.items():
            for name in reversed([letter + code[1:] for code in names]):
                if name in self.values:
                    here = (systems == system) & np.isfinite(self.values[name])
                    chosen = np.where(here, self.values[name], chosen)
        return chosen


class _Rows(NamedTuple):
    """One line for each satellite and epoch: number of its epoch, satellite, and first line in the matrix."""

    epoch: np.ndarray
    satellite: np.ndarray
    line: np.ndarray


def read(path: str | Path) -> Observations:
    """Reads an observation file, plain or gzipped.

    Raises:
        UserError: for a missing file, one that is not observations, or one without a usable epoch.
    """
    lines = columns.read_lines(path)
    pairs = columns.header(lines, path)
    version = columns.version_and_type(pairs, path, "O")
    report = columns.ReadReport({})
    types = _types_2(pairs) if version < 3 else _types_3(pairs)
    body = lines[len(pairs) :]
    if not types or not body:
        raise UserError(f"{path} lists no observation types or has no epoch; there is nothing to position with.")
    most = max(map(len, types.values()))
    width = 80 if version < 3 else max(3 + 16 * most, 60)
    matrix = columns.line_matrix(body, width)
    layout = _layout_2 if version < 3 else _layout_3
    times, rows = layout(matrix, types, report, len(pairs) + 1)
    if not len(rows.epoch):
        raise UserError(f"There is no usable epoch in {path}: {report}.")
    satellite, column = np.unique(rows.satellite, return_inverse=True)
    values: dict[str, np.ndarray] = {}
    for system in sorted({name[0] for name in satellite}):
        chosen = np.char.startswith(rows.satellite, system)
        codes = types[system]
        block, bad = _row_values(matrix, rows.line[chosen], len(codes), version)
        report.note("record with unreadable numbers", rows.line[chosen][bad] + len(pairs) + 1)
        at = (rows.epoch[chosen][~bad], column[chosen][~bad])
        for k, code in enumerate(codes):
            if code not in values:
                values[code] = np.full((len(times.week), len(satellite)), np.nan)
            values[code][at] = block[~bad, k]
    return Observations(_in_gps_time(times, pairs), satellite, values, _approximate_position(pairs), report)


def _types_3(pairs) -> dict[str, list[str]]:
    types: dict[str, list[str]] = {}
    system = ""
    for label, content in pairs:
        if label == "SYS / # / OBS TYPES":
            system = content[0].strip() or system
            types.setdefault(system, []).extend(content[6:].split())
    return types


def _types_2(pairs) -> dict[str, list[str]]:
    names: list[str] = []
    for label, content in pairs:
        if label == "# / TYPES OF OBSERV":
            names.extend(content[6:].split())
    return dict.fromkeys(SYSTEMS, names) if names else {}


def _in_gps_time(times: GpsTime, pairs) -> GpsTime:
    """GPS time of the file's own scale (GLO is UTC, BDT is 14 s behind).

    TIME OF FIRST OBS names it; only files of a single system may leave it out, and are then in that system's.
    """
    named = next((content[48:51].strip() for label, content in pairs if label == "TIME OF FIRST OBS"), "")
    system = next((content[40:41] for label, content in pairs if label == "RINEX VERSION / TYPE"), "")
    scale = named or {"R": "GLO", "C": "BDT"}.get(system, "GPS")
    if scale == "BDT":
        return times.plus(np.full(len(times.week), time.BDT_BEHIND_GPST_S)).normalised()
    if scale == "GLO":
        return time.gps_from_utc(*time.to_calendar(times))
    return times


def _approximate_position(pairs) -> np.ndarray:
    for label, content in pairs:
        if label == "APPROX POSITION XYZ":
            try:
                return np.array([float(content[k : k + 14]) for k in (0, 14, 28)])
            except ValueError:
                break
    return np.full(3, np.nan)


def _row_values(matrix, first_lines, count, version):
    """Values ``[R, count]`` of satellites' records and a mask of the unreadable rows."""
    if version < 3:
        parts = [matrix[np.minimum(first_lines + k, len(matrix) - 1)] for k in range(-(-count // 5))]
        block = np.concatenate(parts, axis=1)
    else:
        block = matrix[first_lines, 3:]
    cells = block[:, : 16 * count].reshape(len(block) * count, 16)
    values, bad = columns.numbers(cells, 0, 14)
    values = np.where(values == 0, np.nan, values)  # 0.0 stands for missing
    return values.reshape(-1, count), bad.reshape(-1, count).any(1)


def _epoch_times(matrix, rows, first_column, second_columns) -> tuple[GpsTime, np.ndarray]:
    """Times of epoch lines and a mask of those that cannot be read; `first_column` of the year, (start, stop)."""
    start, stop = first_column
    parts = [(start, stop)] + [(stop + 3 * k + 1, stop + 3 * k + 3) for k in range(4)] + [second_columns]
    read = [columns.numbers(matrix[rows], *part) for part in parts]
    values = np.stack([value for value, _ in read], axis=1)
    good = columns.all_finite(values)
    values = np.where(good[:, None], values, 1.0)
    month, day = values[:, 1], values[:, 2]
    good = good & (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)
    return time.from_calendar(*time.date_and_second(values)), ~good


def _layout_3(matrix, types, report, offset) -> tuple[GpsTime, _Rows]:
    """Times and rows of a RINEX 3 or 4 body: a line that begins with > for each epoch, then a line per satellite."""
    epoch_lines = np.flatnonzero(matrix[:, 0] == ord(">"))
    times, broken = _epoch_times(matrix, epoch_lines, (2, 6), (18, 29))
    flag, _ = columns.numbers(matrix[epoch_lines], 31, 32)
    event = flag > 1
    report.note("epoch that cannot be read, with its satellites", epoch_lines[broken & ~event] + offset)
    kept = ~broken & ~event

    epoch = np.searchsorted(epoch_lines, np.arange(len(matrix)), side="right") - 1
    lines = np.flatnonzero((matrix[:, 0] != ord(">")) & (epoch >= 0))
    lines = lines[kept[epoch[lines]]] if len(epoch_lines) else lines[:0]
    satellite, good = _satellite_names(matrix[lines, :3])
    good &= np.isin(matrix[lines, 0], [ord(system) for system in types])
    report.note("record of an unknown satellite", lines[~good] + offset)
    lines, satellite = lines[good], satellite[good]
    number = np.cumsum(kept) - 1
    return times.at(kept), _Rows(number[epoch[lines]], satellite, lines)


def _satellite_names(block) -> tuple[np.ndarray, np.ndarray]:
    """Names such as G05 of ``[R, 3]`` bytes ("G 5" counts) and a mask of the proper ones."""
    block = np.where(block == ord(" "), np.uint8(ord("0")), block)
    names = np.ascontiguousarray(block).view("S3").ravel().astype("U3", casting="unsafe")
    digits = (block[:, 1:] >= ord("0")) & (block[:, 1:] <= ord("9"))
    return names, np.asarray(digits.all(axis=1))


_EPOCH_2 = re.compile(rb"^ [ \d]\d [ \d]\d [ \d]\d [ \d]\d [ \d]\d[ \d]{2}\d\.\d{7}  [0-6]")


def _layout_2(matrix, types, report, offset) -> tuple[GpsTime, _Rows]:
    """Times and rows of a RINEX 2 body, whose epoch lines name the satellites and tell where the next epoch begins."""
    lines_each = -(-len(types["G"]) // 5)
    epoch_lines, rows = [], []
    k = 0
    while k < len(matrix):
        line = matrix[k].tobytes()
        head = _EPOCH_2.match(line)
        count = line[29:32].strip()
        if not head or not count.isdigit():
            report.note("line where an epoch should begin", k + offset)
            k += 1
            continue
        count, flag = int(count), line[28:29]
        if flag not in b"01":
            k += 1 + count  # an event: so many lines of header
            continue
        name_lines = -(-count // 12)
        first = k + max(name_lines, 1)
        if first + count * lines_each > len(matrix):
            report.note("epoch cut off", k + offset)
            break
        names = b"".join(matrix[k + j, 32:68].tobytes() for j in range(name_lines))
        rows += [(len(epoch_lines), names[3 * s : 3 * s + 3], first + s * lines_each) for s in range(count)]
        epoch_lines.append(k)
        k = first + count * lines_each
    if not rows:
        return GpsTime(np.empty(0, int), np.empty(0)), _Rows(np.empty(0, int), np.empty(0, "<U3"), np.empty(0, int))
    times, broken = _epoch_times(matrix, np.array(epoch_lines), (1, 3), (15, 26))
    epoch, names, first_line = (np.array(part) for part in zip(*rows))
    blanks = names.astype("S3").view(np.uint8).reshape(-1, 3).copy()
    blanks[:, 0] = np.where(blanks[:, 0] <= ord(" "), ord("G"), blanks[:, 0])
    satellite, good = _satellite_names(blanks)
    good &= np.isin(blanks[:, 0], [ord(system) for system in types]) & ~broken[epoch]
    report.note("record of an unknown satellite or of an epoch that cannot be read", first_line[~good] + offset)
    number = np.cumsum(~broken) - 1
    return times.at(~broken), _Rows(number[epoch[good]], satellite[good], first_line[good])


def write(path: str | Path, observations: Observations) -> None:
    """Writes a RINEX 3.04 observation file, for virtual receivers to be solved by other programs."""
    systems = sorted({name[0] for name in observations.satellite})
    held = {
        system: [
            code
            for code, value in observations.values.items()
            if np.isfinite(value[:, np.char.startswith(observations.satellite, system)]).any()
        ]
        for system in systems
    }
    date, second = time.to_calendar(observations.time)

    def stamp(k, pattern):
        hour, minute = int(second[k] // 3600), int(second[k] % 3600 // 60)
        year, month, day = str(date[k]).split("-")
        return pattern.format(int(year), int(month), int(day), hour, minute, second[k] % 60)

    def labelled(content, label):
        return f"{content:<60}{label}"

    pos = np.nan_to_num(observations.approximate_pos_ecef_m)
    text = [
        labelled("     3.04           OBSERVATION DATA    M", "RINEX VERSION / TYPE"),
        labelled("jaxalign", "PGM / RUN BY / DATE"),
        labelled("".join(f"{x:14.4f}" for x in pos), "APPROX POSITION XYZ"),
        labelled("".join(f"{0.0:14.4f}" for _ in range(3)), "ANTENNA: DELTA H/E/N"),
    ]
    for system, codes in held.items():
        for start in range(0, len(codes), 13):
            lead = f"{system}  {len(codes):3d}" if start == 0 else " " * 6
            text.append(
                labelled(lead + "".join(f" {code}" for code in codes[start : start + 13]), "SYS / # / OBS TYPES")
            )
    first = stamp(0, "{:6d}{:6d}{:6d}{:6d}{:6d}{:13.7f}") + "     GPS"
    text += [labelled(first, "TIME OF FIRST OBS"), labelled("", "END OF HEADER")]
    for k in range(len(date)):
        lines = [
            name + "".join(_cell(observations.values[code][k, s]) for code in held[name[0]]).rstrip()
            for s, name in enumerate(observations.satellite)
            if any(np.isfinite(observations.values[code][k, s]) for code in held[name[0]])
        ]
        text.append(stamp(k, "> {:4d} {:02d} {:02d} {:02d} {:02d}{:11.7f}") + f"  0{len(lines):3d}")
        text += lines
    Path(path).write_text("\n".join(text) + "\n")


def _cell(value: float) -> str:
    return f"{value:14.3f}  " if np.isfinite(value) else " " * 16
