"""Which satellites a city sees, and when: directions per time slice, of one static shape for the whole job."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from jaxalign.core.errors import UserError
from jaxalign.gnss import broadcast
from jaxalign.gnss.frames import Geodetic
from jaxalign.gnss.rinex_nav import Navigation
from jaxalign.gnss.time import GpsTime, to_calendar

CLOCKS = ("GJ", "E", "C", "R")  # systems that share a clock: QZSS runs on GPS time
FEWEST = 5


class View(NamedTuple):
    """The satellites of one instant, as arrays for JAX.

    Attributes:
        direction_enu: unit vectors east, north, up.
        clock_of: which of the K receiver clocks each satellite is measured against, one-hot.
    """

    direction_enu: Float[Array, "S 3"] | Float[np.ndarray, "S 3"]
    clock_of: Float[Array, "K S"] | Float[np.ndarray, "K S"]


class Constellation(NamedTuple):
    """S satellites at E times over one place.

    Attributes:
        satellite: names, such as "G05".
        direction_enu: unit vectors east, north, up; straight down where a satellite is not usable.
        clock_of: which of the K receiver clocks each satellite is measured against, one-hot.
        time: of the slices ``[E]``.
    """

    satellite: tuple[str, ...]
    direction_enu: Float[np.ndarray, "E S 3"]
    clock_of: Float[np.ndarray, "K S"]
    time: GpsTime

    def at(self, slice_: int) -> View:
        """The satellites of one slice."""
        return View(self.direction_enu[slice_], self.clock_of)


def constellation(
    navigation: Navigation, place: Geodetic, time: GpsTime, *, systems: str = "GEJC", mask_rad: float = np.deg2rad(10.0)
) -> Constellation:
    """The satellites that are above the mask at any of the times.

    Args:
        navigation: broadcast records.
        place: of the city.
        time: of the slices ``[E]``.
        systems: letters of the systems to use.
        mask_rad: lowest elevation.

    Raises:
        UserError: at one of the times fewer than five satellites are up: no fix, or the file is of another time.
    """
    sky = broadcast.sky(navigation, place, time)
    wanted = np.array([name[0] in systems for name in sky.satellite])
    up = sky.usable & (sky.elevation_rad > mask_rad) & wanted
    if (up.sum(axis=1) < FEWEST).any():
        slice_ = int(np.argmin(up.sum(axis=1)))
        raise UserError(
            f"At {calendar_text(time.at(slice_))} only {up[slice_].sum()} satellites of {systems} with fresh records "
            f"are above {np.rad2deg(mask_rad):.0f} degrees, a fix needs {FEWEST} or more; choose a time that the "
            f"navigation file covers ({_covered(navigation)}) or more systems."
        )
    seen = np.flatnonzero(up.any(axis=0))
    direction = np.where(up[:, seen, None], sky.direction_enu[:, seen], [0.0, 0.0, -1.0])
    names = tuple(str(name) for name in sky.satellite[seen])
    of = [next(k for k, letters in enumerate(CLOCKS) if name[0] in letters) for name in names]
    clock_of = np.equal.outer(np.unique(of), of).astype(np.float32)
    return Constellation(names, direction.astype(np.float32), clock_of, time)


def time_slices(start: GpsTime, count: int, every_s: float) -> GpsTime:
    """`count` times, `every_s` seconds apart."""
    return GpsTime(
        np.full(count, int(start.week)), float(start.second_of_week) + every_s * np.arange(count)
    ).normalised()


def calendar_text(time: GpsTime) -> str:
    """A time as a date and clock in GPS time."""
    date, second = to_calendar(GpsTime(np.atleast_1d(time.week), np.atleast_1d(time.second_of_week)))
    minutes, second = divmod(round(float(second[0])), 60)
    return f"{date[0]} {minutes // 60:02d}:{minutes % 60:02d}:{second:02d} GPST"


def _covered(navigation):
    week, second = (
        np.concatenate([getattr(orbits.toe, part) for orbits in (navigation.kepler, navigation.glonass)])
        for part in ("week", "second_of_week")
    )
    toe, order = GpsTime(week, second), np.lexsort((second, week))
    return f"{calendar_text(toe.at(order[0]))} to {calendar_text(toe.at(order[-1]))}"
