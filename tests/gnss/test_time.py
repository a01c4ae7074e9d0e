"""Time scales against the calendar."""

import numpy as np

from jaxalign.gnss import time


def test_epoch_and_week_roll_over():
    at = time.from_calendar(np.array(["1980-01-06", "1999-08-22", "2019-04-07"], "datetime64[D]"), np.zeros(3))
    assert at.week.tolist() == [0, 1024, 2048]
    assert at.second_of_week.tolist() == [0, 0, 0]


def test_calendar_round_trip():
    date = np.array(["2000-02-29", "2021-12-31", "2100-03-01"], "datetime64[D]")
    second = np.array([0.25, 86399.9375, 43200.0])
    found_date, found_second = time.to_calendar(time.from_calendar(date, second))
    assert (found_date == date).all()
    assert (found_second == second).all()


def test_leap_seconds_are_those_of_the_date():
    days = np.array(["1980-01-06", "2008-12-31", "2009-01-01", "2016-12-31", "2017-01-01"], "datetime64[D]")
    assert time.leap_seconds(days).tolist() == [0, 14, 15, 17, 18]


def test_utc_round_trip_around_a_leap_second():
    date = np.array(["2016-12-31", "2017-01-01"], "datetime64[D]")
    second = np.array([86399.0, 0.0])
    gps = time.gps_from_utc(date, second)
    assert gps.minus(gps.at(0)).tolist() == [0, 2]  # 23:59:60 lies between
    back_date, back_second = time.utc_from_gps(gps)
    assert (back_date == date).all()
    assert (back_second == second).all()


def test_beidou_is_14_seconds_behind():
    gps = time.gps_from_beidou(np.array(695), np.array(604790.0))
    assert (int(gps.week), float(gps.second_of_week)) == (2052, 4.0)


def test_differences_across_a_week_are_exact():
    early = time.GpsTime(np.array(2051), np.array(604799.9999999))
    late = time.GpsTime(np.array(2052), np.array(0.0000001))
    assert abs(float(late.minus(early)) - 2e-7) < 1e-9
