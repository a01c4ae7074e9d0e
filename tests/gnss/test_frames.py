"""Geodetic, ECEF and ENU against PROJ's recordings."""

import jax
import numpy as np
import pytest
from gnss.recordings import committed, table

from jaxalign.gnss import frames


@pytest.fixture(scope="module")
def geodesy():
    return table(committed("geodesy.npz"))


def place(latitude_deg, longitude_deg, height_m):
    return frames.Geodetic(np.radians(latitude_deg), np.radians(longitude_deg), height_m)


def test_ecef_from_geodetic(geodesy):
    ecef = frames.ecef_from_geodetic(place(geodesy["lat_deg"], geodesy["lon_deg"], geodesy["h"]))
    np.testing.assert_allclose(ecef, geodesy["ecef"], atol=1e-6, rtol=0)


def test_geodetic_from_ecef(geodesy):
    found = frames.geodetic_from_ecef(geodesy["ecef"])
    np.testing.assert_allclose(found.height_m, geodesy["h"], atol=1e-6, rtol=0)
    np.testing.assert_allclose(np.degrees(found.latitude_rad), geodesy["lat_deg"], atol=1e-11, rtol=0)
    np.testing.assert_allclose(np.degrees(found.longitude_rad), geodesy["lon_deg"], atol=1e-11, rtol=0)


def test_enu_both_ways(geodesy):
    origin = place(*geodesy["enu_origin"])
    ecef = frames.ecef_from_geodetic(place(geodesy["enu_lat_deg"], geodesy["enu_lon_deg"], geodesy["enu_h"]))
    enu = frames.enu_from_ecef(ecef, origin)
    np.testing.assert_allclose(enu, geodesy["enu"], atol=1e-6, rtol=0)
    np.testing.assert_allclose(frames.ecef_from_enu(enu, origin), ecef, atol=1e-6, rtol=0)


def test_poles_and_centre_of_the_earth():
    pole = frames.geodetic_from_ecef(np.array([0.0, 0.0, -6356752.314245179 - 100.0]))
    assert pole.latitude_rad == -np.pi / 2
    assert pole.height_m == pytest.approx(100.0, abs=1e-6)
    assert np.isfinite(frames.geodetic_from_ecef(np.zeros(3))).all()


def test_same_in_jax(geodesy):
    with jax.enable_x64(True):
        found = jax.jit(frames.geodetic_from_ecef)(jax.numpy.asarray(geodesy["ecef"][:8]))
    np.testing.assert_allclose(found.height_m, geodesy["h"][:8], atol=1e-6, rtol=0)


def test_azimuth_from_north_over_east():
    directions = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, -1.0, 1.0], [-1.0, 0.0, 0.0]])
    azimuth, elevation = frames.azimuth_elevation(directions)
    np.testing.assert_allclose(np.degrees(azimuth), [0.0, 90.0, 180.0, 270.0])
    np.testing.assert_allclose(np.degrees(elevation), [0.0, 0.0, 45.0, 0.0])
