"""WGS-84 geodetic, Earth-centred Earth-fixed (ECEF) and local east-north-up (ENU) coordinates. NumPy or JAX."""

from typing import Any, NamedTuple

from jaxalign.gnss.arrays import namespace, repeat
from jaxalign.gnss.constants import WGS84_ECCENTRICITY_SQUARED as E2
from jaxalign.gnss.constants import WGS84_SEMI_MAJOR_AXIS_M as A


class Geodetic(NamedTuple):
    """Latitude and longitude in radians, height above the ellipsoid in metres; one shape for all three."""

    latitude_rad: Any
    longitude_rad: Any
    height_m: Any


def _prime_vertical_radius_m(xp, sin_latitude):
    return A / xp.sqrt(1 - E2 * sin_latitude**2)


def ecef_from_geodetic(place: Geodetic):
    """Position ``[..., 3]`` in metres of a geodetic place ``[...]``."""
    latitude, longitude, height = place
    xp = namespace(*place)
    sin_lat, cos_lat = xp.sin(latitude), xp.cos(latitude)
    radius = _prime_vertical_radius_m(xp, sin_lat)
    x = (radius + height) * cos_lat * xp.cos(longitude)
    y = (radius + height) * cos_lat * xp.sin(longitude)
    z = (radius * (1 - E2) + height) * sin_lat
    return xp.stack(xp.broadcast_arrays(x, y, z), axis=-1)


def geodetic_from_ecef(pos_ecef_m) -> Geodetic:
    """Geodetic place ``[...]`` of ``[..., 3]``; the centre of the Earth gives latitude 0 and height -6,378,137 m.

    Fixed point z' = z + e^2 N sin(latitude); an iteration gains a factor 1 / e^2 = 150, eight reach the last bit.
    """
    xp = namespace(pos_ecef_m)
    x, y, z = pos_ecef_m[..., 0], pos_ecef_m[..., 1], pos_ecef_m[..., 2]
    axis_distance = xp.sqrt(x**2 + y**2)

    def sine(raised_z):
        length = xp.sqrt(axis_distance**2 + raised_z**2)
        return raised_z / xp.where(length > 0, length, 1.0)

    def raise_z(raised_z):
        sin_lat = sine(raised_z)
        return z + E2 * sin_lat * _prime_vertical_radius_m(xp, sin_lat)

    raised_z = repeat(xp, 8, raise_z, z)
    height = xp.sqrt(axis_distance**2 + raised_z**2) - _prime_vertical_radius_m(xp, sine(raised_z))
    return Geodetic(xp.arctan2(raised_z, axis_distance), xp.arctan2(y, x), height)


def rotation_enu_from_ecef(latitude_rad, longitude_rad):
    """Rotation ``[..., 3, 3]`` that takes ECEF directions to east, north, up at a place ``[...]``."""
    xp = namespace(latitude_rad, longitude_rad)
    sin_lat, cos_lat, sin_lon, cos_lon = xp.broadcast_arrays(
        xp.sin(latitude_rad), xp.cos(latitude_rad), xp.sin(longitude_rad), xp.cos(longitude_rad)
    )
    east = xp.stack([-sin_lon, cos_lon, xp.zeros_like(sin_lon)], axis=-1)
    north = xp.stack([-sin_lat * cos_lon, -sin_lat * sin_lon, cos_lat], axis=-1)
    up = xp.stack([cos_lat * cos_lon, cos_lat * sin_lon, sin_lat], axis=-1)
    return xp.stack([east, north, up], axis=-2)


def enu_from_ecef(pos_ecef_m, origin: Geodetic):
    """Local coordinates ``[..., 3]`` (m) of ``[..., 3]`` around `origin`."""
    rotation = rotation_enu_from_ecef(origin.latitude_rad, origin.longitude_rad)
    return _product(rotation, pos_ecef_m - ecef_from_geodetic(origin))


def ecef_from_enu(pos_enu_m, origin: Geodetic):
    """Inverse of :func:`enu_from_ecef`."""
    rotation = rotation_enu_from_ecef(origin.latitude_rad, origin.longitude_rad)
    return ecef_from_geodetic(origin) + _product(rotation.swapaxes(-1, -2), pos_enu_m)


def _product(matrix, vector):
    """``[..., 3, 3]`` times ``[..., 3]``, written out: matrix units of accelerators would round float32 factors."""
    return (matrix * vector[..., None, :]).sum(-1)


def azimuth_elevation(direction_enu):
    """Azimuth (rad, from north over east, in [0, 2 pi)) and elevation (rad) ``[...]`` of directions ``[..., 3]``."""
    xp = namespace(direction_enu)
    east, north, up = direction_enu[..., 0], direction_enu[..., 1], direction_enu[..., 2]
    azimuth = xp.arctan2(east, north)
    return xp.where(azimuth < 0, azimuth + 2 * xp.pi, azimuth), xp.arctan2(up, xp.sqrt(east**2 + north**2))
