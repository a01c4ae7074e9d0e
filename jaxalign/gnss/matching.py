"""Ranging-domain matching: every cell near the fix is a candidate, judged by pseudoranges and C/N0.

With z_s the measured minus the geometric range of satellite s from a reference place q, a candidate at p with
predicted bias b_s has the residual

    r_s = z_s + d_s . (p - q) - b_s - clock(system of s),

d_s the direction to the satellite; clocks are fitted robustly per system, heights are known. Residuals are judged by
Student densities whose spread is small for a predicted direct signal, larger for an echo and largest where the twin
predicts nothing. Shadow matching judges the C/N0, and that a satellite is not tracked at all.
Source: Groves 2011, "Shadow matching"; Hsu, Gu, Kamijo 2016, "3D building model-based pedestrian positioning".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from jaxalign.gnss.constellation import View
from jaxalign.gnss.correction import Corrected, Reason, moments
from jaxalign.gnss.grid import Grid
from jaxalign.gnss.twin import Signals, Values


class Observed(NamedTuple):
    """One epoch of M receivers.

    Attributes:
        range_m: pseudorange minus geometric range from the fix at street level, corrected for satellite clock and
            atmosphere, ``[M, S]``; any number where not tracked.
        cn0_dbhz: ``[M, S]``.
        tracked: ``[M, S]``.
    """

    range_m: Values
    cn0_dbhz: Values
    tracked: Values


class Matching(NamedTuple):
    """How predictions are believed; leaves that can be swept.

    Attributes:
        direct_m: standard deviation added to that of a predicted direct signal.
        echo_m: added to that of a predicted echo.
        nothing_m: standard deviation, and mean bias, of a signal where none is predicted.
        common_m: of orbit, clock and ionosphere at the zenith.
        freedom: of the Student densities.
        cn0_db: standard deviation of the C/N0 about the prediction.
        surprise: chance that what is predicted about a satellite's visibility is wrong.
        threshold_dbhz: lowest tracked C/N0.
        shadow: weight of the C/N0 against the pseudoranges.
    """

    direct_m: Array | float = 1.5
    echo_m: Array | float = 8.0
    nothing_m: Array | float = 30.0
    common_m: Array | float = 1.0
    freedom: Array | float = 3.0
    cn0_db: Array | float = 4.0
    surprise: Array | float = 0.1
    threshold_dbhz: Array | float = 25.0
    shadow: Array | float = 0.5


def shadow_score(observed: Observed, predicted: Signals, options: Matching) -> Float[Array, "*cells"]:
    """Sum over satellites of log p(C/N0, tracked | predicted C/N0) of one receiver at candidates."""
    margin = (predicted.cn0_dbhz - options.threshold_dbhz) / options.cn0_db
    seen = jnp.clip(norm.cdf(margin), options.surprise, 1 - options.surprise)
    expected = jnp.maximum(predicted.cn0_dbhz, options.threshold_dbhz)
    level = (1 - options.surprise) * norm.pdf(observed.cn0_dbhz, expected, options.cn0_db) + options.surprise / 25.0
    tracked = jnp.log(seen) + jnp.log(level)
    return jnp.where(observed.tracked, tracked, jnp.log(1 - seen)).sum(-1)


def ranging_score(
    observed: Observed,
    predicted: Signals,
    offset_m: Float[Array, "*cells 2"],
    view: View,
    options: Matching,
) -> Float[Array, "*cells"]:
    """Log likelihood of one receiver's pseudoranges at candidates.

    Args:
        observed: fields ``[S]``.
        predicted: fields ``[..., S]``.
        offset_m: candidate minus fix, east and north.
        view: the satellites.
        options: spreads.
    """
    direction, clock_of = view
    arriving = predicted.cn0_dbhz > options.threshold_dbhz - 2 * options.cn0_db
    sigma = jnp.hypot(predicted.sigma_m, jnp.where(predicted.direct, options.direct_m, options.echo_m))
    sigma = jnp.where(arriving, sigma, options.nothing_m)
    sigma = jnp.hypot(sigma, options.common_m / jnp.maximum(direction[:, 2], 0.3))
    bias = jnp.where(arriving, predicted.bias_m, options.nothing_m)
    residual = observed.range_m + jnp.matmul(offset_m, direction[:, :2].T, precision="highest") - bias
    residual = jnp.where(observed.tracked, residual, 0.0)
    trust = observed.tracked / sigma**2

    def refit(_, clock):
        weight = trust / (1 + ((residual - clock) / sigma) ** 2 / options.freedom)
        return _weighted_clock(weight, residual, clock_of)

    misfit = (residual - jax.lax.fori_loop(0, 5, refit, _weighted_clock(trust, residual, clock_of))) / sigma
    density = -0.5 * (options.freedom + 1) * jnp.log1p(misfit**2 / options.freedom) - jnp.log(sigma)
    return jnp.where(observed.tracked, density, 0.0).sum(-1)


def _weighted_clock(weight, residual, clock_of):
    """Mean residual of every satellite's clock, ``[..., S]``."""
    total = lambda x: jnp.einsum("...s,cs->...c", x, clock_of, precision="highest")
    mean = total(weight * residual) / jnp.maximum(total(weight), 1e-12)
    return jnp.einsum("...c,cs->...s", mean, clock_of, precision="highest")


@jax.jit(static_argnames=("window", "ranging"))
def _match(receivers, image, view, options, window, ranging):
    signals, centre, outdoor = image

    def one(args):
        fix, (row, column), seen = args
        size = 2 * window + 1

        def cut(field):
            return jax.lax.dynamic_slice(field, (row, column, *[0] * (field.ndim - 2)), (size, size, *field.shape[2:]))

        predicted, place, street = jax.tree.map(cut, (signals, centre, outdoor))
        score = options.shadow * shadow_score(seen, predicted, options)
        if ranging:
            score += ranging_score(seen, predicted, place - fix, view, options)
        near = street & (((place - fix) ** 2).sum(-1) <= (window * (centre[0, 1, 0] - centre[0, 0, 0])) ** 2)
        return *moments(jnp.where(near, score, -jnp.inf), place), near.any()

    return jax.lax.map(one, receivers, batch_size=16)


def match(
    grid: Grid,
    predicted: Signals,
    fix_m: Float[np.ndarray, "M 2"],
    observed: Observed,
    view: View,
    options: Matching = Matching(),
    *,
    radius_m: float = 60.0,
    ranging: bool = True,
) -> Corrected:
    """Posterior mean and covariance of the receivers' places over the cells near their fixes.

    Args:
        grid: the cells.
        predicted: signals ``[N, S]`` of the outdoor cells.
        fix_m: fixes, the centres of the search; NaN where there is none.
        observed: fields ``[M, S]``.
        view: the satellites.
        options: spreads.
        radius_m: of the search.
        ranging: use pseudoranges; otherwise the C/N0 alone (shadow matching).
    """
    fix_m = np.asarray(fix_m, np.float32)
    cell, on_grid = grid.locate(fix_m)
    finite = np.isfinite(fix_m).all(axis=1)
    usable = np.where((on_grid & finite)[:, None], fix_m, 0.0).astype(np.float32)
    window = int(np.ceil(radius_m / grid.spacing_m))
    image = _images(grid, predicted, window)
    receivers = usable, cell.astype(np.int32), observed
    pos, covariance, street = (np.array(part) for part in _match(receivers, image, view, options, window, ranging))
    reason = np.where(on_grid, np.where(street, Reason.CORRECTED, Reason.NOT_SIMULATED), Reason.OUTSIDE_GRID)
    reason = np.where(finite, reason, Reason.NO_FIX)
    good = (reason == Reason.CORRECTED)[:, None]
    within = np.array([1.0, 0.0, 1.0]) * grid.spacing_m**2 / 12
    return Corrected(np.where(good, pos, fix_m), np.where(good, covariance + within, np.nan), reason)


def _images(grid, predicted, pad):
    def image(values):
        full = grid.raster(np.asarray(values))
        return jnp.asarray(np.pad(full, [(pad, pad)] * 2 + [(0, 0)] * (full.ndim - 2)))

    rows, columns = grid.shape
    wide = grid._replace(
        low_m=grid.low_m - pad * grid.spacing_m, outdoor=np.zeros((rows + 2 * pad, columns + 2 * pad), bool)
    )
    centre = jnp.asarray(wide.centres_m(), jnp.float32)
    return jax.tree.map(image, predicted), centre, jnp.asarray(np.pad(grid.outdoor, pad))
