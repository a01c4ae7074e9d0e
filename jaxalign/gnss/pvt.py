"""Single-point positioning: weighted least squares on pseudoranges, dilution of precision, fault exclusion.

Everything is written for one receiver and one epoch, pure and of static shape: `jax.vmap` makes it cells x draws. The
unknowns are three coordinates and one clock bias per system, so that inter-system biases are their differences. At ECEF
scale it needs ``jax.enable_x64(True)``; :func:`linear_fix` is the float32 form around a known place.

Source: Kaplan, Hegarty 2017, "Understanding GPS/GNSS", ch. 11; screening as in RTKLIB 2.4.3.
"""

import functools
from enum import IntEnum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxalign.gnss import frames
from jaxalign.gnss.constants import EARTH_RATE_RAD_S, LIGHT_SPEED_M_S

FALSE_ALARM = 1e-3
MAX_ITERATIONS = 10
CONVERGED_M = 1e-4


class Status(IntEnum):
    """What a fix is worth. Up to INCONSISTENT there is a position; from TOO_FEW on it is NaN."""

    GOOD = 0
    WEAK_GEOMETRY = 1
    INCONSISTENT = 2
    TOO_FEW = 3
    SINGULAR = 4
    NOT_CONVERGED = 5


class Dop(NamedTuple):
    """Dilution of precision with one clock per system: sqrt of sums of the diagonal of (H'H)^-1 in the local frame."""

    geometric: Float[Array, ""]
    position: Float[Array, ""]
    horizontal: Float[Array, ""]
    vertical: Float[Array, ""]


class Fix(NamedTuple):
    """A position and its quality, for S satellites and M systems.

    Attributes:
        pos_ecef_m: NaN where `status` is TOO_FEW or worse.
        clock_bias_m: receiver clock against each system; 0 for a system without a satellite in the fix.
        covariance_m2: of position and clocks, (H'WH)^-1, with weights as inverse variances.
        dop: dilution of precision.
        residual_m: after the fit, 0 where not used.
        used: satellites in the fix.
        statistic: weighted sum of squared residuals over its chi-square threshold; above 1 they do not fit together.
        status: a `Status`.
    """

    pos_ecef_m: Float[Array, "3"]
    clock_bias_m: Float[Array, " M"]
    covariance_m2: Float[Array, "P P"]
    dop: Dop
    residual_m: Float[Array, " S"]
    used: Bool[Array, " S"]
    statistic: Float[Array, ""]
    status: Int[Array, ""]


class Screening(NamedTuple):
    """When a fix is not GOOD, and how many satellites may be excluded to make it so. Both may be traced."""

    max_gdop: Any = 30.0
    max_exclusions: Any = 0


class LinearSolution(NamedTuple):
    """Least squares of P unknowns.

    Attributes:
        step: argmin.
        covariance: (H'WH)^-1.
        cofactor: (H'H)^-1 over what has weight, for dilution of precision.
        regular: whether every pivot was safe.
    """

    step: Float[Array, " P"]
    covariance: Float[Array, "P P"]
    cofactor: Float[Array, "P P"]
    regular: Bool[Array, ""]


def inverse_positive(matrix: Float[Array, "*batch P P"]) -> tuple[Float[Array, "*batch P P"], Bool[Array, "*batch"]]:
    """Inverse of small positive definite matrices and whether each was safely regular.

    An unrolled Cholesky factorisation: elementwise over the batch, which fills vector units where LAPACK calls on
    7 x 7 matrices do not.
    """
    size = matrix.shape[-1]
    smallest_pivot = 64 * jnp.finfo(matrix.dtype).eps
    lower: list[list] = [[None] * size for _ in range(size)]
    inverse_lower: list[list] = [[None] * size for _ in range(size)]
    regular = jnp.isfinite(matrix).all((-2, -1))
    for j in range(size):
        pivot = matrix[..., j, j] - sum(lower[j][k] ** 2 for k in range(j))
        safe = pivot > smallest_pivot * matrix[..., j, j]
        regular &= safe
        lower[j][j] = jnp.sqrt(jnp.where(safe, pivot, 1.0))
        for i in range(j + 1, size):
            lower[i][j] = (matrix[..., i, j] - sum(lower[i][k] * lower[j][k] for k in range(j))) / lower[j][j]
    for j in range(size):
        inverse_lower[j][j] = 1 / lower[j][j]
        for i in range(j + 1, size):
            inverse_lower[i][j] = -sum(lower[i][k] * inverse_lower[k][j] for k in range(j, i)) / lower[i][i]
    rows = [
        [sum(inverse_lower[k][i] * inverse_lower[k][j] for k in range(max(i, j), size)) for j in range(size)]
        for i in range(size)
    ]
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2), regular


def design_matrix(direction: Float[Array, "S 3"], system: Int[Array, " S"], num_systems: int) -> Float[Array, "S P"]:
    """Rows (-direction, one-hot system): derivative of pseudoranges by position and clocks; P = 3 + `num_systems`."""
    return jnp.concatenate([-direction, jax.nn.one_hot(system, num_systems, dtype=direction.dtype)], axis=1)


def least_squares(
    residual_m: Float[Array, " S"], design: Float[Array, "S P"], weight: Float[Array, " S"]
) -> LinearSolution:
    """Argmin sum_s w_s (r_s - H_s x)^2; the clock of a system without weight is held at 0.

    Args:
        residual_m: observed minus modelled.
        design: from :func:`design_matrix`.
        weight: inverse variances, 0 for what is not used.
    """
    scale = jnp.maximum(weight.max(), jnp.finfo(weight.dtype).tiny)
    weights = jnp.stack([weight / scale, (weight > 0).astype(weight.dtype)])
    normal = jnp.einsum("sp,ws,sq->wpq", design, weights, design, precision="highest")
    absent = jnp.concatenate([jnp.zeros(3, bool), jnp.diagonal(normal[1])[3:] == 0])
    inverse, regular = inverse_positive(normal + jnp.diag(absent.astype(normal.dtype)))
    inverse = jnp.where(absent[:, None] | absent, 0.0, inverse)
    step = jnp.einsum("pq,sq,s,s->p", inverse[0], design, weights[0], residual_m, precision="highest")
    return LinearSolution(step, inverse[0] / scale, inverse[1], regular.all())


def linear_fix(
    error_m: Float[Array, " S"],
    direction_enu: Float[Array, "S 3"],
    weight: Float[Array, " S"],
    system: Int[Array, " S"],
    num_systems: int,
) -> tuple[Float[Array, "3"], LinearSolution, Int[Array, ""]]:
    """Error of a fix from errors of its pseudoranges, around the true place: dx = (H'WH)^-1 H'W e. float32 will do.

    Args:
        error_m: of the pseudoranges (echo, delay, noise); ignored where the weight is 0.
        direction_enu: unit vectors to the satellites.
        weight: inverse variances, 0 for a satellite that is not tracked.
        system: index of each satellite's system.
        num_systems: number of clocks.

    Returns:
        Position error east, north, up in metres (NaN where there is none), the whole solution, and a `Status`.
    """
    used = weight > 0
    solution = least_squares(jnp.where(used, error_m, 0.0), design_matrix(direction_enu, system, num_systems), weight)
    status = _geometry_status(used, system, num_systems, solution.regular)
    return jnp.where(status < Status.TOO_FEW, solution.step[:3], jnp.nan), solution, status


def _geometry_status(used, system, num_systems, regular):
    unknowns = 3 + _systems_present(used, system, num_systems).sum()
    status = jnp.where(regular, Status.GOOD, Status.SINGULAR)
    return jnp.where(used.sum() < unknowns, Status.TOO_FEW, status).astype(jnp.int32)


def _systems_present(used, system, num_systems):
    return (jax.nn.one_hot(system, num_systems, dtype=bool) & used[:, None]).any(0)


def geometric_range_m(pos_ecef_m, sat_pos_ecef_m) -> tuple[Array, Array]:
    """Distances ``[S]`` with the Sagnac term of the Earth's rotation during flight, and unit vectors ``[S, 3]``."""
    offset = sat_pos_ecef_m - pos_ecef_m
    distance = jnp.sqrt((offset**2).sum(-1))
    turn = sat_pos_ecef_m[..., 0] * pos_ecef_m[..., 1] - sat_pos_ecef_m[..., 1] * pos_ecef_m[..., 0]
    return distance + EARTH_RATE_RAD_S * turn / LIGHT_SPEED_M_S, offset / distance[..., None]


@functools.cache
def _chi_square_thresholds(count: int) -> np.ndarray:
    """Value that chi-square of 1 .. count degrees of freedom exceeds with probability `FALSE_ALARM`; index 0 unused."""
    from scipy.special import chdtri

    return np.concatenate([[np.inf], chdtri(np.arange(1, count + 1), FALSE_ALARM)])


def solve(
    pseudorange_m: Float[Array, " S"],
    sat_pos_ecef_m: Float[Array, "S 3"],
    weight: Float[Array, " S"],
    system: Int[Array, " S"],
    num_systems: int,
    initial_pos_ecef_m: Float[Array, "3"],
    screening: Screening = Screening(),
) -> Fix:
    """Position from pseudoranges by Gauss-Newton steps.

        minimise sum_s w_s (P_s - |x - x_s| - Sagnac_s - b_system(s))^2

    If residuals do not fit together, up to `screening.max_exclusions` satellites are left out one by one: each time the
    one whose absence lowers the sum most, r^2 w / (1 - leverage), the drop-one test in closed form.

    Args:
        pseudorange_m: corrected for satellite clock, group delay and atmosphere.
        sat_pos_ecef_m: at transmission, in the Earth-fixed frame of that instant.
        weight: inverse variances (m^-2), 0 for satellites not to be used; whatever stands in their rows is ignored.
        system: index of each satellite's system in [0, num_systems).
        num_systems: number of clocks.
        initial_pos_ecef_m: start; the centre of the Earth will do.
        screening: limits.
    """
    usable = (weight > 0) & jnp.isfinite(pseudorange_m) & jnp.isfinite(sat_pos_ecef_m).all(-1)
    ranges = jnp.where(usable, pseudorange_m, 0.0)
    # a harmless place for satellites that are not used
    places = jnp.where(usable[:, None], sat_pos_ecef_m, jnp.asarray([2.7e7, 0.0, 0.0], sat_pos_ecef_m.dtype))
    weights = jnp.where(usable, weight, 0.0)

    def fit(used, pos):
        return _fit(ranges, places, jnp.where(used, weights, 0.0), system, num_systems, pos, screening.max_gdop)

    def attempt(carry):
        used, _, fix, count = carry
        fix = fit(used, jnp.where(jnp.isfinite(fix.pos_ecef_m), fix.pos_ecef_m, initial_pos_ecef_m))
        spare = fix.used.sum() - 3 - _systems_present(fix.used, system, num_systems).sum()
        faulty = (fix.status == Status.INCONSISTENT) & (spare >= 2) & (count < screening.max_exclusions)
        worst = _worst_satellite(fix, places, weights, system, num_systems)
        return used & ~(faulty & (jnp.arange(used.shape[0]) == worst)), faulty, fix, count + 1

    blank = empty_like(jax.eval_shape(fit, usable, initial_pos_ecef_m))
    blank = blank._replace(pos_ecef_m=initial_pos_ecef_m)
    carry = (usable, jnp.asarray(True), blank, jnp.int32(0))
    return jax.lax.while_loop(lambda carry: carry[1], attempt, carry)[2]


def empty_like(shapes):
    """Zeros of the shapes and types of a tree, to begin a loop with."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def _worst_satellite(fix, sat_pos, weight, system, num_systems):
    _, direction = geometric_range_m(fix.pos_ecef_m, sat_pos)
    design = design_matrix(direction, system, num_systems)
    weight = jnp.where(fix.used, weight, 0.0)
    leverage = weight * jnp.einsum("sp,pq,sq->s", design, fix.covariance_m2, design, precision="highest")
    drop = fix.residual_m**2 * weight / jnp.maximum(1 - leverage, 1e-9)
    return jnp.argmax(jnp.where(fix.used & (leverage < 1 - 1e-6), drop, -1.0))


def _fit(ranges, sat_pos, weight, system, num_systems, initial_pos, max_gdop) -> Fix:
    """Gauss-Newton to convergence and the quality of the result."""
    used = weight > 0

    def linearise(unknowns):
        distance, direction = geometric_range_m(unknowns[:3], sat_pos)
        design = design_matrix(direction, system, num_systems)
        return jnp.where(used, ranges - distance - unknowns[3:][system], 0.0), design

    def newton(carry):
        unknowns, _, count = carry
        solution = least_squares(*linearise(unknowns), weight)
        return unknowns + solution.step, solution, count + 1

    def unfinished(carry):
        _, solution, count = carry
        return ~_converged(solution) & (count < MAX_ITERATIONS) & solution.regular

    start = jnp.concatenate([initial_pos, jnp.zeros(num_systems, ranges.dtype)])
    solution = empty_like(jax.eval_shape(least_squares, *jax.eval_shape(linearise, start), weight))
    solution = solution._replace(step=jnp.full_like(start, jnp.inf), regular=jnp.asarray(True))
    unknowns, solution, _ = jax.lax.while_loop(unfinished, newton, (start, solution, jnp.int32(0)))

    residual, _ = linearise(unknowns)
    dop = _dilution(unknowns[:3], solution.cofactor)
    thresholds = jnp.asarray(_chi_square_thresholds(ranges.shape[0]), ranges.dtype)
    freedom = used.sum() - 3 - _systems_present(used, system, num_systems).sum()
    statistic = (weight * residual**2).sum() / thresholds[jnp.maximum(freedom, 0)]
    status = _geometry_status(used, system, num_systems, solution.regular)
    for trouble, value in (
        (~_converged(solution), Status.NOT_CONVERGED),
        (~(dop.geometric <= max_gdop), Status.WEAK_GEOMETRY),
        (~(statistic <= 1), Status.INCONSISTENT),
    ):
        status = jnp.where((status == Status.GOOD) & trouble, value, status)
    pos = jnp.where(status < Status.TOO_FEW, unknowns[:3], jnp.nan)
    return Fix(pos, unknowns[3:], solution.covariance, dop, residual, used, statistic, status)


def _converged(solution: LinearSolution):
    return (solution.step**2).sum() < CONVERGED_M**2


def _dilution(pos, cofactor) -> Dop:
    place = frames.geodetic_from_ecef(pos)
    rotation = frames.rotation_enu_from_ecef(place.latitude_rad, place.longitude_rad)
    local = jnp.einsum("ip,pq,iq->i", rotation, cofactor[:3, :3], rotation, precision="highest")
    clocks = jnp.diagonal(cofactor)[3:].sum()
    return Dop(*jnp.sqrt(jnp.stack([local.sum() + clocks, local.sum(), local[0] + local[1], local[2]])))
