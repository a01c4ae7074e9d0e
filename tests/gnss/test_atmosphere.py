"""Klobuchar, Saastamoinen and Niell against RTKLIB's recordings."""

import jax
import numpy as np
import pytest
from gnss.recordings import committed, table

from jaxalign.gnss import atmosphere, time
from jaxalign.gnss.frames import Geodetic


def place_of(case):
    return Geodetic(case["lat"], case["lon"], case["h"])


@pytest.mark.parametrize("coefficients", ["vill2018170", "rtklib_default"])
def test_klobuchar(coefficients):
    case = table(committed("klobuchar.npz"))
    delay = atmosphere.klobuchar_l1_m(
        case[f"alpha_beta_{coefficients}"], place_of(case), case["az"], case["el"], case["gps_sow"]
    )
    np.testing.assert_allclose(delay, case[f"delay_L1_m_{coefficients}"], atol=1e-9, rtol=0)


@pytest.mark.parametrize(("humidity", "name"), [(0.7, "saastamoinen_rh07_m"), (0.0, "saastamoinen_rh0_m")])
def test_saastamoinen(humidity, name):
    case = table(committed("tropo.npz"))
    np.testing.assert_allclose(
        atmosphere.saastamoinen_m(place_of(case), case["el"], humidity), case[name], atol=1e-9, rtol=0
    )


def test_niell():
    case = table(committed("tropo.npz"))
    day = time.day_of_year(time.GpsTime(case["gps_week"], case["gps_sow"]))
    hydrostatic, wet = atmosphere.niell_mapping(place_of(case), case["el"], day)
    np.testing.assert_allclose(hydrostatic, case["niell_mf_hydrostatic"], atol=1e-9, rtol=0)
    np.testing.assert_allclose(wet, case["niell_mf_wet"], atol=1e-9, rtol=0)


def test_same_under_jit():
    case = {name: value[:16] for name, value in table(committed("tropo.npz")).items()}
    with jax.enable_x64(True):
        delay = jax.jit(atmosphere.saastamoinen_m)(jax.tree.map(jax.numpy.asarray, place_of(case)), case["el"])
    np.testing.assert_allclose(delay, case["saastamoinen_rh07_m"], atol=1e-9, rtol=0)


def test_below_the_horizon_there_is_no_delay():
    place = Geodetic(np.array(0.4), np.array(2.0), np.array(10.0))
    coefficients = table(committed("klobuchar.npz"))["alpha_beta_rtklib_default"]
    assert atmosphere.klobuchar_l1_m(coefficients, place, 0.0, np.array(-0.1), 0.0) == 0
    assert atmosphere.saastamoinen_m(place, np.array(-0.1)) == 0
