"""Delays of the ionosphere (Klobuchar) and the troposphere (Saastamoinen, Niell's mapping). NumPy or JAX."""

import numpy as np

from jaxalign.gnss.arrays import namespace
from jaxalign.gnss.constants import LIGHT_SPEED_M_S
from jaxalign.gnss.frames import Geodetic


def klobuchar_l1_m(coefficients, place: Geodetic, azimuth_rad, elevation_rad, second_of_week):
    """Ionospheric delay at L1 in metres, ``[...]``; at f it is (L1 / f)^2 as large.

    Half a cosine over the day on top of 5 ns at night, on a thin shell at 350 km. Source: IS-GPS-200 20.3.3.5.2.5
    (angles in semicircles). 0 below the horizon and for places deeper than 1 km.

    Args:
        coefficients: alpha and beta of the navigation message, ``[..., 8]``.
        place: of the receiver, ``[...]``.
        azimuth_rad: of the satellite, ``[...]``.
        elevation_rad: of the satellite, ``[...]``.
        second_of_week: GPS time, ``[...]``.
    """
    xp = namespace(coefficients, *place, azimuth_rad, elevation_rad)
    alpha, beta = coefficients[..., :4], coefficients[..., 4:]
    latitude, longitude = place.latitude_rad / xp.pi, place.longitude_rad / xp.pi
    elevation = xp.maximum(elevation_rad, 0.0) / xp.pi
    central_angle = 0.0137 / (elevation + 0.11) - 0.022
    pierce_latitude = xp.clip(latitude + central_angle * xp.cos(azimuth_rad), -0.416, 0.416)
    pierce_longitude = longitude + central_angle * xp.sin(azimuth_rad) / xp.cos(pierce_latitude * xp.pi)
    magnetic_latitude = pierce_latitude + 0.064 * xp.cos((pierce_longitude - 1.617) * xp.pi)
    local_time = xp.mod(43200.0 * pierce_longitude + second_of_week, 86400.0)
    amplitude = xp.maximum(_cubic(alpha, magnetic_latitude), 0.0)
    period = xp.maximum(_cubic(beta, magnetic_latitude), 72000.0)
    phase = 2 * xp.pi * (local_time - 50400.0) / period
    cosine = 1 + phase**2 * (-0.5 + phase**2 / 24)
    zenith_s = 5e-9 + xp.where(xp.abs(phase) < 1.57, amplitude * cosine, 0.0)
    slant = 1 + 16 * (0.53 - elevation) ** 3
    return xp.where((elevation_rad > 0) & (place.height_m > -1000.0), LIGHT_SPEED_M_S * slant * zenith_s, 0.0)


def _cubic(coefficients, x):
    c = coefficients
    return c[..., 0] + x * (c[..., 1] + x * (c[..., 2] + x * c[..., 3]))


def saastamoinen_zenith_m(place: Geodetic, relative_humidity=0.7):
    """Hydrostatic and wet zenith delays in metres, ``[...]``, in the standard atmosphere.

    Source: Saastamoinen 1972 with the constants of RTKLIB. Heights below 0 count as 0.

    Args:
        place: of the receiver.
        relative_humidity: in [0, 1], at the receiver.
    """
    xp = namespace(*place)
    height = xp.clip(place.height_m, 0.0, 1e4)
    pressure_hpa = 1013.25 * (1 - 2.2557e-5 * height) ** 5.2568
    temperature_k = 15.0 - 6.5e-3 * height + 273.16
    vapour_hpa = 6.108 * relative_humidity * xp.exp((17.15 * temperature_k - 4684.0) / (temperature_k - 38.45))
    gravity = 1 - 0.00266 * xp.cos(2 * place.latitude_rad) - 0.00028 * height / 1e3
    return 0.0022768 * pressure_hpa / gravity, 0.002277 * (1255.0 / temperature_k + 0.05) * vapour_hpa


def saastamoinen_m(place: Geodetic, elevation_rad, relative_humidity=0.7):
    """Slant tropospheric delay in metres, mapped by 1 / sin(elevation): for elevations above some 10 degrees.

    0 below the horizon and for heights outside -100 m to 10 km.
    """
    xp = namespace(*place, elevation_rad)
    hydrostatic, wet = saastamoinen_zenith_m(place, relative_humidity)
    usable = (elevation_rad > 0) & (place.height_m >= -100.0) & (place.height_m <= 1e4)
    return xp.where(usable, (hydrostatic + wet) / xp.sin(xp.where(usable, elevation_rad, 1.0)), 0.0)


# Niell 1996, tables 3 and 4: a, b, c at latitudes 15, 30, 45, 60, 75 degrees
_LATITUDES_DEG = np.array([15.0, 30.0, 45.0, 60.0, 75.0])
_HYDROSTATIC_MEAN = np.array(
    [
        [1.2769934e-3, 1.2683230e-3, 1.2465397e-3, 1.2196049e-3, 1.2045996e-3],
        [2.9153695e-3, 2.9152299e-3, 2.9288445e-3, 2.9022565e-3, 2.9024912e-3],
        [62.610505e-3, 62.837393e-3, 63.721774e-3, 63.824265e-3, 64.258455e-3],
    ]
)
_HYDROSTATIC_AMPLITUDE = np.array(
    [
        [0.0, 1.2709626e-5, 2.6523662e-5, 3.4000452e-5, 4.1202191e-5],
        [0.0, 2.1414979e-5, 3.0160779e-5, 7.2562722e-5, 11.723375e-5],
        [0.0, 9.0128400e-5, 4.3497037e-5, 84.795348e-5, 170.37206e-5],
    ]
)
_WET = np.array(
    [
        [5.8021897e-4, 5.6794847e-4, 5.8118019e-4, 5.9727542e-4, 6.1641693e-4],
        [1.4275268e-3, 1.5138625e-3, 1.4572752e-3, 1.5007428e-3, 1.7599082e-3],
        [4.3472961e-2, 4.6729510e-2, 4.3908931e-2, 4.4626982e-2, 5.4736038e-2],
    ]
)
_HEIGHT = (2.53e-5, 5.49e-3, 1.14e-3)


def niell_mapping(place: Geodetic, elevation_rad, day_of_year):
    """Hydrostatic and wet mapping functions ``[...]``: slant over zenith delay, good down to 3 degrees.

    Source: Niell 1996, J. Geophys. Res. 101 (B2), 3227.

    Args:
        place: of the receiver.
        elevation_rad: above 0.
        day_of_year: with fraction; the south is half a year ahead.
    """
    xp = namespace(*place, elevation_rad, day_of_year)
    latitude_deg = xp.abs(place.latitude_rad) * (180 / np.pi)
    year = (day_of_year - 28) / 365.25 + xp.where(place.latitude_rad < 0, 0.5, 0.0)
    season = xp.cos(2 * np.pi * year)

    def interpolated(table):
        return [xp.interp(latitude_deg, xp.asarray(_LATITUDES_DEG), xp.asarray(row)) for row in table]

    mean, amplitude = interpolated(_HYDROSTATIC_MEAN), interpolated(_HYDROSTATIC_AMPLITUDE)
    sine = xp.sin(elevation_rad)
    hydrostatic = _continued_fraction(sine, *(m - a * season for m, a in zip(mean, amplitude)))
    height_correction = (1 / sine - _continued_fraction(sine, *_HEIGHT)) * place.height_m / 1e3
    return hydrostatic + height_correction, _continued_fraction(sine, *interpolated(_WET))


def _continued_fraction(sine, a, b, c):
    return (1 + a / (1 + b / (1 + c))) / (sine + a / (sine + b / (sine + c)))
