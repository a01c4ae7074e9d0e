"""Constants of the satellite systems and of the Earth, SI units.

Sources: IS-GPS-200, Galileo OS SIS ICD, BeiDou SIS ICD (B1I), GLONASS ICD 5.1, WGS-84.
"""

from math import sqrt
from typing import NamedTuple

LIGHT_SPEED_M_S = 299_792_458.0
SECONDS_PER_WEEK = 604_800.0
SECONDS_PER_DAY = 86_400.0

WGS84_SEMI_MAJOR_AXIS_M = 6_378_137.0
WGS84_FLATTENING = 1 / 298.257223563
WGS84_ECCENTRICITY_SQUARED = WGS84_FLATTENING * (2 - WGS84_FLATTENING)
EARTH_RATE_RAD_S = 7.2921151467e-5

L1_HZ, L2_HZ, L5_HZ = 1575.42e6, 1227.60e6, 1176.45e6
B1I_HZ = 1561.098e6
GLONASS_G1_HZ, GLONASS_G1_STEP_HZ = 1602.0e6, 0.5625e6
GLONASS_G2_HZ = 1246.0e6


class GravityModel(NamedTuple):
    """Gravitational parameter (m^3/s^2) and rotation rate of the Earth (rad/s) that a system's ephemeris assumes."""

    mu_m3_s2: float
    earth_rate_rad_s: float

    @property
    def relativity_s_per_sqrt_m(self) -> float:
        """F = -2 sqrt(mu) / c^2 of the periodic relativistic clock term F e sqrt(A) sin E."""
        return -2 * sqrt(self.mu_m3_s2) / LIGHT_SPEED_M_S**2


GRAVITY = {
    "G": GravityModel(3.986005e14, 7.2921151467e-5),
    "J": GravityModel(3.986005e14, 7.2921151467e-5),
    "E": GravityModel(3.986004418e14, 7.2921151467e-5),
    "C": GravityModel(3.986004418e14, 7.292115e-5),
    "R": GravityModel(3.9860044e14, 7.292115e-5),
}
GLONASS_J2 = 1.0826257e-3
GLONASS_EARTH_RADIUS_M = 6_378_136.0

# Oldest usable broadcast record, |t - t_oe| in seconds (RTKLIB 2.4.3)
EPHEMERIS_LIFE_S = {"G": 7200.0, "J": 7200.0, "E": 14400.0, "C": 21600.0, "R": 1800.0}

BDT_BEHIND_GPST_S = 14.0
BDT_WEEK_OFFSET = 1356
BEIDOU_GEO = (*range(1, 6), *range(59, 64))
