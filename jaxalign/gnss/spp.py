"""From observations and broadcast ephemerides to fixes: the ordinary receiver, single frequency, single epoch.

Corrections, weights, elevation mask and screening are those of RTKLIB 2.4.3 (`pos1-posmode=single`), whose fixes these
reproduce; the unknowns differ in form only (a clock per system instead of offsets to that of GPS).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.core.errors import UserError
from jaxalign.gnss import atmosphere, broadcast, frames, pvt
from jaxalign.gnss.constants import (
    B1I_HZ,
    GLONASS_G1_HZ,
    GLONASS_G1_STEP_HZ,
    L1_HZ,
    LIGHT_SPEED_M_S,
)
from jaxalign.gnss.rinex_nav import Navigation
from jaxalign.gnss.rinex_obs import Observations
from jaxalign.gnss.time import GpsTime

CLOCK_OF = {"G": 0, "J": 0, "R": 1, "E": 2, "C": 3}  # QZSS shares GPS time
NUM_CLOCKS = 4
# Coefficients where a navigation file has none: RTKLIB's
DEFAULT_KLOBUCHAR = np.array([0.1118e-7, -0.7451e-8, -0.5961e-7, 0.1192e-6, 0.1167e6, -0.2294e6, -0.1311e6, 0.1049e7])
# GPS user range accuracy: upper bounds of the broadcast classes
_URA_M = np.array([2.4, 3.4, 4.85, 6.85, 9.65, 13.65, 24, 48, 96, 192, 384, 768, 1536, 3072, 6144])
_GLONASS_ORBIT_SIGMA_M = 5.0
_GALILEO_NO_ACCURACY_M = 500.0
_CLOCK_E1_E5A, _CLOCK_E1_E5A_E5B = 1 << 8, 3 << 8  # bits of Galileo's data source
_BLOCK_EPOCHS, _BLOCK_SATELLITES = 64, 32
_PASSES = 5  # of solving with the atmosphere at the last position: the third changes micrometres


class Measurements(NamedTuple):
    """What positioning needs of E epochs and S satellites; rows that are not `usable` hold zeros.

    Attributes:
        pseudorange_m: corrected for satellite clock and group delay, ``[E, S]``.
        cn0_dbhz: 0 where not reported, ``[E, S]``.
        sat_pos_ecef_m: at transmission, ``[E, S, 3]``.
        orbit_variance_m2: of broadcast orbit and clock, ``[E, S]``.
        frequency_hz: carrier, ``[E, S]``.
        code_factor: standard deviation of the code against GPS's, ``[S]``.
        clock: index of the receiver clock bias, ``[S]``.
        usable: measured, with a fresh record of a healthy satellite, ``[E, S]``.
        second_of_week: of reception, GPS time ``[E]``.
    """

    pseudorange_m: np.ndarray
    cn0_dbhz: np.ndarray
    sat_pos_ecef_m: np.ndarray
    orbit_variance_m2: np.ndarray
    frequency_hz: np.ndarray
    code_factor: np.ndarray
    clock: np.ndarray
    usable: np.ndarray
    second_of_week: np.ndarray


class Options(NamedTuple):
    """How fixes are made; all may be traced.

    Attributes:
        elevation_mask_rad: lowest elevation.
        relative_humidity: in [0, 1].
        max_gdop: a weaker geometry is flagged.
        max_exclusions: satellites that may be excluded in an epoch.
        by_cn0: weight by C/N0 (variance 1 m^2 at 45 dB-Hz, ten times as much 10 dB lower) instead of by RTKLIB's
            model of elevation, orbit and atmosphere: in streets echoes are weak before they are low.
    """

    elevation_mask_rad: float = 15 * np.pi / 180
    relative_humidity: float = 0.7
    max_gdop: float = 30.0
    max_exclusions: int = 0
    by_cn0: bool = False


def measurements(observations: Observations, navigation: Navigation, systems: str = "GREJC") -> Measurements:
    """Pseudoranges on L1, E1, B1I, G1 with the states of their satellites.

    Args:
        observations: of one receiver.
        navigation: of the same day.
        systems: letters of the systems to use.

    Raises:
        UserError: for an unknown system, or observations without a pseudorange of these systems.
    """
    unknown = sorted(set(systems) - set(CLOCK_OF))
    if unknown:
        raise UserError(f"There is no system {', '.join(unknown)}; systems are letters of {', '.join(CLOCK_OF)}.")
    letters = np.array([name[0] for name in observations.satellite])
    chosen = np.isin(letters, list(systems))
    satellite, letters = observations.satellite[chosen], letters[chosen]
    raw = observations.first_of("C")[:, chosen]
    if not np.isfinite(raw).any():
        raise UserError(f"The observations hold no L1 pseudorange of the systems {systems}; choose other systems.")
    found, record = broadcast.states_at_transmission(navigation, satellite, observations.time, raw)
    delay, variance, frequency = record_properties(navigation, satellite, record)
    usable = np.isfinite(raw) & found.valid & broadcast.healthy(navigation, satellite, record)
    corrected = raw + LIGHT_SPEED_M_S * found.clock_s - delay
    return Measurements(
        pseudorange_m=np.where(usable, corrected, 0.0),
        cn0_dbhz=np.nan_to_num(observations.first_of("S")[:, chosen]),
        sat_pos_ecef_m=np.where(usable[..., None], found.pos_ecef_m, 0.0),
        orbit_variance_m2=variance,
        frequency_hz=frequency,
        code_factor=np.where(letters == "R", 1.5, 1.0),
        clock=np.array([CLOCK_OF[letter] for letter in letters], np.int32),
        usable=usable,
        second_of_week=np.asarray(observations.time.second_of_week, float),
    )


def record_properties(navigation, satellite, record):
    """Group delay (m), orbit variance (m^2) and carrier (Hz), ``[E, S]``, of the records in use."""
    delay, variance, frequency = np.zeros(record.shape), np.ones(record.shape), np.full(record.shape, L1_HZ)
    for s, name in enumerate(satellite):
        rows = record[:, s]
        if name[0] == "R":
            variance[:, s] = _GLONASS_ORBIT_SIGMA_M**2
            if len(navigation.glonass_satellite):
                frequency[:, s] = GLONASS_G1_HZ + GLONASS_G1_STEP_HZ * navigation.glonass.channel[rows]
        elif len(navigation.satellite):
            delay[:, s] = LIGHT_SPEED_M_S * group_delay_s(navigation, name[0], rows)
            variance[:, s] = orbit_variance_m2(navigation.accuracy_m[rows], name[0])
            frequency[:, s] = B1I_HZ if name[0] == "C" else L1_HZ
    return delay, variance, frequency


def group_delay_s(navigation: Navigation, system: str, record: np.ndarray) -> np.ndarray:
    """Group delay of single-frequency code on L1, E1, B1I against the clock of the records.

    TGD of GPS and QZSS, TGD1 of BeiDou; of Galileo BGD(E1, E5b) for clocks of I/NAV and BGD(E1, E5a) for F/NAV. (RTKLIB
    takes that of a satellite's first record, and BGD(E1, E5b) always.)
    """
    delays = navigation.group_delay_s[record]
    of_fnav = (navigation.data_source[record] & _CLOCK_E1_E5A_E5B) == _CLOCK_E1_E5A
    return np.where((system == "E") & ~of_fnav, delays[:, 1], delays[:, 0])


def orbit_variance_m2(accuracy_m: np.ndarray, system: str) -> np.ndarray:
    """Variance of broadcast orbit and clock from URA (upper bound of its class) or SISA (m)."""
    if system == "E":
        known = (accuracy_m >= 0) & (accuracy_m <= 6)
        return np.where(known, accuracy_m, _GALILEO_NO_ACCURACY_M) ** 2
    return _URA_M[np.minimum(np.searchsorted(_URA_M, accuracy_m), len(_URA_M) - 1)] ** 2


def code_variance_m2(elevation_rad, code_factor):
    """Variance of pseudorange noise: (0.3 m)^2 (1 + 1 / sin E) f^2 + (0.3 m)^2, E at least 5 degrees. NumPy or JAX."""
    xp = frames.namespace(elevation_rad)
    sine = xp.sin(xp.maximum(elevation_rad, np.pi / 36))
    return 0.3**2 * (1 + 1 / sine) * code_factor**2 + 0.3**2


def ranges_from(
    place_ecef_m: np.ndarray, data: Measurements, klobuchar: np.ndarray, options: Options = Options()
) -> tuple[np.ndarray, np.ndarray]:
    """Pseudoranges minus what a receiver without a clock bias would measure at places ``[E, 3]``, and which count.

    Returns:
        Differences (m) ``[E, S]``, and whether a satellite is usable and above the mask ``[E, S]``.
    """
    with jax.enable_x64(True):
        found = _ranges_from(np.asarray(place_ecef_m, float), data, np.asarray(klobuchar, float), options)
    ranges, visible = map(np.asarray, found)
    return np.where(visible, ranges, 0.0), visible


@jax.jit
def _ranges_from(place_ecef_m, data: Measurements, klobuchar, options: Options):
    def of_epoch(pos, data):
        delay, _, visible = atmosphere_at(pos, data, klobuchar, options)
        distance, _ = pvt.geometric_range_m(pos, data.sat_pos_ecef_m)
        return data.pseudorange_m - delay - distance, data.usable & visible

    return jax.vmap(of_epoch, in_axes=(0, _EPOCH_AXES))(place_ecef_m, data)


def locate(data: Measurements, klobuchar: np.ndarray, options: Options = Options()) -> pvt.Fix:
    """Fixes of every epoch, fields ``[E, ...]`` as NumPy arrays in float64.

    Each pass computes elevations, delays and weights at the last position and solves anew, from the centre of the Earth
    without an atmosphere.

    Args:
        data: from :func:`measurements`.
        klobuchar: alpha and beta ``[8]``, from the navigation file or `DEFAULT_KLOBUCHAR`.
        options: masks and limits.
    """
    epochs, satellites = data.pseudorange_m.shape
    padded = _padded(data, -epochs % _BLOCK_EPOCHS, -satellites % _BLOCK_SATELLITES)
    options = jax.tree.map(np.asarray, options)
    blocks = []
    with jax.enable_x64(True):
        for start in range(0, epochs, _BLOCK_EPOCHS):
            block = _by_field(
                lambda field, axes, start=start: field[start : start + _BLOCK_EPOCHS] if axes else field, padded
            )
            blocks.append(_locate_block(block, np.asarray(klobuchar, float), options))
    fixes = jax.tree.map(lambda *parts: np.concatenate(parts)[:epochs], *blocks)
    return fixes._replace(residual_m=fixes.residual_m[:, :satellites], used=fixes.used[:, :satellites])


_OF_EPOCH = tuple(name not in ("code_factor", "clock") for name in Measurements._fields)


_EPOCH_AXES = Measurements._make(0 if of_epoch else None for of_epoch in _OF_EPOCH)


def _by_field(function, data: Measurements) -> Measurements:
    """`function(field, whether its first axis is the epoch)` of every field."""
    return Measurements(*map(function, data, _OF_EPOCH))


def _padded(data: Measurements, epochs: int, satellites: int) -> Measurements:
    """More epochs and satellites that are not usable: shapes of blocks, so that files share one compilation."""

    def pad(field, of_epoch):
        if not of_epoch:
            return np.pad(field, (0, satellites))
        widths = [(0, epochs), (0, satellites), (0, 0)][: field.ndim]
        return np.pad(field, widths)

    data = _by_field(pad, data)
    return data._replace(frequency_hz=np.where(data.frequency_hz > 0, data.frequency_hz, L1_HZ))


@jax.jit
def _locate_block(data: Measurements, klobuchar, options: Options) -> pvt.Fix:
    one = functools.partial(_locate_epoch, klobuchar=klobuchar, options=options)
    return jax.vmap(one, in_axes=(_EPOCH_AXES,))(data)


def _locate_epoch(data, klobuchar, options):
    def solve_at(pos):
        delay, variance, visible = atmosphere_at(pos, data, klobuchar, options)
        inverse_variance = jnp.where(
            options.by_cn0, 10 ** ((data.cn0_dbhz - 45) / 10), 1 / (variance + data.orbit_variance_m2)
        )
        weight = jnp.where(data.usable & visible, inverse_variance, 0.0)
        screening = pvt.Screening(options.max_gdop, options.max_exclusions)
        ranges = data.pseudorange_m - delay
        return pvt.solve(ranges, data.sat_pos_ecef_m, weight, data.clock, NUM_CLOCKS, pos, screening)

    def once_more(_, carry):
        pos, _ = carry
        fix = solve_at(pos)
        return jnp.where(jnp.isfinite(fix.pos_ecef_m), fix.pos_ecef_m, pos), fix

    start = jnp.zeros(3)
    blank = pvt.empty_like(jax.eval_shape(solve_at, start))
    return jax.lax.fori_loop(0, _PASSES, once_more, (start, blank))[1]


def atmosphere_at(pos, data, klobuchar, options):
    """Delays (m), variances without the orbit's (m^2) and visibility of satellites ``[S]`` from a position."""
    place = frames.geodetic_from_ecef(pos)
    on_earth = place.height_m > -1e6  # the first pass starts at the centre
    _, direction = pvt.geometric_range_m(pos, data.sat_pos_ecef_m)
    rotation = frames.rotation_enu_from_ecef(place.latitude_rad, place.longitude_rad)
    azimuth, elevation = frames.azimuth_elevation(direction @ rotation.T)
    elevation = jnp.where(on_earth & data.usable, elevation, jnp.pi / 2)
    dispersion = (L1_HZ / data.frequency_hz) ** 2
    ionosphere_l1 = atmosphere.klobuchar_l1_m(klobuchar, place, azimuth, elevation, data.second_of_week)
    troposphere = atmosphere.saastamoinen_m(place, elevation, options.relative_humidity)
    variance = code_variance_m2(elevation, data.code_factor)
    # RTKLIB scales this variance by (L1 / f)^2, not by its square
    weather = dispersion * (0.5 * ionosphere_l1) ** 2 + (0.3 / (jnp.sin(elevation) + 0.1)) ** 2
    visible = elevation >= options.elevation_mask_rad
    return jnp.where(on_earth, dispersion * ionosphere_l1 + troposphere, 0.0), variance + weather, visible | ~on_earth


def fix_time(data_time: GpsTime, fixes: pvt.Fix) -> GpsTime:
    """Time of the fixes: the receiver's tag less its clock bias against GPS (or the first system in use)."""
    biases = np.asarray(fixes.clock_bias_m)
    first = np.argmax(biases != 0, axis=1)
    bias = np.take_along_axis(biases, first[:, None], axis=1)[:, 0]
    return data_time.plus(-np.nan_to_num(bias) / LIGHT_SPEED_M_S).normalised()
