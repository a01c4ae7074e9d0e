"""What a receiver measures: C/N0 and pseudorange errors per receiver and satellite, from rays to draws.

The strongest arrival is tracked: the direct signal, faded by the roof edge it passes (over the skyline it bends), or,
where no direct signal is left, the strongest echo (NLOS). Of a tracked direct signal the strongest echo shifts the
code by the correlator's multipath error at a carrier phase that no city model can know: it is drawn uniformly.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float

from jaxalign.core.prng import stream
from jaxalign.core.types import PRNGKey
from jaxalign.gnss.correlator import multipath_error, tracking_noise
from jaxalign.gnss.diffraction import knife_edge_loss_db
from jaxalign.gnss.materials import echo_amplitude
from jaxalign.gnss.reflection import Echoes


class Receiver(NamedTuple):
    """Signal and receiver; leaves that can be swept without compiling again.

    Attributes:
        power_dbw: received from a satellite by an antenna of 0 dB.
        noise_dbw_hz: thermal noise density, 10 log10(k 290 K).
        noise_figure_db: of the front end.
        zenith_gain_db: of the antenna.
        horizon_drop_db: by how much the gain at the horizon is lower; it falls with 1 - sin(elevation).
        flipped_rejection_db: of the flipped hand, 3 to 15 for patch antennas, about 0 for phones.
        threshold_dbhz: lowest C/N0 that is tracked.
        chip_m: length of a code chip.
        loop_bandwidth_hz: of the code loop.
        floor_m: standard deviation of what does not depend on C/N0 (quantisation, front end).
    """

    power_dbw: Array | float = -157.0
    noise_dbw_hz: Array | float = -204.0
    noise_figure_db: Array | float = 3.0
    zenith_gain_db: Array | float = 3.0
    horizon_drop_db: Array | float = 9.0
    flipped_rejection_db: Array | float = 4.0
    threshold_dbhz: Array | float = 25.0
    chip_m: Array | float = 293.05
    loop_bandwidth_hz: Array | float = 1.0
    floor_m: Array | float = 0.6


class Channel(NamedTuple):
    """What reaches the correlators, ``[T, S, C]``.

    Attributes:
        tracked: a signal above the threshold arrives, and the satellite is above the elevation mask.
        direct: the tracked signal is the direct one.
        cn0_dbhz: of the tracked signal; -inf where nothing arrives.
        bias_m: deterministic excess of the tracked signal: detour over a roof edge or of an echo; 0 if not tracked.
        sigma_m: standard deviation of the code noise; 0 if not tracked.
        echo_delay_m: of the strongest echo behind the tracked direct signal; 0 if there is none.
        echo_amplitude: of that echo relative to the tracked signal, below 1; 0 if there is none.
    """

    tracked: Bool[Array, "T S C"]
    direct: Bool[Array, "T S C"]
    cn0_dbhz: Float[Array, "T S C"]
    bias_m: Float[Array, "T S C"]
    sigma_m: Float[Array, "T S C"]
    echo_delay_m: Float[Array, "T S C"]
    echo_amplitude: Float[Array, "T S C"]


LARGEST_AMPLITUDE = 0.95  # the correlator's formula needs an echo weaker than what it disturbs


def open_sky_cn0(elevation_rad: Float[Array, "..."], receiver: Receiver = Receiver()) -> Float[Array, "..."]:
    """C/N0 (dB-Hz) of an unobstructed satellite."""
    gain = receiver.zenith_gain_db - receiver.horizon_drop_db * (1 - jnp.sin(elevation_rad))
    return receiver.power_dbw + gain - receiver.noise_dbw_hz - receiver.noise_figure_db


@jax.jit
def echo_amplitudes(
    echoes: Echoes, wall_permittivity: Complex[Array, " W"], receiver: Receiver = Receiver()
) -> Float[Array, "T S K C"]:
    """Amplitudes of echoes relative to the unobstructed direct signal; 0 where there is none.

    A second bounce flips the hand back; the antenna's rejection then falls on the hand that was flipped once more, so
    the two walls' power reflectances are multiplied and the rejection is left out.

    Args:
        echoes: of ``reflection``.
        wall_permittivity: of every wall of the city.
        receiver: whose antenna rejects the flipped hand.
    """
    first = wall_permittivity[echoes.wall]
    second = wall_permittivity[echoes.second]
    twice = echoes.second >= 0
    one = echo_amplitude(first, echoes.cos_incidence, jnp.where(twice, 0.0, receiver.flipped_rejection_db))
    two = jnp.where(twice, echo_amplitude(second, echoes.cos_second, 0.0), 1.0)
    return jnp.where(echoes.wall >= 0, one * two, 0.0)


@jax.jit
def channel(
    directions: Float[Array, "S 3"],
    blocked: Bool[Array, "T S C"],
    excess_m: Float[Array, "T S K C"],
    amplitude: Float[Array, "T S K C"],
    receiver: Receiver = Receiver(),
    edge: tuple[Float[Array, "T S C"], Float[Array, "T S C"]] | None = None,
) -> Channel:
    """Direct signal, NLOS and multipath of every receiver and satellite.

    Args:
        directions: unit vectors to the satellites, east, north, up.
        blocked: of ``rays.occluded``.
        excess_m: of the echoes, inf where there is none.
        amplitude: of the echoes, 0 where there is none.
        receiver: signal and antenna.
        edge: of ``diffraction.roof_edge``; None for geometric shadows.
    """
    up = directions[:, 2].clip(-1.0, 1.0)
    open_sky = open_sky_cn0(jnp.arcsin(up), receiver)[:, None]
    loss_db, detour_m = jnp.where(blocked, jnp.inf, 0.0), jnp.zeros(blocked.shape)
    if edge is not None:
        loss_db, detour_m = knife_edge_loss_db(edge[0]), edge[1]
    direct_amplitude = 10 ** (-loss_db / 20)
    strongest = jnp.argmax(amplitude, axis=-2)[..., None, :]
    echo = jnp.take_along_axis(amplitude, strongest, axis=-2)[..., 0, :]
    delay = jnp.take_along_axis(excess_m, strongest, axis=-2)[..., 0, :]
    delay = jnp.where(echo > 0, delay, 0.0)
    direct = direct_amplitude >= echo
    arriving = jnp.where(direct, direct_amplitude, echo)
    cn0 = open_sky + 20 * jnp.log10(arriving)
    tracked = (cn0 >= receiver.threshold_dbhz) & (up > 0)[:, None]
    bias = jnp.where(direct, detour_m, delay)
    noise = tracking_noise(jnp.maximum(cn0, 0.0), receiver.chip_m, bandwidth_hz=receiver.loop_bandwidth_hz)
    disturbed = direct & tracked & (echo > 0)
    relative = jnp.minimum(echo / jnp.maximum(direct_amplitude, 1e-6), LARGEST_AMPLITUDE)
    return Channel(
        tracked=tracked,
        direct=direct & tracked,
        cn0_dbhz=cn0,
        bias_m=jnp.where(tracked, bias, 0.0),
        sigma_m=jnp.where(tracked, jnp.hypot(noise, receiver.floor_m), 0.0),
        echo_delay_m=jnp.where(disturbed, jnp.maximum(delay - bias, 0.0), 0.0),
        echo_amplitude=jnp.where(disturbed, relative, 0.0),
    )


@jax.jit(static_argnames=("draws", "spacing", "shared"))
def draw_errors(
    key: PRNGKey,
    arrived: Channel,
    receiver: Receiver = Receiver(),
    draws: int = 1,
    *,
    spacing: float = 0.5,
    shared: bool = False,
) -> Float[Array, "draws T S C"]:
    """Pseudorange errors (m): bias, multipath at random carrier phase, and code noise; 0 where nothing is tracked.

    Args:
        key: of the streams "echo phase" and "code noise".
        arrived: what reaches the correlators.
        receiver: its code.
        draws: per receiver and satellite.
        spacing: of the correlators, chips.
        shared: all receivers take the same phases and unit noises (common random numbers). Statistics per receiver are
            the same, and random numbers, which cost more than all rays, are drawn once.
    """
    tiles, satellites, receivers = arrived.bias_m.shape
    shape = draws, 1 if shared else tiles, satellites, 1 if shared else receivers
    phase = jax.random.uniform(stream(key, "echo phase"), shape, maxval=2 * jnp.pi)
    delay = arrived.echo_delay_m / receiver.chip_m
    multipath = receiver.chip_m * multipath_error(arrived.echo_amplitude * jnp.cos(phase), delay, spacing)
    noise = arrived.sigma_m * jax.random.normal(stream(key, "code noise"), shape)
    return arrived.bias_m + multipath + noise
