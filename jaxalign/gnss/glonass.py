"""GLONASS positions and clocks: the broadcast state of motion, integrated by Runge-Kutta 4 in the Earth-fixed frame.

Source: GLONASS ICD 5.1, A.3.1.2. Positions are PZ-90, which agrees with WGS-84 to centimetres since 2007.
"""

from typing import Any, NamedTuple

from jaxalign.gnss.arrays import namespace, repeat
from jaxalign.gnss.constants import EPHEMERIS_LIFE_S, GLONASS_EARTH_RADIUS_M, GLONASS_J2, GRAVITY
from jaxalign.gnss.orbits import SatelliteStates
from jaxalign.gnss.time import GpsTime

STEPS = 30  # steps of at most 60 s within the 30 minutes of a record's life
MU, EARTH_RATE = GRAVITY["R"]


class GlonassElements(NamedTuple):
    """Broadcast state at `toe` (GPS time), every field ``[...]`` or ``[..., 3]``: m, m/s, m/s^2, s.

    `acceleration_m_s2` is that of Sun and Moon, constant over a record's life. `tau_s` and `gamma`: clock offset
    -tau + gamma (t - toe). `channel`: k of the carrier 1602 + 0.5625 k MHz.
    """

    toe: GpsTime
    pos_ecef_m: Any
    vel_ecef_m_s: Any
    acceleration_m_s2: Any
    tau_s: Any
    gamma: Any
    channel: Any


def clock_s(elements: GlonassElements, time: GpsTime):
    """Clock offset (s) at satellite time `time`, relativity included."""
    age = time.minus(elements.toe)
    elapsed = age
    for _ in range(2):
        elapsed = age - (elements.gamma * elapsed - elements.tau_s)
    return elements.gamma * elapsed - elements.tau_s


def satellite_states(elements: GlonassElements, time: GpsTime) -> SatelliteStates:
    """States at GPS time `time` ``[...]``, broadcast against the records; invalid beyond 30 minutes."""
    xp = namespace(elements.pos_ecef_m, time.second_of_week)
    elapsed = time.minus(elements.toe)
    step = (elapsed / STEPS)[..., None]
    pos, vel, sun_moon = xp.broadcast_arrays(
        elements.pos_ecef_m + 0 * step, elements.vel_ecef_m_s, elements.acceleration_m_s2
    )

    def slope(state):
        return state[1], _acceleration(xp, *state) + sun_moon

    def runge_kutta(state):
        def moved(k, fraction):
            return state[0] + fraction * step * k[0], state[1] + fraction * step * k[1]

        k1 = slope(state)
        k2 = slope(moved(k1, 0.5))
        k3 = slope(moved(k2, 0.5))
        k4 = slope(moved(k3, 1.0))
        return tuple(x + step / 6 * (a + 2 * b + 2 * c + d) for x, a, b, c, d in zip(state, k1, k2, k3, k4))

    pos, _ = repeat(xp, STEPS, runge_kutta, (pos, vel))
    clock = elements.gamma * elapsed - elements.tau_s
    usable = xp.abs(elapsed) <= EPHEMERIS_LIFE_S["R"]
    return SatelliteStates(pos, clock, usable & xp.isfinite(pos).all(-1) & xp.isfinite(clock))


def _acceleration(xp, pos, vel):
    """Central term, oblateness J2, centrifugal and Coriolis terms of the rotating frame."""
    x, y, z = pos[..., 0], pos[..., 1], pos[..., 2]
    square = x * x + y * y + z * z
    central = MU / (square * xp.sqrt(square))
    oblateness = 1.5 * GLONASS_J2 * central * GLONASS_EARTH_RADIUS_M**2 / square
    tilt = 5 * z * z / square
    radial = -central - oblateness * (1 - tilt)
    return xp.stack(
        [
            (radial + EARTH_RATE**2) * x + 2 * EARTH_RATE * vel[..., 1],
            (radial + EARTH_RATE**2) * y - 2 * EARTH_RATE * vel[..., 0],
            (radial - 2 * oblateness) * z,
        ],
        axis=-1,
    )
