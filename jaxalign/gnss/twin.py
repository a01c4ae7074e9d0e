"""The twin: virtual receivers on a grid, many draws of what they would measure, statistics of their fixes.

One slice of time is one program over all tiles of cells: occlusion, echoes, C/N0, pseudorange errors, weighted
least squares, and per cell the distribution of the error. What no city model can know is drawn: carrier phases of
echoes, code noise, fading of the C/N0, and the errors of orbits, clocks and ionosphere that all cells share.
"""

from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float

from jaxalign import dist
from jaxalign.core.prng import stream
from jaxalign.core.types import PRNGKey
from jaxalign.gnss.channel import Channel, Receiver, channel, draw_errors, echo_amplitudes
from jaxalign.gnss.city import City
from jaxalign.gnss.constants import L1_HZ
from jaxalign.gnss.constellation import View
from jaxalign.gnss.correlator import multipath_error
from jaxalign.gnss.diffraction import roof_edge
from jaxalign.gnss.materials import permittivity
from jaxalign.gnss.pvt import Status, linear_fix
from jaxalign.gnss.rays import occluded
from jaxalign.gnss.reflection import single_bounce
from jaxalign.gnss.tiles import Tiles, by_receiver

QUANTILES = (0.5, 0.68, 0.95)
PAIRS = ((0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2))  # entries of a covariance, the horizontal ones first
_WALLS = 1024
_LOWEST_SINE = 0.3  # common errors grow with 1 / sin(elevation) down to here


Values = Array | np.ndarray  # JAX's while simulated, NumPy's in a database


class Conditions(NamedTuple):
    """What is drawn besides noise and phases; leaves that can be swept without compiling again.

    Attributes:
        receiver: signal and antenna.
        fading_db: standard deviation of the C/N0 about the model.
        common_m: standard deviation at the zenith of the errors that all receivers share (orbit, clock, ionosphere).
        max_hdop: a fix of weaker geometry is not reported.
    """

    receiver: Receiver = Receiver(loop_bandwidth_hz=0.1)  # a code loop that the carrier aids
    fading_db: Array | float = 1.0
    common_m: Array | float = 1.0
    max_hdop: Array | float = 10.0


class Measured(NamedTuple):
    """Draws of what receivers measure, ``[D, S, C]``.

    Attributes:
        error_m: of the pseudoranges; 0 where not tracked.
        cn0_dbhz: as reported; -inf where not tracked.
        tracked: whether the signal is used.
    """

    error_m: Float[Array, "D S C"]
    cn0_dbhz: Float[Array, "D S C"]
    tracked: Bool[Array, "D S C"]


class Fixes(NamedTuple):
    """Draws of fixes, ``[D, C]``.

    Attributes:
        error_m: east, north, up of the fix minus the truth; NaN where there is no fix.
        hdop: horizontal dilution of precision; inf where the geometry is singular.
        available: whether there is a fix.
    """

    error_m: Float[Array, "D C 3"]
    hdop: Float[Array, "D C"]
    available: Bool[Array, "D C"]


class Statistics(NamedTuple):
    """Of the fixes of cells ``[...]``, over draws; all 0 where no draw has a fix (see `availability`).

    Attributes:
        availability: share of draws with a fix.
        mean_m: of the error, east, north, up, ``[..., 3]``.
        covariance_m2: of the error: east-east, east-north, north-north, east-up, north-up, up-up, ``[..., 6]``.
        quantile_m: of the horizontal error at ``QUANTILES``, ``[..., 3]``.
        hdop: mean.
        tracked: mean number of signals.
        nlos: mean number of tracked signals that are echoes only.
    """

    availability: Values
    mean_m: Values
    covariance_m2: Values
    quantile_m: Values
    hdop: Values
    tracked: Values
    nlos: Values


def wall_permittivity(city: City, frequency_hz: float = L1_HZ) -> Complex[Array, " W"]:
    """Of every wall of the city, filled up so that similar cities share compiled programs."""
    values = permittivity(city.materials, frequency_hz)[city.wall_building]
    return jnp.asarray(np.pad(values, (0, -len(values) % _WALLS), constant_values=1.0), jnp.complex64)


@jax.jit(static_argnames=("diffraction", "paths"))
def arrivals(
    tiles: Tiles,
    walls: Complex[Array, " W"],
    direction: Float[Array, "S 3"],
    conditions: Conditions = Conditions(),
    diffraction: bool = False,
    paths: int = 2,
) -> Channel:
    """What reaches every receiver of the tiles, ``[T, S, C]``: direct signal, single bounces, roof edges.

    Signals that only fading lifts over the threshold are kept, so the threshold must be applied to draws.

    Args:
        tiles: T tiles of C receivers.
        walls: of :func:`wall_permittivity`.
        direction: unit vectors to the satellites.
        conditions: of reception.
        diffraction: fade the direct signal at roof edges instead of cutting it off.
        paths: echoes looked at per satellite.
    """
    receiver = conditions.receiver
    echoes = single_bounce(tiles, direction, paths)
    amplitude = echo_amplitudes(echoes, walls, receiver)
    edge = roof_edge(tiles, direction) if diffraction else None
    loose = receiver._replace(threshold_dbhz=receiver.threshold_dbhz - 3 * jnp.asarray(conditions.fading_db))
    return channel(direction, occluded(tiles, direction), echoes.excess_m, amplitude, loose, edge)


def common_errors(
    key: PRNGKey, direction: Float[Array, "S 3"], common_m: Array | float, draws: int, receivers: int = 1
) -> Float[Array, "draws S receivers"]:
    """Errors (m) that the city is not to blame for, growing towards the horizon."""
    scale = common_m / jnp.maximum(direction[:, 2], _LOWEST_SINE)
    unit = jax.random.normal(stream(key, "common error"), (draws, direction.shape[0], receivers))
    return unit * scale[:, None]


def measure(
    key: PRNGKey,
    arrived: Channel,
    conditions: Conditions,
    common_m: Float[Array, "D S _"],
    shared: bool = False,
) -> Measured:
    """Draws of the measurements of the C receivers of one tile.

    Args:
        key: of the streams "fading" and those of :func:`channel.draw_errors`.
        arrived: fields ``[S, C]``.
        conditions: of reception.
        common_m: of :func:`common_errors`, one for each of the D draws.
        shared: all receivers take the same unit draws (common random numbers), which is cheaper.
    """
    draws = common_m.shape[0]
    satellites, receivers = arrived.bias_m.shape
    one_tile = jax.tree.map(lambda field: field[None], arrived)
    error = draw_errors(key, one_tile, conditions.receiver, draws, shared=shared)[:, 0] + common_m
    unit = jax.random.normal(stream(key, "fading"), (draws, satellites, 1 if shared else receivers))
    cn0 = arrived.cn0_dbhz + conditions.fading_db * unit
    tracked = arrived.tracked & (cn0 >= conditions.receiver.threshold_dbhz)
    return Measured(jnp.where(tracked, error, 0.0), jnp.where(tracked, cn0, -jnp.inf), tracked)


def weights(measured: Measured) -> Float[Array, "D S C"]:
    """Inverse variances of a receiver that trusts strong signals: proportional to C/N0, 1 m at 45 dB-Hz."""
    return jnp.where(measured.tracked, 10 ** ((measured.cn0_dbhz - 45.0) / 10), 0.0)


def fixes(
    measured: Measured,
    view: View,
    max_hdop: Array | float = 10.0,
) -> Fixes:
    """Weighted least-squares fix of every draw and receiver."""
    direction, clock = jnp.asarray(view.direction_enu), jnp.argmax(view.clock_of, axis=0)

    def one(error, weight):
        step, solution, status = linear_fix(error, direction, weight, clock, view.clock_of.shape[0])
        return step, jnp.sqrt(solution.cofactor[0, 0] + solution.cofactor[1, 1]), status

    step, hdop, status = jax.vmap(jax.vmap(one, in_axes=1), in_axes=0)(measured.error_m, weights(measured))
    solved = status < Status.TOO_FEW
    hdop = jnp.where(solved, hdop, jnp.inf)
    available = solved & (hdop <= max_hdop)
    return Fixes(jnp.where(available[..., None], step, jnp.nan), hdop, available)


def statistics(drawn: Fixes, measured: Measured, direct: Bool[Array, "S C"]) -> Statistics:
    """Of D draws of C receivers."""
    good = drawn.available
    count = jnp.maximum(good.sum(0), 1)
    error = jnp.where(good[..., None], drawn.error_m, 0.0)
    mean = error.sum(0) / count[:, None]
    off = jnp.where(good[..., None], error - mean, 0.0)
    products = jnp.stack([off[..., i] * off[..., j] for i, j in PAIRS], axis=-1)
    horizontal = jnp.sort(jnp.where(good, jnp.hypot(error[..., 0], error[..., 1]), jnp.inf), axis=0)
    rank = jnp.ceil(jnp.asarray(QUANTILES)[:, None] * count).astype(jnp.int32) - 1
    quantile = jnp.take_along_axis(horizontal, rank, axis=0).T
    some = good.any(0)
    return Statistics(
        availability=good.mean(0),
        mean_m=mean,
        covariance_m2=products.sum(0) / count[:, None],
        quantile_m=jnp.where(some[:, None], quantile, 0.0),
        hdop=jnp.where(good, drawn.hdop, 0.0).sum(0) / count,
        tracked=measured.tracked.sum(1).mean(0),
        nlos=(measured.tracked & ~direct).sum(1).mean(0),
    )


@jax.jit(static_argnames=("draws", "diffraction"))
def simulate(
    key: PRNGKey,
    tiles: Tiles,
    walls: Complex[Array, " W"],
    view: View,
    conditions: Conditions = Conditions(),
    draws: int = 64,
    diffraction: bool = False,
) -> Statistics:
    """Statistics ``[T, C]`` of the fixes of every cell in one slice of time.

    Args:
        key: of all draws.
        tiles: T tiles of C cells.
        walls: of :func:`wall_permittivity`.
        view: the satellites.
        conditions: of reception.
        draws: per cell; phases, noise and fading are common to all cells.
        diffraction: fade at roof edges.
    """
    arrived = arrivals(tiles, walls, jnp.asarray(view.direction_enu), conditions, diffraction)
    common = common_errors(key, jnp.asarray(view.direction_enu), conditions.common_m, draws)

    def one_tile(arrived):
        measured = measure(key, arrived, conditions, common, shared=True)
        drawn = fixes(measured, view, conditions.max_hdop)
        return statistics(drawn, measured, arrived.direct)

    return jax.lax.map(one_tile, arrived)


@cache
def simulate_on(mesh: dist.Mesh, draws: int, diffraction: bool = False):
    """:func:`simulate` with the tiles split over the devices of a mesh; takes its first five arguments.

    The number of tiles must be a multiple of the number of devices (``build_tiles(multiple=)``).
    """
    run = partial(simulate, draws=draws, diffraction=diffraction)
    return jax.jit(dist.over_envs(run, mesh, in_axes=(None, 0, None, None, None), out_axes=0))


def scatter(tiles: Tiles, values: Any, count: int) -> Any:
    """A tree of values per tile ``[T, C, ...]`` as NumPy arrays ``[count, ...]`` in the order of the cells."""
    source = np.asarray(tiles.source).reshape(-1)
    slot = np.flatnonzero(source >= 0)

    def field(value):
        value = np.asarray(value)
        rows = np.zeros((count, *value.shape[2:]), value.dtype)
        rows[source[slot]] = value.reshape(-1, *value.shape[2:])[slot]
        return rows

    return jax.tree.map(field, values)


@jax.jit(static_argnames="diffraction")
def observe(
    key: PRNGKey,
    tiles: Tiles,
    walls: Complex[Array, " W"],
    view: View,
    conditions: Conditions,
    common_m: Float[Array, "N S"],
    diffraction: bool = False,
) -> tuple[Measured, Fixes]:
    """One epoch of N real receivers, each with its own noise: fields ``[N, S]`` and ``[N]``.

    Args:
        key: of all draws.
        tiles: of the receivers.
        walls: of :func:`wall_permittivity`.
        view: the satellites.
        conditions: of reception.
        common_m: errors of the satellites' signals that are not the city's, for every receiver.
        diffraction: fade at roof edges.
    """
    arrived = arrivals(tiles, walls, jnp.asarray(view.direction_enu), conditions, diffraction)

    def one_tile(args):
        arrived, number, source = args
        common = common_m[source].T[None]
        measured = measure(jax.random.fold_in(key, number), arrived, conditions, common)
        drawn = fixes(measured, view, conditions.max_hdop)
        return jax.tree.map(lambda field: field[0], (measured, drawn))

    numbers = jnp.arange(tiles.source.shape[0])
    measured, drawn = jax.lax.map(one_tile, (arrived, numbers, tiles.source))
    count = common_m.shape[0]
    measured = jax.tree.map(lambda field: by_receiver(tiles, field, count), measured)
    drawn = drawn._replace(error_m=jnp.moveaxis(drawn.error_m, -1, 1))
    return measured, jax.tree.map(lambda field: by_receiver(tiles, field, count), drawn)


class Signals(NamedTuple):
    """What the twin predicts for the signals at a place, ``[..., S]``; the ranging half of its product.

    Attributes:
        cn0_dbhz: -100 where nothing arrives.
        bias_m: of the pseudorange.
        sigma_m: of the pseudorange: code noise and, of a direct signal with an echo, multipath.
        direct: whether the direct signal is the strongest.
    """

    cn0_dbhz: Values
    bias_m: Values
    sigma_m: Values
    direct: Values


NO_SIGNAL_DBHZ = -100.0


@jax.jit(static_argnames="diffraction")
def predict(
    tiles: Tiles,
    walls: Complex[Array, " W"],
    direction: Float[Array, "S 3"],
    conditions: Conditions,
    diffraction: bool = False,
) -> Signals:
    """Signals ``[T, C, S]`` of the receivers of the tiles, without noise."""
    arrived = arrivals(tiles, walls, direction, conditions, diffraction)
    chip = conditions.receiver.chip_m
    phase = jnp.cos(jnp.linspace(0.0, jnp.pi, 9))[:, None, None, None]
    swing = chip * multipath_error(arrived.echo_amplitude * phase, arrived.echo_delay_m / chip)
    signals = Signals(
        jnp.maximum(arrived.cn0_dbhz, NO_SIGNAL_DBHZ),
        arrived.bias_m,
        jnp.hypot(arrived.sigma_m, swing.std(axis=0)),
        arrived.direct,
    )
    return jax.tree.map(lambda field: jnp.moveaxis(field, 1, -1), signals)
