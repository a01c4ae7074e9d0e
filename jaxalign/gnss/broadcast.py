"""States of many satellites at many times from the records of a navigation file."""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxalign.gnss import frames, glonass, orbits
from jaxalign.gnss.constants import EPHEMERIS_LIFE_S, LIGHT_SPEED_M_S
from jaxalign.gnss.orbits import SatelliteStates
from jaxalign.gnss.rinex_nav import Navigation
from jaxalign.gnss.time import GpsTime

NO_RECORD = -1


class BroadcastStates(NamedTuple):
    """States ``[E, S]`` and the record of each (into Kepler's or GLONASS's, -1 where none is fresh enough)."""

    states: SatelliteStates
    record: np.ndarray


def nearest_records(navigation: Navigation, satellite: np.ndarray, time: GpsTime) -> np.ndarray:
    """Index ``[E, S]`` of each satellite's record with t_oe nearest to the times ``[E, S]``, -1 if none is in its life.

    Of two equally near the later one in the file.
    """
    chosen = np.full(np.shape(time.second_of_week), NO_RECORD)
    for s, name in enumerate(satellite):
        is_glonass = name[0] == "R"
        of_satellite = (navigation.glonass_satellite if is_glonass else navigation.satellite) == name
        rows = np.flatnonzero(of_satellite)[::-1]
        if not len(rows):
            continue
        toe = (navigation.glonass if is_glonass else navigation.kepler).toe.at(rows)
        at = GpsTime(time.week[:, s, None], time.second_of_week[:, s, None])
        age = np.abs(at.minus(toe))
        fresh = age.min(axis=1) <= EPHEMERIS_LIFE_S[name[0]]
        chosen[:, s] = np.where(fresh, rows[age.argmin(axis=1)], NO_RECORD)
    return chosen


def states_at(navigation: Navigation, satellite: np.ndarray, time: GpsTime) -> BroadcastStates:
    """States of satellites ``[S]`` at GPS times ``[E]`` or ``[E, S]``, for sky plots and simulation."""
    time = _per_satellite(time, len(satellite))
    record = nearest_records(navigation, satellite, time)
    return BroadcastStates(_states(navigation, satellite, time, record), record)


class Sky(NamedTuple):
    """Satellites as seen from a place.

    Attributes:
        satellite: names ``[S]``.
        direction_enu: unit vectors ``[E, S, 3]``, straight down where there is no usable state.
        azimuth_rad: from north over east, ``[E, S]``.
        elevation_rad: ``[E, S]``.
        usable: healthy and with a fresh record, ``[E, S]``.
    """

    satellite: np.ndarray
    direction_enu: np.ndarray
    azimuth_rad: np.ndarray
    elevation_rad: np.ndarray
    usable: np.ndarray


def sky(navigation: Navigation, place: frames.Geodetic, time: GpsTime) -> Sky:
    """All satellites of the file at GPS times ``[E]`` over one place, whether above the horizon or not."""
    satellite = np.unique(np.concatenate([navigation.satellite, navigation.glonass_satellite]))
    states, record = states_at(navigation, satellite, time)
    local = frames.enu_from_ecef(states.pos_ecef_m, place)
    usable = states.valid & healthy(navigation, satellite, record)
    with np.errstate(invalid="ignore"):
        direction = local / np.linalg.norm(local, axis=-1, keepdims=True)
    direction = np.where(usable[..., None], direction, [0.0, 0.0, -1.0])
    return Sky(satellite, direction, *frames.azimuth_elevation(direction), usable)


def healthy(navigation: Navigation, satellite: np.ndarray, record: np.ndarray) -> np.ndarray:
    """Whether the records ``[E, S]`` say that their satellites are healthy; False where there is no record."""
    well = np.zeros(record.shape, bool)
    for s, name in enumerate(satellite):
        health = navigation.glonass_health if name[0] == "R" else navigation.health
        # QZSS's lowest bit tells of L1C/B, which is not used
        bits = 0xFE if name[0] == "J" else -1
        rows = record[:, s]
        has = rows != NO_RECORD
        well[has, s] = (health[rows[has]] & bits) == 0
    return well


def states_at_transmission(
    navigation: Navigation, satellite: np.ndarray, time: GpsTime, pseudorange_m: np.ndarray
) -> BroadcastStates:
    """States of satellites ``[S]`` when the signals left that were received at ``[E]`` with pseudoranges ``[E, S]``.

    t_tx = t_rx - P / c - dt_sat, with the clock polynomial at t_rx - P / c: no receiver clock is needed.
    """
    received = _per_satellite(time, len(satellite))
    record = nearest_records(navigation, satellite, received)
    satellite_time = received.plus(-pseudorange_m / LIGHT_SPEED_M_S)
    offset = np.zeros(record.shape)
    for columns, elements, rows in _halves(navigation, satellite, record):
        at = satellite_time.at((slice(None), columns))
        clock = glonass.clock_s if isinstance(elements, glonass.GlonassElements) else orbits.clock_polynomial_s
        offset[:, columns] = clock(_take(elements, rows), at)
    return BroadcastStates(_states(navigation, satellite, satellite_time.plus(-offset), record), record)


def _per_satellite(time: GpsTime, count: int) -> GpsTime:
    if np.ndim(time.second_of_week) == 2:
        return time
    return GpsTime(*(np.repeat(np.asarray(part)[:, None], count, axis=1) for part in time))


def _states(navigation, satellite, time, record) -> SatelliteStates:
    pos = np.full((*record.shape, 3), np.nan)
    clock = np.full(record.shape, np.nan)
    for columns, elements, rows in _halves(navigation, satellite, record):
        at = time.at((slice(None), columns))
        of_system = glonass if isinstance(elements, glonass.GlonassElements) else orbits
        states = of_system.satellite_states(_take(elements, rows), at)
        valid = states.valid & (rows != NO_RECORD)
        pos[:, columns] = np.where(valid[..., None], states.pos_ecef_m, np.nan)
        clock[:, columns] = np.where(valid, states.clock_s, np.nan)
    return SatelliteStates(pos, clock, np.isfinite(clock))


def _halves(navigation, satellite, record):
    """The Kepler and the GLONASS satellites: their columns, elements and records ``[E, columns]``."""
    is_glonass = np.array([name[0] == "R" for name in satellite], bool)
    for columns, elements in (
        (np.flatnonzero(~is_glonass), navigation.kepler),
        (np.flatnonzero(is_glonass), navigation.glonass),
    ):
        if len(columns) and len(elements.toe.week):
            yield columns, elements, record[:, columns]


def _take(elements: Any, rows: np.ndarray) -> Any:
    return jax.tree.map(lambda field: field[rows], elements)
