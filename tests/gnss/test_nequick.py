"""NeQuick-G against the six official benchmark tables."""

import json

import numpy as np
import pytest
from gnss.recordings import shared

from jaxalign.core.errors import UserError
from jaxalign.gnss import nequick
from jaxalign.gnss.frames import Geodetic


def place(longitude_deg, latitude_deg, height_m):
    return Geodetic(np.radians(latitude_deg), np.radians(longitude_deg), np.asarray(height_m, float))


COEFFICIENTS = np.array([121.129893, 0.351254133, 0.0134635348])


@pytest.mark.parametrize("name", ["High", "Mid", "Low", "HighExpanded", "MidExpanded", "LowExpanded"])
def test_official_tables(name):
    table = json.loads(shared("nequickg_benchmark.json").read_text())[name]
    rows = np.array(table["rows"])
    content = nequick.slant_tecu(table["a"], place(*rows[:, 2:5].T), place(*rows[:, 5:8].T), rows[:, 0], rows[:, 1])
    assert len(rows) >= 36
    np.testing.assert_allclose(content, rows[:, 8], atol=1e-5, rtol=0)  # five decimals are given


def test_vertical_content_is_the_integral_of_the_density():
    """Straight up, Gauss-Kronrod against the trapezoidal rule on 20,000 heights."""
    below, above = place(12.0, 45.0, 0.0), place(12.0, 45.0, 2e7)
    rays = nequick._rays(
        COEFFICIENTS, *(Geodetic(*map(np.atleast_1d, p)) for p in (below, above)), np.array([7]), np.array([13.0])
    )
    height_km = np.concatenate([np.linspace(0, 2000, 16001), np.linspace(2000, 20000, 4001)[1:]])
    density = nequick.electron_density(rays, np.zeros(len(height_km), int), nequick.EARTH_RADIUS_KM + height_km)
    expected = np.trapezoid(density, height_km * 1e3) / 1e16
    assert nequick.slant_tecu(COEFFICIENTS, below, above, 7, 13.0) == pytest.approx(expected, rel=1e-3)


def test_day_is_above_night_and_slant_above_vertical():
    receiver = place(12.0, 45.0, 0.0)
    up, aside = place(12.0, 45.0, 2e7), place(60.0, 45.0, 2e7)
    noon, midnight = nequick.slant_tecu(COEFFICIENTS, receiver, up, 7, np.array([11.0, 23.0]))
    assert noon > 1.5 * midnight > 0
    assert nequick.slant_tecu(COEFFICIENTS, receiver, aside, 7, 11.0) > 1.2 * noon
    assert nequick.delay_l1_m(COEFFICIENTS, receiver, up, 7, 11.0) == pytest.approx(0.1624 * noon, rel=1e-3)


def test_through_the_earth_there_is_none():
    assert nequick.slant_tecu(COEFFICIENTS, place(12.0, 45.0, 0.0), place(192.0, -45.0, 2e7), 7, 12.0) == 0


def test_no_coefficients_mean_the_quiet_sun():
    ray = place(12.0, 45.0, 0.0), place(12.0, 45.0, 2e7), 7, 12.0
    quiet = nequick.slant_tecu(np.zeros(3), *ray)
    assert quiet == pytest.approx(nequick.slant_tecu(np.array([63.7, 0.0, 0.0]), *ray), rel=1e-12)


def test_bad_input():
    receiver, satellite = place(12.0, 45.0, 0.0), place(12.0, 45.0, 2e7)
    with pytest.raises(UserError, match="month"):
        nequick.slant_tecu(COEFFICIENTS, receiver, satellite, 13, 12.0)
    with pytest.raises(UserError, match="finite"):
        nequick.slant_tecu(COEFFICIENTS, receiver, place(12.0, np.nan, 2e7), 7, 12.0)
