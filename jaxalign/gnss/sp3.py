"""Precise orbits and clocks: SP3-c and SP3-d files, and their interpolation.

Source: Hilla 2016, "The Extended Standard Product 3 Orbit Format (SP3-d)". The number of satellites, and so of header
lines, is not limited here.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxalign.core.errors import UserError
from jaxalign.gnss import columns, time
from jaxalign.gnss.constants import EARTH_RATE_RAD_S, LIGHT_SPEED_M_S
from jaxalign.gnss.orbits import SatelliteStates
from jaxalign.gnss.time import GpsTime

NODES = 11  # polynomial of order 10
MAX_OUTSIDE_S = 900.0
_BAD_CLOCK_US = 999999.0


class PreciseOrbits(NamedTuple):
    """Nodes of an SP3 file.

    Attributes:
        time: GPS time, ascending ``[T]``.
        satellite: such as "G05" ``[S]``.
        pos_ecef_m: ``[T, S, 3]``, NaN where the file has none.
        clock_s: ``[T, S]``, NaN where the file has none.
        report: what was skipped.
    """

    time: GpsTime
    satellite: np.ndarray
    pos_ecef_m: np.ndarray
    clock_s: np.ndarray
    report: columns.ReadReport


def read(path: str | Path) -> PreciseOrbits:
    """Reads an SP3 file, of version a or b (GPS alone, satellites by number) to d.

    Raises:
        UserError: for a missing file, another format, or a file without positions.
    """
    lines = columns.read_lines(path)
    if not lines or lines[0][:2] not in (b"#c", b"#d", b"#a", b"#b"):
        raise UserError(f"{path} does not begin with #a, #b, #c or #d; give an SP3 file.")
    report = columns.ReadReport({})
    matrix = columns.line_matrix(lines, 80)
    epoch_lines = np.flatnonzero((matrix[:, 0] == ord("*")) & (matrix[:, 1] == ord(" ")))
    position_lines = np.flatnonzero(matrix[:, 0] == ord("P"))
    epoch = np.searchsorted(epoch_lines, position_lines, side="right") - 1
    position_lines, epoch = position_lines[epoch >= 0], epoch[epoch >= 0]
    parts = [columns.numbers(matrix[epoch_lines], *part) for part in _EPOCH_COLUMNS]
    cells = [columns.numbers(matrix[position_lines], 4 + 14 * k, 18 + 14 * k) for k in range(4)]
    calendar = np.stack([value for value, _ in parts], axis=1)
    values = np.stack([value for value, _ in cells], axis=1)
    dated = columns.all_finite(calendar)
    readable = columns.all_finite(values[:, :3]) & ~np.stack([bad for _, bad in cells]).any(axis=0)
    readable &= dated[epoch] if len(epoch) else readable
    report.note("record that cannot be read", position_lines[~readable] + 1)
    position_lines, epoch, values = position_lines[readable], epoch[readable], values[readable]
    if not len(epoch):
        raise UserError(f"There is no position in {path}; {report}.")

    blank = matrix[:, 1] == ord(" ")
    matrix[blank & (matrix[:, 0] == ord("P")), 1] = ord("G")
    names = np.char.replace(columns.text(matrix[position_lines], 1, 4).astype("U3"), " ", "0")
    satellite, column = np.unique(names, return_inverse=True)
    pos = np.full((len(epoch_lines), len(satellite), 3), np.nan)
    clock = np.full(pos.shape[:2], np.nan)
    present = (values[:, :3] != 0).all(1)
    pos[epoch, column] = np.where(present[:, None], values[:, :3] * 1e3, np.nan)
    clock[epoch, column] = np.where(np.abs(values[:, 3]) < _BAD_CLOCK_US, values[:, 3] * 1e-6, np.nan)
    times = _times(calendar[dated], lines)
    return PreciseOrbits(times, satellite, pos[dated], clock[dated], report)


_EPOCH_COLUMNS = ((3, 7), (8, 10), (11, 13), (14, 16), (17, 19), (20, 31))


def _times(calendar, lines) -> GpsTime:
    date, second = time.date_and_second(calendar)
    scale = next((line[9:12] for line in lines if line.startswith(b"%c")), b"GPS")
    if scale in (b"UTC", b"GLO"):
        return time.gps_from_utc(date, second)
    shift = time.BDT_BEHIND_GPST_S if scale == b"BDT" else 0.0
    return time.from_calendar(date, second + shift)


def satellite_states(orbits: PreciseOrbits, column: np.ndarray, at: GpsTime) -> SatelliteStates:
    """States of satellites at GPS times, both ``[K]``: interpolated position, clock with the relativistic term.

    Positions: polynomial through the 11 nodes around the time, in the Earth-fixed frame of that time. Clocks: linear,
    and -2 r.v / c^2 added. Invalid where a node is missing or the time lies more than 15 minutes outside.

    Args:
        orbits: nodes.
        column: of each satellite in ``orbits.satellite``.
        at: times.
    """
    pos = _position_m(orbits, column, at)
    step_s = 1e-3
    velocity = (_position_m(orbits, column, at.plus(step_s)) - pos) / step_s
    clock = _clock_s(orbits, column, at) - 2 * (pos * velocity).sum(-1) / LIGHT_SPEED_M_S**2
    node_s = orbits.time.minus(orbits.time.at(0))
    elapsed = at.minus(orbits.time.at(0))
    inside = (elapsed >= node_s[0] - MAX_OUTSIDE_S) & (elapsed <= node_s[-1] + MAX_OUTSIDE_S)
    valid = inside & np.isfinite(pos).all(-1) & np.isfinite(clock)
    return SatelliteStates(np.where(valid[:, None], pos, np.nan), np.where(valid, clock, np.nan), valid)


def _position_m(orbits, column, at) -> np.ndarray:
    if len(orbits.time.week) < NODES:
        raise UserError(f"The SP3 file has {len(orbits.time.week)} epochs; interpolation needs at least {NODES}.")
    reference = orbits.time.at(0)
    node_s, elapsed = orbits.time.minus(reference), at.minus(reference)
    following = np.searchsorted(node_s, elapsed)
    first = np.clip(following - 1 - NODES // 2, 0, len(node_s) - NODES)
    window = first[:, None] + np.arange(NODES)
    ahead_s = node_s[window] - elapsed[:, None]
    angle = EARTH_RATE_RAD_S * ahead_s
    nodes = orbits.pos_ecef_m[window, column[:, None]]
    x = np.cos(angle) * nodes[..., 0] - np.sin(angle) * nodes[..., 1]
    y = np.sin(angle) * nodes[..., 0] + np.cos(angle) * nodes[..., 1]
    return _neville(ahead_s, np.stack([x, y, nodes[..., 2]], axis=-1))


def _neville(ahead_s, values) -> np.ndarray:
    """Value at 0 of the polynomials through ``(ahead_s [K, N], values [K, N, 3])``."""
    values = values.copy()
    for order in range(1, values.shape[1]):
        left, right = ahead_s[:, :-order, None], ahead_s[:, order:, None]
        values = (right * values[:, :-1] - left * values[:, 1:]) / (right - left)
    return values[:, 0]


def _clock_s(orbits, column, at) -> np.ndarray:
    """Linear between the neighbours; the nearest one outside the file."""
    reference = orbits.time.at(0)
    node_s, elapsed = orbits.time.minus(reference), at.minus(reference)
    after = np.clip(np.searchsorted(node_s, elapsed), 1, len(node_s) - 1)
    share = np.clip((elapsed - node_s[after - 1]) / (node_s[after] - node_s[after - 1]), 0.0, 1.0)
    before_s, after_s = orbits.clock_s[after - 1, column], orbits.clock_s[after, column]
    return np.where(share == 0, before_s, np.where(share == 1, after_s, (1 - share) * before_s + share * after_s))
