"""GPS time as week and second of week, and the other time scales of navigation files.

Two numbers, since one float64 of seconds since 1980 resolves only 0.2 microseconds, in which a satellite moves a
millimetre.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxalign.gnss.constants import BDT_BEHIND_GPST_S, BDT_WEEK_OFFSET, SECONDS_PER_DAY, SECONDS_PER_WEEK

GPS_EPOCH = np.datetime64("1980-01-06")

# UTC dates since when GPS time leads UTC by 1, 2, ... seconds (IERS Bulletin C)
_LEAP_DATES = np.array(
    [
        "1981-07-01",
        "1982-07-01",
        "1983-07-01",
        "1985-07-01",
        "1988-01-01",
        "1990-01-01",
        "1991-01-01",
        "1992-07-01",
        "1993-07-01",
        "1994-07-01",
        "1996-01-01",
        "1997-07-01",
        "1999-01-01",
        "2006-01-01",
        "2009-01-01",
        "2012-07-01",
        "2015-07-01",
        "2017-01-01",
    ],
    dtype="datetime64[D]",
)


class GpsTime(NamedTuple):
    """GPS time: week number (integers) and second of week in [0, 604800) (float64), of one shape."""

    week: Any
    second_of_week: Any

    def minus(self, other: "GpsTime"):
        """Seconds from `other` to this time."""
        return (self.week - other.week) * SECONDS_PER_WEEK + (self.second_of_week - other.second_of_week)

    def plus(self, seconds) -> "GpsTime":
        """The time `seconds` later; not normalised, so that no bit of a small step is lost."""
        return GpsTime(self.week, self.second_of_week + seconds)

    def normalised(self) -> "GpsTime":
        """The same time with the second of week back in [0, 604800)."""
        weeks = np.floor(self.second_of_week / SECONDS_PER_WEEK)
        return GpsTime(self.week + weeks.astype(int), self.second_of_week - weeks * SECONDS_PER_WEEK)

    def at(self, index) -> "GpsTime":
        """The times at `index` of the arrays."""
        return GpsTime(self.week[index], self.second_of_week[index])


def from_calendar(date: np.ndarray, second_of_day: np.ndarray) -> GpsTime:
    """GPS time of a date (datetime64[D]) and second of day, both ``[...]`` in GPS time."""
    days = (np.asarray(date, "datetime64[D]") - GPS_EPOCH).astype(np.int64)
    week = days // 7
    return GpsTime(week, (days - 7 * week) * SECONDS_PER_DAY + second_of_day).normalised()


def to_calendar(time: GpsTime) -> tuple[np.ndarray, np.ndarray]:
    """Date (datetime64[D]) and second of day of a GPS time."""
    time = time.normalised()
    days = np.floor(np.asarray(time.second_of_week) / SECONDS_PER_DAY)
    date = GPS_EPOCH + (np.asarray(time.week) * 7 + days.astype(np.int64)).astype("timedelta64[D]")
    return date, time.second_of_week - days * SECONDS_PER_DAY


def date_and_second(calendar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Date and second of day of ``[N, 6]``: year (two digits: 1980 to 2079), month, day, hour, minute, second."""
    year, month, day = np.asarray(calendar)[:, :3].astype(int).T
    year = np.where(year < 80, year + 2000, np.where(year < 100, year + 1900, year))
    months = ((year - 1970) * 12 + month - 1).astype("datetime64[M]").astype("datetime64[D]")
    return months + (day - 1).astype("timedelta64[D]"), calendar[:, 3] * 3600 + calendar[:, 4] * 60 + calendar[:, 5]


def leap_seconds(date: np.ndarray) -> np.ndarray:
    """GPS time minus UTC in seconds at a UTC date (datetime64[D])."""
    return np.searchsorted(_LEAP_DATES, np.asarray(date, "datetime64[D]"), side="right").astype(float)


def gps_from_utc(date: np.ndarray, second_of_day: np.ndarray) -> GpsTime:
    """GPS time of a UTC date and second of day."""
    return from_calendar(date, second_of_day + leap_seconds(date))


def utc_from_gps(time: GpsTime) -> tuple[np.ndarray, np.ndarray]:
    """UTC date and second of day of a GPS time; a leap second itself reads as the first second of the next day."""
    date, _ = to_calendar(time)
    date, _ = to_calendar(time.plus(-leap_seconds(date)))
    return to_calendar(time.plus(-leap_seconds(date)))


def gps_from_beidou(week, second_of_week) -> GpsTime:
    """GPS time of a BeiDou week and second of week (BDT = GPST - 14 s, week 0 = GPS week 1356)."""
    return GpsTime(np.asarray(week) + BDT_WEEK_OFFSET, np.asarray(second_of_week) + BDT_BEHIND_GPST_S).normalised()


def day_of_year(time: GpsTime) -> np.ndarray:
    """Day of year with its fraction, 1.0 at 0 h on 1 January."""
    date, second = to_calendar(time)
    return (date - date.astype("datetime64[Y]")).astype(float) + 1 + second / SECONDS_PER_DAY
