"""Tracks: a hidden Markov model over the cells of the grid, with the database as its observation model.

A receiver moves from cell to cell with a Gaussian step, never indoors; with a small chance it may be anywhere (a
database that was wrong for a while must not hold the filter captive). Forward recursion gives the filter, forward and
backward together the smoother. Errors of consecutive fixes are alike, so likelihoods are tempered.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxalign.core.errors import UserError
from jaxalign.gnss.correction import Belief, Corrected, Raster, Reason, moments, raster, twin_likelihood
from jaxalign.gnss.database import Database

_SMALL = 2**16  # cells of a grid that is taken whole, so that all its tracks share one program
_LEAST_REACH, _REACH = 4, 3.0  # of a step: in cells, in standard deviations
_NO_FIX_FLOOR = 0.05  # chance of no fix where the twin always has one


class Motion(NamedTuple):
    """How receivers move and how observations count; leaves that can be swept.

    Attributes:
        step_m: standard deviation of a step along each axis.
        leak: chance of being anywhere after a step.
        temper: exponent of the likelihoods.
    """

    step_m: Array | float = 2.5
    leak: Array | float = 1e-4
    temper: Array | float = 0.5


def blur(image: Float[Array, "rows columns"], step_cells, reach: int) -> Float[Array, "rows columns"]:
    """Gaussian convolution, separable, `reach` cells to either side, zero outside."""
    offsets = jnp.arange(-reach, reach + 1)
    kernel = jnp.exp(-0.5 * (offsets / step_cells) ** 2)
    kernel = kernel / kernel.sum()
    for axis in (0, 1):
        wide = jnp.pad(image, [(reach, reach) if axis == k else (0, 0) for k in (0, 1)])
        length = image.shape[axis]
        taps = [jax.lax.slice_in_dim(wide, k, k + length, axis=axis) for k in range(2 * reach + 1)]
        image = jnp.tensordot(kernel, jnp.stack(taps), axes=1, precision="highest")
    return image


@partial(jax.jit, static_argnames="reach")
def forward_backward(
    log_likelihood: Float[Array, "E rows columns"],
    outdoor: Float[Array, "rows columns"],
    step_cells: Float[Array, ""] | float,
    leak: Float[Array, ""] | float,
    reach: int = 4,
) -> tuple[Float[Array, "E rows columns"], Float[Array, "E rows columns"]]:
    """Filtered p(x_t | z_1..t) and smoothed p(x_t | all z) over the cells.

    The transition is p(x' | x) ~ outdoor(x') ((1 - leak) kernel(x' - x) + leak / cells), the start uniform.
    """
    cells = jnp.maximum(outdoor.sum(), 1.0)
    likelihood = jnp.exp(log_likelihood - log_likelihood.max((1, 2), keepdims=True)) * outdoor

    def spread(image):
        return (1 - leak) * blur(image, step_cells, reach) + leak * image.sum() / cells

    def normalised(image):
        return image / jnp.maximum(image.sum(), 1e-30)

    def forward(belief, seen):
        belief = normalised(spread(belief) * outdoor * seen)
        return belief, belief

    first = normalised(outdoor * likelihood[0])
    _, rest = jax.lax.scan(forward, first, likelihood[1:])
    filtered = jnp.concatenate([first[None], rest])

    def backward(message, seen):
        message = normalised(spread(message * seen * outdoor))
        return message, message

    last = jnp.ones_like(outdoor)
    _, messages = jax.lax.scan(backward, last, likelihood[1:], reverse=True)
    smoothed = filtered * jnp.concatenate([messages, last[None]])
    return filtered, smoothed / jnp.maximum(smoothed.sum((1, 2), keepdims=True), 1e-30)


@jax.jit(static_argnames="likelihood")
def _log_likelihoods(fix_m, image: Raster, belief, likelihood):
    """Of the fixes ``[E, 3]`` at every cell; of having none where the fix is NaN."""

    def one(fix):
        missing = jnp.isnan(fix[0])
        seen = likelihood(jnp.where(missing, 0.0, fix), image, belief)
        unseen = jnp.log(jnp.maximum(1 - image.availability, _NO_FIX_FLOOR)) + jnp.log(image.outdoor)
        return jnp.where(missing, unseen, seen)

    return jax.lax.map(one, fix_m, batch_size=8)


class Track(NamedTuple):
    """Places of one receiver over E epochs: by past observations only, and by all of them."""

    filtered: Corrected
    smoothed: Corrected


def follow(
    database: Database,
    slices: Int[np.ndarray, " E"],
    fix_m: Float[np.ndarray, "E _"],
    motion: Motion = Motion(),
    belief: Belief = Belief(),
    *,
    likelihood=twin_likelihood,
    margin_m: float = 100.0,
) -> Track:
    """Filters and smooths the fixes of one receiver.

    Args:
        database: the twin's.
        slices: which of its slices holds at every epoch.
        fix_m: east, north and perhaps up, as for ``correction.correct``; NaN where there is none.
        motion: of the receiver.
        belief: in the database.
        likelihood: as for ``correction.correct``.
        margin_m: cells farther than this from all fixes are left out.

    Returns:
        Places with the reason `PREDICTED` where there is no fix. A fix off the grid stays as it was, with
        `OUTSIDE_GRID`; for the epochs around it, it counts as no fix.

    Raises:
        UserError: no fix lies on the grid, or a step without length.
    """
    if not (np.isfinite(motion.step_m) and motion.step_m > 0):
        raise UserError(f"The step between fixes is {motion.step_m:g} m; give a positive number, 2.5 for a walk.")
    fix_m = np.asarray(fix_m, np.float32)
    if fix_m.shape[1] == 2:
        fix_m = np.column_stack([fix_m, np.full(len(fix_m), np.nan, np.float32)])
    rows, columns = _crop(database, fix_m, margin_m)
    received = fix_m
    _, on_grid = database.grid.locate(fix_m)
    fix_m = np.where(on_grid[:, None], fix_m, np.nan)
    log_likelihood: list = [None] * len(fix_m)
    for slice_ in np.unique(slices):
        image = jax.tree.map(lambda field: field[rows, columns], raster(database, int(slice_)))
        at = np.flatnonzero(np.asarray(slices) == slice_)
        for epoch, value in zip(at, _log_likelihoods(fix_m[at], image, belief, likelihood), strict=True):
            log_likelihood[epoch] = value
    image = jax.tree.map(lambda field: field[rows, columns], raster(database, int(slices[0])))
    step = motion.step_m / database.grid.spacing_m
    reach = min(max(_LEAST_REACH, int(np.ceil(_REACH * step))), max(image.outdoor.shape))
    scores = motion.temper * jnp.maximum(jnp.stack(log_likelihood), -1e9)
    densities = forward_backward(scores, image.outdoor, step, motion.leak, reach)
    return Track(*(_places(density, image, database.grid.spacing_m, received, on_grid) for density in densities))


def _crop(database, fix_m, margin_m):
    """Rows and columns around the fixes that are on the grid."""
    grid = database.grid
    cell, on_grid = grid.locate(fix_m)
    if grid.outdoor.size <= _SMALL and on_grid.any():
        return slice(None), slice(None)
    if not on_grid.any():
        raise UserError("None of the fixes lies on the database's grid; give the database of this place.")
    margin = int(np.ceil(margin_m / grid.spacing_m))
    low, high = cell[on_grid].min(axis=0) - margin, cell[on_grid].max(axis=0) + margin + 1
    return tuple(slice(max(a, 0), min(b, size)) for a, b, size in zip(low, high, grid.shape, strict=True))


def _places(density, image, spacing_m, received, on_grid):
    pos, covariance = (
        np.array(part) for part in jax.vmap(moments, in_axes=(0, None))(jnp.log(density), image.centre_m)
    )
    within = np.array([1.0, 0.0, 1.0]) * spacing_m**2 / 12
    missing = ~np.isfinite(received[:, :2]).all(axis=1)
    good = (on_grid | missing)[:, None]
    reason = np.where(missing, Reason.PREDICTED, np.where(on_grid, Reason.CORRECTED, Reason.OUTSIDE_GRID))
    return Corrected(np.where(good, pos, received[:, :2]), np.where(good, covariance + within, np.nan), reason)
