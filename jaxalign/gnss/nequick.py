"""NeQuick-G: slant total electron content from Galileo's three broadcast coefficients.

Source: European Commission 2016, "Ionospheric Correction Algorithm for Galileo Single Frequency Users", issue 1.2,
whose sections the functions name. The numbers in ``data/nequick.npz``: coefficients of foF2 and M(3000)F2 of ITU-R
P.2297, and the grid of modified dip latitude that the algorithm prescribes, both as tabulated in the EC-JRC's program.

NumPy, batched over rays: an adaptive quadrature has no fixed shape. The receivers of a district share a ray's content
to millimetres of delay, so that one value for each satellite and epoch is enough.
"""

import functools
from importlib import resources
from typing import NamedTuple

import numpy as np

from jaxalign.core.errors import UserError
from jaxalign.gnss.frames import Geodetic

EARTH_RADIUS_KM = 6371.2
METRES_L1_PER_TECU = 40.3e16 / 1575.42e6**2
_QUIET_FLUX = 63.7
_E_PEAK_KM = 120.0
_LEVELS = 50

# Powers of the modified dip latitude for each order of longitude
_ORDERS_FOF2 = (12, 12, 9, 5, 2, 1, 1, 1, 1)
_ORDERS_M3000 = (7, 8, 6, 3, 2, 1, 1)

# Gauss (7) and Kronrod (15) on [-1, 1]
_NODES = np.array(
    [
        0.991455371120812639,
        0.949107912342758525,
        0.864864423359769073,
        0.741531185599394440,
        0.586087235467691130,
        0.405845151377397167,
        0.207784955007898468,
    ]
)
_KRONROD = np.array(
    [
        0.022935322010529225,
        0.063092092629978553,
        0.104790010322250184,
        0.140653259715525919,
        0.169004726639267903,
        0.190350578064785410,
        0.204432940075298892,
    ]
)
_GAUSS = np.array([0.129484966168869693, 0.279705391489276668, 0.381830050505118945])
_K15_NODES = np.concatenate([-_NODES, [0.0], _NODES[::-1]])
_K15_WEIGHTS = np.concatenate([_KRONROD, [0.209482141084727828], _KRONROD[::-1]])
_G7_WEIGHTS = np.concatenate([_GAUSS, [0.417959183673469388], _GAUSS[::-1]])


class Rays(NamedTuple):
    """Rays ``[R]`` in units of the model: km, and what depends on the epoch and the receiver only."""

    start_km: np.ndarray  # [R, 3]
    direction: np.ndarray  # [R, 3]
    perigee_offset_km: np.ndarray  # from the ray's perigee to its start
    month: np.ndarray
    hour: np.ndarray
    flux: np.ndarray  # effective ionisation level
    sunspots: np.ndarray
    fof2: np.ndarray  # [R, 76] coefficients at this hour
    m3000: np.ndarray  # [R, 49]
    sin_declination: np.ndarray


class Profile(NamedTuple):
    """Peaks of the layers E, F1, F2 at points ``[P]``: heights, thicknesses (km), amplitudes (1e11 m^-3)."""

    f1_km: np.ndarray
    f2_km: np.ndarray
    e_top_km: np.ndarray
    f1_bottom_km: np.ndarray
    f1_top_km: np.ndarray
    f2_bottom_km: np.ndarray
    f2_top_km: np.ndarray
    e_amplitude: np.ndarray
    f1_amplitude: np.ndarray
    f2_amplitude: np.ndarray


def delay_l1_m(coefficients, receiver: Geodetic, satellite: Geodetic, month, hour_ut):
    """Ionospheric delay at L1 in metres, 40.3 STEC / f^2; arguments as in :func:`slant_tecu`."""
    return METRES_L1_PER_TECU * slant_tecu(coefficients, receiver, satellite, month, hour_ut)


def slant_tecu(coefficients, receiver: Geodetic, satellite: Geodetic, month, hour_ut) -> np.ndarray:
    """Total electron content along rays ``[R]`` in TECU (1e16 m^-2), 0 where the Earth is in the way.

    Args:
        coefficients: a0, a1, a2 of the navigation message, ``[3]``.
        receiver: places ``[R]``.
        satellite: places ``[R]``.
        month: 1 to 12, ``[R]``.
        hour_ut: universal time in [0, 24], ``[R]``.

    Raises:
        UserError: for a month or an hour out of range, or numbers that are not finite.
    """
    parts = np.broadcast_arrays(*receiver, *satellite, month, hour_ut)
    shape = parts[0].shape
    parts = [np.asarray(part, float).ravel() for part in parts]
    if not np.isfinite(parts).all():
        raise UserError("NeQuick-G needs finite places and times; leave out satellites without a position.")
    month, hour = parts[6].astype(int), parts[7]
    if (month < 1).any() or (month > 12).any() or (hour < 0).any() or (hour > 24).any():
        raise UserError("NeQuick-G needs a month of 1 to 12 and an hour of 0 to 24.")
    receiver, satellite = Geodetic(*parts[:3]), Geodetic(*parts[3:6])
    rays = _rays(np.asarray(coefficients, float), receiver, satellite, month, hour)
    end_km = np.maximum(satellite.height_m * 1e-3, 0.0)
    start_km = np.clip(receiver.height_m * 1e-3, 0.0, end_km)
    clear = rays.perigee_offset_km >= 0
    content = np.zeros(len(month))
    bounds = [start_km, np.clip(1000.0, start_km, end_km), np.clip(2000.0, start_km, end_km), end_km]
    for low, high, tolerance in zip(bounds, bounds[1:], (1e-3, 1e-2, 1e-2)):
        of = np.flatnonzero(clear & (high > low))
        content += _integrate(rays, of, _distance_km(rays, low)[of], _distance_km(rays, high)[of], tolerance)
    return (content * 1e-13).reshape(shape)


def modified_dip_deg(latitude_deg: np.ndarray, longitude_deg: np.ndarray) -> np.ndarray:
    """Modified dip latitude (2.5.4.3): third-order interpolation in a grid of 5 by 10 degrees."""
    grid = _tables()["modip_deg"]
    row = (latitude_deg + 90) / 5
    column = (longitude_deg + 180) / 10
    first_row = np.clip(np.floor(row - 1e-6).astype(int), 0, 35)
    first_column = np.floor(column).astype(int)
    across = column - first_column
    first_column %= 36
    offsets = np.arange(4)
    window = grid[first_row[:, None, None] + offsets[:, None], first_column[:, None, None] + offsets]
    along_latitude = _third_order(np.moveaxis(window, 1, 0), (row - first_row)[:, None])
    interpolated = _third_order(along_latitude.T, across)
    return np.where(np.abs(latitude_deg) >= 90, latitude_deg, interpolated)


def _third_order(points, x):
    """Cubic through the middle of four points ``[4, ...]``, x in [0, 1] between the second and the third."""
    z0, z1, z2, z3 = points
    d = 2 * x - 1
    mean, slope = z1 + z2, z2 - z1
    outer_mean, outer_slope = z0 + z3, (z3 - z0) / 3
    cubic = 9 * mean - outer_mean + d * (9 * slope - outer_slope + d * (outer_mean - mean + d * (outer_slope - slope)))
    return cubic / 16


@functools.cache
def _tables() -> dict[str, np.ndarray]:
    with resources.files("jaxalign.gnss").joinpath("data/nequick.npz").open("rb") as file, np.load(file) as tables:
        return {name: tables[name] for name in tables.files}


def _rays(coefficients, receiver, satellite, month, hour) -> Rays:
    """Geometry on a sphere of 6371.2 km and the coefficients of each ray's epoch."""
    start, end = _cartesian_km(receiver), _cartesian_km(satellite)
    direction = (end - start) / np.linalg.norm(end - start, axis=1, keepdims=True)
    dip = modified_dip_deg(np.degrees(receiver.latitude_rad), np.degrees(receiver.longitude_rad))
    level = np.clip(coefficients[0] + dip * (coefficients[1] + dip * coefficients[2]), 0.0, 400.0)
    flux = np.where(np.abs(coefficients).max() < 1e-7, _QUIET_FLUX, level)
    sunspots = np.sqrt(167273.0 + (flux - _QUIET_FLUX) * 1123.6) - 408.99
    fof2, m3000 = (_at_hour(_tables()[name], month, hour, sunspots) for name in ("fo_f2", "m3000_f2"))
    day = 30.5 * month - 15 + (18 - hour) / 24
    anomaly = np.radians(0.9856 * day - 3.289)
    ecliptic = anomaly + np.radians(1.916 * np.sin(anomaly) + 0.02 * np.sin(2 * anomaly) + 282.634)
    offset = (start * direction).sum(1)
    return Rays(start, direction, offset, month, hour, flux, sunspots, fof2, m3000, 0.39782 * np.sin(ecliptic))


def _cartesian_km(place: Geodetic) -> np.ndarray:
    latitude, longitude, height = place
    unit = [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)]
    return np.stack(unit, axis=1) * (EARTH_RADIUS_KM + height * 1e-3)[:, None]


def _at_hour(table, month, hour, sunspots):
    """Coefficients ``[R, K]``: linear between quiet and active sun, harmonics of the time of day (2.5.5.3)."""
    share = (sunspots / 100)[:, None, None]
    terms = table[month - 1, 0] * (1 - share) + table[month - 1, 1] * share
    angle = np.radians(15 * hour - 180)[:, None] * np.arange(1, (terms.shape[2] + 1) // 2)
    waves = np.stack([np.sin(angle), np.cos(angle)], axis=2).reshape(len(hour), -1)
    return terms[:, :, 0] + np.einsum("rkh,rh->rk", terms[:, :, 1:], waves)


def _distance_km(rays: Rays, height_km):
    """Distance along a ray from its perigee to a height."""
    perigee_squared = (rays.start_km**2).sum(1) - rays.perigee_offset_km**2
    return np.sqrt(np.maximum((EARTH_RADIUS_KM + height_km) ** 2 - perigee_squared, 0.0))


def _integrate(rays: Rays, ray, low, high, tolerance) -> np.ndarray:
    """Adaptive Gauss-Kronrod sums ``[R]`` of rays `ray` over [low, high]: halved until the two rules agree."""
    total = np.zeros(len(rays.month))
    for level in range(_LEVELS + 1):
        if not len(ray):
            break
        middle, half = (low + high) / 2, (high - low) / 2
        distance = middle[:, None] + half[:, None] * _K15_NODES
        density = electron_density(rays, np.repeat(ray, 15), distance.ravel()).reshape(-1, 15)
        kronrod, gauss = half * (density @ _K15_WEIGHTS), half * (density[:, 1::2] @ _G7_WEIGHTS)
        done = (np.abs(kronrod - gauss) <= tolerance * np.maximum(np.abs(kronrod), 1.0)) | (level == _LEVELS)
        np.add.at(total, ray[done], kronrod[done])
        ray, low, middle, high = ray[~done], low[~done], middle[~done], high[~done]
        ray, low, high = np.tile(ray, 2), np.concatenate([low, middle]), np.concatenate([middle, high])
    return total


def electron_density(rays: Rays, ray: np.ndarray, distance_km: np.ndarray) -> np.ndarray:
    """Electrons per m^3 at points ``[P]`` on rays `ray`, `distance_km` from their perigees."""
    along = distance_km - rays.perigee_offset_km[ray]
    point = rays.start_km[ray] + along[:, None] * rays.direction[ray]
    radius = np.linalg.norm(point, axis=1)
    height = np.maximum(radius - EARTH_RADIUS_KM, 0.0)
    latitude = np.arcsin(np.clip(point[:, 2] / radius, -1, 1))
    longitude = np.arctan2(point[:, 1], point[:, 0])
    profile = _profile(rays, ray, latitude, longitude)
    return 1e11 * np.where(height > profile.f2_km, _topside(profile, height), _bottomside(profile, height))


def _exp(x):
    return np.exp(np.clip(x, -80, 80))


def _join(above, below, steepness, x):
    """Smooth passage from `below` (x << 0) to `above` (x >> 0)."""
    weight = _exp(steepness * x)
    return (above * weight + below) / (weight + 1)


def _profile(rays: Rays, ray, latitude, longitude) -> Profile:
    """Layers over points (2.5.5): critical frequencies, heights, thicknesses, amplitudes."""
    dip = modified_dip_deg(np.degrees(latitude), np.degrees(longitude))
    fof2 = _map(rays.fof2[ray], _ORDERS_FOF2, dip, latitude, longitude)
    m3000 = np.maximum(_map(rays.m3000[ray], _ORDERS_M3000, dip, latitude, longitude), 1.0)
    foe = _foe_mhz(rays, ray, latitude, longitude)
    fof1 = _fof1_mhz(foe, fof2)
    f2_peak, f1_peak, e_peak = 0.124 * fof2**2, 0.124 * fof1**2, 0.124 * foe**2

    f2_km = _f2_height_km(fof2, foe, m3000)
    f1_km = (f2_km + _E_PEAK_KM) / 2
    gradient = 0.01 * np.exp(-3.467 + 0.857 * np.log(fof2**2) + 2.02 * np.log(m3000))
    f2_bottom = 0.385 * f2_peak / gradient
    f1_bottom, f1_top = 0.5 * (f1_km - _E_PEAK_KM), 0.3 * (f2_km - f1_km)
    e_top = np.maximum(f1_bottom, 7.0)

    f2_amplitude = 4 * f2_peak
    e_rest = 4 * (e_peak - _layer(f2_amplitude, (_E_PEAK_KM - f2_km) / f2_bottom))
    f1_rest = 4 * (f1_peak - _layer(f2_amplitude, (f1_km - f2_km) / f2_bottom))
    e_amplitude, f1_amplitude = 4 * e_peak, np.zeros_like(f1_km)
    for _ in range(5):
        f1_amplitude = f1_rest - 4 * _layer(e_amplitude, (f1_km - _E_PEAK_KM) / e_top)
        f1_amplitude = _join(f1_amplitude, 0.8 * f1_peak, 1.0, f1_amplitude - 0.8 * f1_peak)
        e_amplitude = e_rest - 4 * _layer(f1_amplitude, (_E_PEAK_KM - f1_km) / f1_bottom)
    without_f1 = fof1 < 0.5
    f1_amplitude = np.where(without_f1, 0.0, f1_amplitude)
    e_amplitude = np.where(without_f1, e_rest, e_amplitude)
    e_amplitude = _join(e_amplitude, 0.05, 60.0, e_amplitude - 0.005)

    summer = (rays.month[ray] > 3) & (rays.month[ray] < 10)
    shape = np.where(
        summer,
        6.705 - 0.014 * rays.sunspots[ray] - 0.008 * f2_km,
        -7.77 + 0.097 * (f2_km / f2_bottom) ** 2 + 0.153 * f2_peak,
    )
    shape = _join(shape, 2.0, 1.0, shape - 2.0)
    shape = _join(8.0, shape, 1.0, shape - 8.0)
    f2_top = shape * f2_bottom
    x = (f2_top - 150.0) / 100.0
    f2_top = f2_top / ((0.041163 * x - 0.183981) * x + 1.424472)
    heights = (f1_km, f2_km, e_top, f1_bottom, f1_top, f2_bottom, f2_top)
    return Profile(*heights, e_amplitude, f1_amplitude, f2_amplitude)


def _layer(amplitude, x):
    """Epstein layer A e^x / (1 + e^x)^2."""
    e = _exp(x)
    return amplitude * e / (1 + e) ** 2


def _map(coefficients, orders, dip_deg, latitude, longitude):
    """Sum over powers of sin(dip), and cos^n(latitude) with cos and sin of n longitudes (2.5.5.4)."""
    order = np.repeat(np.arange(len(orders)), orders)
    power = np.concatenate([np.arange(count) for count in orders])
    dip_powers = np.sin(np.radians(dip_deg))[:, None] ** np.arange(max(orders))
    basis = dip_powers[:, power] * np.cos(latitude)[:, None] ** order
    angle = longitude[:, None] * order
    zonal = orders[0]
    waves = np.stack([basis * np.cos(angle), basis * np.sin(angle)], axis=2)[:, zonal:].reshape(len(dip_deg), -1)
    return (coefficients * np.concatenate([basis[:, :zonal], waves], axis=1)).sum(1)


def _foe_mhz(rays: Rays, ray, latitude, longitude):
    """Critical frequency of the E layer from the effective solar zenith angle (2.5.5.1)."""
    sin_declination = rays.sin_declination[ray]
    hour_angle = np.pi * (12 - (rays.hour[ray] + np.degrees(longitude) / 15)) / 12
    cos_zenith = np.sin(latitude) * sin_declination
    cos_zenith += np.cos(latitude) * np.sqrt(1 - sin_declination**2) * np.cos(hour_angle)
    zenith_deg = np.degrees(np.arccos(np.clip(cos_zenith, -1, 1)))
    night = 90 - 0.24 * _exp(20 - 0.2 * zenith_deg)
    effective = np.radians(_join(night, zenith_deg, 12.0, zenith_deg - 86.23292796211615))
    month = rays.month[ray]
    season = np.where((month < 3) | (month > 10), -1.0, np.where((month > 4) & (month < 9), 1.0, 0.0))
    south_north = _exp(0.3 * np.degrees(latitude))
    season = season * (south_north - 1) / (south_north + 1)
    square = (1.112 - 0.019 * season) ** 2 * np.sqrt(rays.flux[ray]) * np.cos(effective) ** 0.6
    return np.sqrt(square + 0.49)


def _fof1_mhz(foe, fof2):
    """Critical frequency of the F1 layer, present by day (2.5.5.2)."""
    fof1 = _join(1.4 * foe, 0.0, 1000.0, foe - 2.0)
    fof1 = _join(0.0, fof1, 1000.0, foe - fof1)
    fof1 = _join(fof1, 0.85 * fof1, 60.0, 0.85 * fof2 - fof1)
    return np.where(fof1 < 1e-6, 0.0, fof1)


def _f2_height_km(fof2, foe, m3000):
    """Height of the F2 peak from M(3000)F2 (2.5.6.1)."""
    ratio = fof2 / foe
    ratio = _join(ratio, 1.75, 20.0, ratio - 1.75)
    correction = 0.253 / (ratio - 1.215) - 0.012
    square = m3000**2
    return 1490 * m3000 * np.sqrt((0.0196 * square + 1) / (1.2967 * square - 1)) / (m3000 + correction) - 176


def _bottomside(profile: Profile, height):
    """1e11 electrons per m^3 up to the F2 peak: three Epstein layers, a Chapman tail below 100 km (2.5.7.1)."""
    at = np.maximum(height, 100.0)
    above_f2 = at - profile.f2_km
    narrowing = np.exp(10 / (1 + np.abs(above_f2)))
    f1_thickness = np.where(height > profile.f1_km, profile.f1_top_km, profile.f1_bottom_km)
    e_thickness = np.where(height > _E_PEAK_KM, profile.e_top_km, 5.0)
    thickness = np.stack([profile.f2_bottom_km, f1_thickness, e_thickness])
    amplitude = np.stack([profile.f2_amplitude, profile.f1_amplitude, profile.e_amplitude])
    x = np.stack([above_f2, (at - profile.f1_km) * narrowing, (at - _E_PEAK_KM) * narrowing]) / thickness
    near = np.abs(x) <= 25
    e = np.exp(np.where(near, x, 0.0))
    layers = np.where(near, amplitude * e / (1 + e) ** 2, 0.0)
    density = layers.sum(0)
    slope = (layers * (1 - e) / (1 + e) / thickness).sum(0)
    z = (height - 100.0) / 10.0
    scale = 1 - 10.0 * slope / np.where(density > 0, density, 1.0)
    return np.where(height < 100.0, density * _exp(1 - scale * z - _exp(-z)), density)


def _topside(profile: Profile, height):
    """1e11 electrons per m^3 above the F2 peak: an Epstein layer whose thickness grows with height (2.5.7.2)."""
    above = np.maximum(height - profile.f2_km, 0.0)
    growth = 0.125 * above
    x = above / (profile.f2_top_km * (1 + 100 * growth / (100 * profile.f2_top_km + growth)))
    return 4 * _layer(_bottomside(profile, profile.f2_km), x)
