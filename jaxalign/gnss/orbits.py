"""Positions and clocks of satellites from broadcast Keplerian elements: GPS, Galileo, BeiDou with GEO, QZSS.

Sources: IS-GPS-200 20.3.3.4.3, Galileo OS SIS ICD 5.1.1, BeiDou SIS ICD 5.2.4.12. NumPy or JAX (in ``enable_x64``: a
metre in 2.7e7 takes 25 bits, float32 has 24).
"""

from typing import Any, NamedTuple

from jaxalign.gnss.arrays import namespace, repeat
from jaxalign.gnss.constants import LIGHT_SPEED_M_S
from jaxalign.gnss.time import GpsTime

KEPLER_ITERATIONS = 8  # Newton's from M + e sin M: quadratic, converged for every e < 0.5 long before
_GEO_TILT_RAD = -5.0 * 3.141592653589793 / 180.0


class KeplerElements(NamedTuple):
    """Broadcast elements and clock polynomial, every field ``[...]`` of one shape: rad, m, s.

    `toe` and `toc` are GPS times of the orbit and the clock; `toe_own_s` is the second of week of `toe` in the system's
    own time (BeiDou: BDT), to which `omega0_rad` refers. `mu_m3_s2`, `earth_rate_rad_s`: of the system.
    """

    toe: GpsTime
    toc: GpsTime
    toe_own_s: Any
    sqrt_semi_major_axis: Any
    eccentricity: Any
    inclination_rad: Any
    inclination_rate_rad_s: Any
    omega0_rad: Any
    omega_rate_rad_s: Any
    perigee_rad: Any
    mean_anomaly_rad: Any
    mean_motion_difference_rad_s: Any
    cuc_rad: Any
    cus_rad: Any
    crc_m: Any
    crs_m: Any
    cic_rad: Any
    cis_rad: Any
    clock_s: Any
    clock_rate: Any
    clock_rate_rate_per_s: Any
    mu_m3_s2: Any
    earth_rate_rad_s: Any
    is_geostationary: Any


class SatelliteStates(NamedTuple):
    """Positions ``[..., 3]`` in the Earth-fixed frame of the same instant (m), and clock offsets ``[...]`` (s).

    The clock holds the relativistic term and no group delay. `valid` is False where no usable record was at hand;
    position and clock are NaN there.
    """

    pos_ecef_m: Any
    clock_s: Any
    valid: Any


def clock_polynomial_s(elements: KeplerElements, time: GpsTime):
    """Satellite clock offset (s) at satellite time `time` without relativity, as needed before the orbit is known."""
    age = time.minus(elements.toc)
    elapsed = age
    for _ in range(2):  # from satellite time to system time
        elapsed = age - _polynomial(elements, elapsed)
    return _polynomial(elements, elapsed)


def _polynomial(elements, elapsed_s):
    rate = elements.clock_rate + elements.clock_rate_rate_per_s * elapsed_s
    return elements.clock_s + rate * elapsed_s


def eccentric_anomaly_rad(mean_anomaly_rad, eccentricity):
    """E with M = E - e sin E, by Newton's method."""
    xp = namespace(mean_anomaly_rad, eccentricity)

    def newton(anomaly):
        error = anomaly - eccentricity * xp.sin(anomaly) - mean_anomaly_rad
        return anomaly - error / (1 - eccentricity * xp.cos(anomaly))

    return repeat(xp, KEPLER_ITERATIONS, newton, mean_anomaly_rad + eccentricity * xp.sin(mean_anomaly_rad))


def satellite_states(elements: KeplerElements, time: GpsTime) -> SatelliteStates:
    """States at GPS time `time`, broadcast against the records.

    Args:
        elements: records ``[...]``; a record with NaN gives an invalid state.
        time: GPS time ``[...]`` in the system's scale, that is corrected for the clock of the satellite.
    """
    xp = namespace(elements.eccentricity, time.second_of_week)
    axis = elements.sqrt_semi_major_axis**2
    eccentricity = elements.eccentricity
    elapsed = time.minus(elements.toe)
    mean_motion = xp.sqrt(elements.mu_m3_s2 / axis**3) + elements.mean_motion_difference_rad_s
    anomaly = eccentric_anomaly_rad(elements.mean_anomaly_rad + mean_motion * elapsed, eccentricity)
    sin_e, cos_e = xp.sin(anomaly), xp.cos(anomaly)
    latitude_argument = xp.arctan2(xp.sqrt(1 - eccentricity**2) * sin_e, cos_e - eccentricity) + elements.perigee_rad
    sin2, cos2 = xp.sin(2 * latitude_argument), xp.cos(2 * latitude_argument)
    latitude_argument = latitude_argument + elements.cus_rad * sin2 + elements.cuc_rad * cos2
    radius = axis * (1 - eccentricity * cos_e) + elements.crs_m * sin2 + elements.crc_m * cos2
    inclination = elements.inclination_rad + elements.inclination_rate_rad_s * elapsed
    inclination = inclination + elements.cis_rad * sin2 + elements.cic_rad * cos2

    node_rate = elements.omega_rate_rad_s - xp.where(elements.is_geostationary, 0.0, elements.earth_rate_rad_s)
    node = elements.omega0_rad + node_rate * elapsed - elements.earth_rate_rad_s * elements.toe_own_s
    in_plane_x, in_plane_y = radius * xp.cos(latitude_argument), radius * xp.sin(latitude_argument)
    across = in_plane_y * xp.cos(inclination)
    x = in_plane_x * xp.cos(node) - across * xp.sin(node)
    y = in_plane_x * xp.sin(node) + across * xp.cos(node)
    z = in_plane_y * xp.sin(inclination)
    x, y, z = _from_geostationary_frame(elements, elapsed, x, y, z)

    # F e sqrt(A) sin E with F = -2 sqrt(mu) / c^2
    relativity = -2 * xp.sqrt(elements.mu_m3_s2 * axis) * eccentricity * sin_e / LIGHT_SPEED_M_S**2
    clock = _polynomial(elements, time.minus(elements.toc)) + relativity
    pos = xp.stack(xp.broadcast_arrays(x, y, z), axis=-1)
    return SatelliteStates(pos, clock, xp.isfinite(pos).all(-1) & xp.isfinite(clock))


def _from_geostationary_frame(elements, elapsed_s, x, y, z):
    """R_z(earth_rate t) R_x(-5 deg) for BeiDou's geostationary satellites, nothing for the others."""
    xp = namespace(x)
    sin_tilt, cos_tilt = xp.sin(_GEO_TILT_RAD), xp.cos(_GEO_TILT_RAD)
    angle = elements.earth_rate_rad_s * elapsed_s
    tilted_y, tilted_z = y * cos_tilt + z * sin_tilt, -y * sin_tilt + z * cos_tilt
    turned_x = x * xp.cos(angle) + tilted_y * xp.sin(angle)
    turned_y = -x * xp.sin(angle) + tilted_y * xp.cos(angle)
    geo = elements.is_geostationary
    return xp.where(geo, turned_x, x), xp.where(geo, turned_y, y), xp.where(geo, tilted_z, z)
