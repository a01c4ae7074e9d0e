"""What virtual receivers would record: pseudoranges and C/N0 as observations, to be solved here or by other programs.

    P = |r_s - r| + b - c dt_s + c TGD + I + T + e,

satellite s at the time of transmission in the frame of reception, b the receiver's clock, TGD, I and T as a
single-frequency receiver will take them off again, and e what the city does to the signal.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxalign.gnss import atmosphere, broadcast, frames, spp
from jaxalign.gnss.columns import ReadReport
from jaxalign.gnss.constants import EARTH_RATE_RAD_S, L1_HZ, LIGHT_SPEED_M_S
from jaxalign.gnss.constellation import Constellation
from jaxalign.gnss.frames import Geodetic
from jaxalign.gnss.heldout import Epoch
from jaxalign.gnss.rinex_nav import Navigation
from jaxalign.gnss.rinex_obs import Observations
from jaxalign.gnss.time import GpsTime

CODE = {"G": "1C", "R": "1C", "E": "1C", "J": "1C", "C": "2I"}  # band and attribute in RINEX
_FLIGHT_S = 0.075
_LIGHT_TIME_PASSES = 4  # a pass gains 5 digits: satellites move at 1e-5 of the speed of light


class Received(NamedTuple):
    """Signals of S satellites in E epochs.

    Attributes:
        satellite: names, such as "G05".
        error_m: of the pseudoranges, NaN where not tracked.
        cn0_dbhz: as reported; any number where not tracked.
    """

    satellite: Sequence[str]
    error_m: Float[np.ndarray, "E S"]
    cn0_dbhz: Float[np.ndarray, "E S"]


def observations(
    navigation: Navigation,
    place: Geodetic,
    time: GpsTime,
    received: Received,
    *,
    clock_m: Mapping[str, float] = {},
    klobuchar: np.ndarray = spp.DEFAULT_KLOBUCHAR,
) -> Observations:
    """Observations of a receiver at E places, one for each time tag.

    Args:
        navigation: broadcast records, taken as the truth about orbits and clocks.
        place: of the antenna ``[E]``.
        time: tags ``[E]`` by the receiver's own clock.
        received: what it tracks; satellites without a fresh record are left out.
        clock_m: the receiver's clock against each system (by letter), 0 where not given; the tags lead by that of "G".
        klobuchar: alpha and beta ``[8]`` of the ionosphere.
    """
    satellite = np.asarray(received.satellite, "<U3")
    true = time.plus(-clock_m.get("G", 0.0) / LIGHT_SPEED_M_S)
    distance, direction, states, record = _light_time(navigation, satellite, true, frames.ecef_from_geodetic(place))
    rotation = frames.rotation_enu_from_ecef(place.latitude_rad, place.longitude_rad)
    azimuth, elevation = frames.azimuth_elevation(np.einsum("eij,esj->esi", rotation, direction))
    antenna = Geodetic(*(part[:, None] for part in place))
    group_delay, _, frequency = spp.record_properties(navigation, satellite, record)
    second = np.asarray(true.second_of_week)[:, None]
    ionosphere = atmosphere.klobuchar_l1_m(klobuchar, antenna, azimuth, elevation, second)
    delay = group_delay + (L1_HZ / frequency) ** 2 * ionosphere + atmosphere.saastamoinen_m(antenna, elevation)
    bias = np.array([clock_m.get(name[0], 0.0) for name in satellite])
    ranges = distance + bias - LIGHT_SPEED_M_S * states.clock_s + delay + received.error_m
    values = {}
    for code in sorted({CODE[name[0]] for name in satellite}):
        here = np.isfinite(ranges) & np.array([CODE[name[0]] == code for name in satellite])
        values["C" + code] = np.where(here, ranges, np.nan)
        values["S" + code] = np.where(here, received.cn0_dbhz, np.nan)
    first = frames.ecef_from_geodetic(Geodetic(*(part[0] for part in place)))
    return Observations(time.normalised(), satellite, values, first, ReadReport({}))


def of_epoch(
    navigation: Navigation,
    origin: Geodetic,
    epoch: Epoch,
    sky: Constellation,
    slice_: int,
    *,
    every_s: float = 1.0,
    antenna_m: float = 1.5,
) -> Observations:
    """Observations of the receivers of a held-out epoch, taken as one receiver on a walk.

    Args:
        navigation: broadcast records that `sky` was made of.
        origin: of the city.
        epoch: what they measured.
        sky: satellites.
        slice_: of the epoch, in `sky`; the walk begins there.
        every_s: between the places of the walk.
        antenna_m: above the ground.
    """
    count = len(epoch.truth_m)
    local = np.column_stack([epoch.truth_m, np.full(count, antenna_m)])
    place = frames.geodetic_from_ecef(frames.ecef_from_enu(local, origin))
    start = sky.time.at(slice_)
    time = GpsTime(np.full(count, int(start.week)), float(start.second_of_week) + every_s * np.arange(count))
    # an epoch's ranges are relative to the fix, errors of pseudoranges to the truth
    shift = np.nan_to_num(epoch.fix_m - epoch.truth_m) @ sky.direction_enu[slice_][:, :2].T
    error = np.where(epoch.observed.tracked, np.asarray(epoch.observed.range_m, float) - shift, np.nan)
    received = Received(sky.satellite, error, np.asarray(epoch.observed.cn0_dbhz, float))
    return observations(navigation, place, time.normalised(), received)


def _light_time(navigation, satellite, time, receiver_m):
    """Distances ``[E, S]``, directions in ECEF, states and records at transmission to receivers ``[E, 3]``."""
    at = GpsTime(*(np.repeat(np.asarray(part)[:, None], len(satellite), axis=1) for part in time))

    def sent_before(flight_s):
        states, record = broadcast.states_at(navigation, satellite, at.plus(-flight_s))
        angle = EARTH_RATE_RAD_S * flight_s  # by which the Earth turns during the flight
        x, y, z = np.moveaxis(states.pos_ecef_m, -1, 0)
        turned = np.stack([np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x, z], axis=-1)
        offset = turned - receiver_m[:, None]
        distance = np.linalg.norm(offset, axis=-1)
        return distance, offset / distance[..., None], states, record

    flight = np.full((len(receiver_m), len(satellite)), _FLIGHT_S)
    for _ in range(_LIGHT_TIME_PASSES):
        flight = np.nan_to_num(sent_before(flight)[0] / LIGHT_SPEED_M_S, nan=_FLIGHT_S)
    return sent_before(flight)
