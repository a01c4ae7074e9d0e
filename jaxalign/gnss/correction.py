"""Position-domain correction: where is a receiver whose fix came out there?

The database is a forward model: it says for each cell c how fixes of receivers there are distributed. Its inversion is
Bayes' rule over the outdoor cells near the fix z,

    p(c | z)  ~  (1 - e) a_c t(z; c + m_c, S_c + s^2 I)  +  e t(z; c, s_e^2 I),

with a_c the cell's availability, m_c and S_c mean and covariance of its simulated error, t a Student density, s what
the twin does not know, and e the chance that it is wrong here: then only the street itself is known. Reported are mean
and covariance of the posterior, or no correction and the reason.

The two controls: `street_prior` knows only where the streets are, `naive` subtracts the error that is simulated for
the cell under the fix (the fix is not where the receiver is, so this makes matters worse).
"""

from enum import IntEnum
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxalign.core.errors import UserError
from jaxalign.gnss.database import Database
from jaxalign.gnss.grid import Grid
from jaxalign.gnss.time import GpsTime

_LOG_2_PI = float(np.log(2 * np.pi))


class Reason(IntEnum):
    """Whether a fix was corrected, or why not; PREDICTED: there was none, and a filter says where it would be."""

    CORRECTED = 0
    NO_FIX = 1
    OUTSIDE_GRID = 2
    NOT_SIMULATED = 3
    TOO_OLD = 4
    PREDICTED = 5


class Belief(NamedTuple):
    """How a database is believed; leaves that can be swept.

    Attributes:
        model_m: standard deviation s of what the twin does not know of the mean error.
        model_up_m: likewise upwards.
        freedom: degrees of freedom of the Student density.
        wrong: e, chance that the twin is wrong at a cell.
        street_m: standard deviation of fixes where the twin is wrong.
        farthest: largest Mahalanobis distance of the nearest simulated fix for which there is a correction.
    """

    model_m: Array | float = 2.0
    model_up_m: Array | float = 3.0
    freedom: Array | float = 6.0
    wrong: Array | float = 0.05
    street_m: Array | float = 15.0
    farthest: Array | float = 5.0


class Raster(NamedTuple):
    """One slice of the database as images, padded so that windows never leave them, ``[rows, columns, ...]``.

    Attributes:
        centre_m: of the cells.
        mean_m: simulated error, east, north, up.
        covariance_m2: its entries in the order of ``twin.PAIRS``.
        availability: 0 indoors and in the padding.
        outdoor: 1 outdoors.
    """

    centre_m: Float[Array, "rows columns 2"]
    mean_m: Float[Array, "rows columns 3"]
    covariance_m2: Float[Array, "rows columns 6"]
    availability: Float[Array, "rows columns"]
    outdoor: Float[Array, "rows columns"]


class Corrected(NamedTuple):
    """Positions of M fixes.

    Attributes:
        pos_m: east and north; the fix itself where there is no correction.
        covariance_m2: of the position: east-east, east-north, north-north; NaN where there is no correction.
        reason: a `Reason`.
    """

    pos_m: Float[np.ndarray, "M 2"]
    covariance_m2: Float[np.ndarray, "M 3"]
    reason: Int[np.ndarray, " M"]

    @property
    def corrected(self) -> Bool[np.ndarray, " M"]:
        """Which fixes were corrected."""
        return self.reason == Reason.CORRECTED


def raster(database: Database, slice_: int, pad: int = 0) -> Raster:
    """The images of one slice with `pad` empty cells around."""
    grid, part = database.grid, database.statistics

    def image(values):
        full = grid.raster(np.asarray(values, np.float32))
        return jnp.asarray(np.pad(full, [(pad, pad)] * 2 + [(0, 0)] * (full.ndim - 2)))

    rows, columns = grid.shape
    wide = grid._replace(
        low_m=grid.low_m - pad * grid.spacing_m, outdoor=np.zeros((rows + 2 * pad, columns + 2 * pad), bool)
    )
    return Raster(
        jnp.asarray(wide.centres_m(), jnp.float32),
        image(part.mean_m[slice_]),
        image(part.covariance_m2[slice_]),
        image(part.availability[slice_]),
        jnp.asarray(np.pad(grid.outdoor, pad), jnp.float32),
    )


def student(square: Array, log_determinant: Array, dimensions: Array | float, freedom: Array | float) -> Array:
    """Log density of a Student distribution, up to a constant, from the squared Mahalanobis distance."""
    return (
        -0.5 * (dimensions + freedom) * jnp.log1p(square / freedom) - 0.5 * log_determinant - _LOG_2_PI * dimensions / 2
    )


def distance_squared(
    offset_m: Float[Array, "*b d"], covariance_m2: Float[Array, "*b e"]
) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
    """Squared Mahalanobis distance and log determinant, in two dimensions (3 entries) or three (6, see ``PAIRS``)."""
    a, b, d = covariance_m2[..., 0], covariance_m2[..., 1], covariance_m2[..., 2]
    x, y = offset_m[..., 0], offset_m[..., 1]
    determinant = a * d - b * b
    square = (d * x * x - 2 * b * x * y + a * y * y) / determinant
    if offset_m.shape[-1] == 2:
        return square, jnp.log(determinant)
    e, f = covariance_m2[..., 3], covariance_m2[..., 4]
    slope_x, slope_y = (d * e - b * f) / determinant, (a * f - b * e) / determinant
    variance = jnp.maximum(covariance_m2[..., 5] - e * slope_x - f * slope_y, 1e-3)
    residual = offset_m[..., 2] - slope_x * x - slope_y * y
    return square + residual**2 / variance, jnp.log(determinant) + jnp.log(variance)


def widened(raster: Raster, belief: Belief) -> Float[Array, "*cells 6"]:
    """Covariances with the ignorance of the model on the diagonal."""
    flat, up = jnp.square(belief.model_m), jnp.square(belief.model_up_m)
    return raster.covariance_m2 + jnp.stack([flat, 0 * flat, flat, 0 * flat, 0 * flat, up])


def simulated_distance(fix_m: Float[Array, "3"], raster: Raster, belief: Belief):
    """Of a fix from the fixes simulated for the cells: squared distance, log determinant, dimensions."""
    place = jnp.pad(raster.centre_m, [(0, 0)] * (raster.centre_m.ndim - 1) + [(0, 1)])
    offset, covariance = fix_m - place - raster.mean_m, widened(raster, belief)
    flat = distance_squared(offset[..., :2], covariance[..., :3])
    full = distance_squared(jnp.nan_to_num(offset), covariance)
    known = jnp.isfinite(fix_m[2])
    square, determinant = (jnp.where(known, both, two) for both, two in zip(full, flat, strict=True))
    return square, determinant, jnp.where(known, 3.0, 2.0)


def twin_likelihood(fix_m: Float[Array, "3"], raster: Raster, belief: Belief) -> Float[Array, "rows columns"]:
    """Log p(fix | cell), -inf where there is no outdoor cell."""
    square, determinant, dimensions = simulated_distance(fix_m, raster, belief)
    simulated = student(square, determinant, dimensions, belief.freedom)
    simulated += jnp.log((1 - belief.wrong) * raster.availability)
    off = jnp.append(fix_m[:2] - raster.centre_m, 0 * raster.centre_m[..., :1], axis=-1)
    off = off.at[..., 2].set(jnp.nan_to_num(fix_m[2]))
    square = (off**2).sum(-1) / jnp.square(belief.street_m)
    unknown = student(square, 2 * dimensions * jnp.log(belief.street_m), dimensions, belief.freedom)
    return jnp.logaddexp(simulated, jnp.log(belief.wrong * raster.outdoor) + unknown)


def street_likelihood(fix_m: Float[Array, "3"], raster: Raster, belief: Belief) -> Float[Array, "rows columns"]:
    """Log p(fix | cell) of a receiver that only knows the streets: a Gaussian around the cell."""
    return jnp.log(raster.outdoor) - ((fix_m[:2] - raster.centre_m) ** 2).sum(-1) / (2 * belief.street_m**2)


def moments(log_weight: Float[Array, "*cells"], centre_m: Float[Array, "*cells 2"]):
    """Mean ``[2]`` and covariance ``[3]`` of cells weighted by exp(log_weight)."""
    weight = jnp.exp(log_weight - jnp.max(log_weight, initial=-1e30))
    weight = (weight / jnp.maximum(weight.sum(), 1e-30))[..., None]
    axes = tuple(range(weight.ndim - 1))
    mean = (weight * centre_m).sum(axes)
    x, y = jnp.moveaxis(centre_m - mean, -1, 0)
    return mean, (weight * jnp.stack([x * x, x * y, y * y], axis=-1)).sum(axes)


@jax.jit(static_argnames=("window", "likelihood"))
def _posteriors(fix_m, corner, image: Raster, belief, window, likelihood):
    """Mean, covariance and squared distance of the nearest simulated fix, of every fix."""

    def one(args):
        fix, (row, column) = args
        size = 2 * window + 1

        def cut(field):
            return jax.lax.dynamic_slice(field, (row, column, *[0] * (field.ndim - 2)), (size, size, *field.shape[2:]))

        near = jax.tree.map(cut, image)
        mean, covariance = moments(likelihood(fix, near, belief), near.centre_m)
        square, _, _ = simulated_distance(fix, near, belief)
        return mean, covariance, jnp.where(near.availability > 0, square, jnp.inf).min(), near.outdoor.any()

    return jax.lax.map(one, (fix_m, corner), batch_size=64)


def correct(
    database: Database,
    slice_: int,
    fix_m: Float[np.ndarray, "M _"],
    belief: Belief = Belief(),
    *,
    radius_m: float = 80.0,
    likelihood=twin_likelihood,
) -> Corrected:
    """Posterior mean and covariance of the receiver's place for each fix, by one slice of the database.

    Args:
        database: the twin's.
        slice_: index of the slice.
        fix_m: fixes, east and north in the city's frame, and if known how far they are above the antenna's height over
            the street, which tells places apart; NaN where there is none.
        belief: in the database.
        radius_m: cells farther from the fix are left out.
        likelihood: :func:`twin_likelihood`, or :func:`street_likelihood` for the control.
    """
    fix_m, up = _split(fix_m)
    reason = _reasons(database.grid, fix_m)
    window = int(np.ceil(radius_m / database.grid.spacing_m))
    cell, _ = database.grid.locate(fix_m)
    image = raster(database, slice_, window)
    usable = np.where(reason[:, None] == Reason.CORRECTED, fix_m, 0.0)
    usable = np.column_stack([usable, up]).astype(np.float32)
    result = _posteriors(usable, cell.astype(np.int32), image, belief, window, likelihood)
    pos, covariance, square, street = (np.array(part) for part in result)
    missing = ~street if likelihood is street_likelihood else square > float(belief.farthest) ** 2
    reason = np.where((reason == Reason.CORRECTED) & missing, Reason.NOT_SIMULATED, reason)
    good = (reason == Reason.CORRECTED)[:, None]
    within = np.array([1.0, 0.0, 1.0]) * database.grid.spacing_m**2 / 12
    return Corrected(np.where(good, pos, fix_m), np.where(good, covariance + within, np.nan), reason)


street_prior = partial(correct, likelihood=street_likelihood)


def naive(database: Database, slice_: int, fix_m: Float[np.ndarray, "M _"]) -> Corrected:
    """Control: subtract the simulated mean error of the cell under the fix, or of the nearest with one."""
    from scipy.spatial import cKDTree

    fix_m, _ = _split(fix_m)
    reason = _reasons(database.grid, fix_m)
    known = np.flatnonzero(database.statistics.availability[slice_] > 0)
    centres = database.grid.cells_m()[known, :2]
    gap, nearest = cKDTree(centres).query(np.where(np.isfinite(fix_m), fix_m, 1e9))
    far = gap > 80.0
    reason = np.where((reason == Reason.CORRECTED) & far, Reason.NOT_SIMULATED, reason)
    good = (reason == Reason.CORRECTED)[:, None]
    cell = known[nearest]
    pos = fix_m - database.statistics.mean_m[slice_][cell, :2]
    spread = database.statistics.covariance_m2[slice_][cell, :3]
    return Corrected(np.where(good, pos, fix_m), np.where(good, spread, np.nan), reason)


def correct_at(
    database: Database, time: GpsTime, fix_m: Float[np.ndarray, "M _"], belief: Belief = Belief(), *, oldest_s: float
) -> Corrected:
    """:func:`correct` with the slice nearest in time to each fix; slices farther than `oldest_s` are not used."""
    slices, gap = database.nearest_slice(time)
    fix_m = np.asarray(fix_m, np.float32)
    result = Corrected(fix_m[:, :2].copy(), np.full((len(fix_m), 3), np.nan), np.full(len(fix_m), Reason.TOO_OLD))
    for slice_ in np.unique(slices[gap <= oldest_s]):
        rows = np.flatnonzero((slices == slice_) & (gap <= oldest_s))
        part = correct(database, int(slice_), fix_m[rows], belief)
        for whole, piece in zip(result, part, strict=True):
            whole[rows] = piece
    return result


class Product(NamedTuple):
    """The inverse database of one slice: what to add to a fix that falls into a cell; 11 bytes per cell.

    Attributes:
        grid: the cells, indoor ones as well, since fixes fall there.
        offset_m: posterior mean minus the cell's centre.
        covariance_m2: of the posterior.
        reason: a `Reason`.
    """

    grid: Grid
    offset_m: Float[np.ndarray, "rows columns 2"]
    covariance_m2: Float[np.ndarray, "rows columns 3"]
    reason: Int[np.ndarray, "rows columns"]

    @property
    def nbytes(self) -> int:
        """Size of what a receiver needs."""
        return self.offset_m.nbytes + self.covariance_m2.nbytes + self.reason.nbytes

    def look_up(self, fix_m: Float[np.ndarray, "M 2"]) -> Corrected:
        """One look-up and one addition per fix: all that a receiver has to do."""
        fix_m = np.asarray(fix_m, np.float32)
        (rows, columns), on_grid = (part.T for part in self.grid.locate(fix_m))
        reason = np.where(on_grid, self.reason[rows, columns], Reason.OUTSIDE_GRID)
        reason = np.where(np.isfinite(fix_m).all(axis=1), reason, Reason.NO_FIX).astype(int)
        good = (reason == Reason.CORRECTED)[:, None]
        pos = fix_m + np.where(good, self.offset_m[rows, columns].astype(np.float32), 0.0)
        return Corrected(pos, np.where(good, self.covariance_m2[rows, columns].astype(float), np.nan), reason)


def product(database: Database, slice_: int, belief: Belief = Belief()) -> Product:
    """The inverse database of a slice."""
    grid = database.grid
    centres = grid.centres_m().reshape(-1, 2)
    answer = correct(database, slice_, centres, belief)

    def image(values, dtype):
        return values.reshape(*grid.shape, *values.shape[1:]).astype(dtype)

    covariance = np.nan_to_num(answer.covariance_m2)
    offset = (answer.pos_m - centres).astype(np.float32)
    return Product(grid, image(offset, np.float16), image(covariance, np.float16), image(answer.reason, np.uint8))


def _split(fix_m):
    """East and north ``[M, 2]``, and upwards ``[M]`` or NaN."""
    fix_m = np.asarray(fix_m, np.float32)
    if fix_m.ndim != 2 or fix_m.shape[1] not in (2, 3):
        raise UserError(f"Fixes must be rows of east, north and perhaps up, not of shape {fix_m.shape}.")
    return fix_m[:, :2], fix_m[:, 2] if fix_m.shape[1] == 3 else np.full(len(fix_m), np.nan, np.float32)


def _reasons(grid, fix_m):
    _, on_grid = grid.locate(fix_m)
    reason = np.where(on_grid, Reason.CORRECTED, Reason.OUTSIDE_GRID)
    return np.where(np.isfinite(fix_m).all(axis=1), reason, Reason.NO_FIX)
