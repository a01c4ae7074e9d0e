"""Random placement with keep-out distances, under ``jit``.

Objects are placed in order. Each draws points uniformly in its rectangle, shrunk by its own keep-out, and takes the
first that is at least ``keepout_i + keepout_j`` away from every object ``j`` placed before it; after 100 failures the
whole layout starts again. This is the original's rule, so layouts have its distribution (not its random stream).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from envs_mjx.api import PRNGKey

TRIES_PER_OBJECT = 100
RESTARTS = 10_000
REDRAWS = 10_000


class Placement(NamedTuple):
    """Where a group of equal objects may lie.

    Attributes:
        name: group name, e.g. ``"hazards"``.
        number: of objects.
        keepout: radius, m.
        half_extent: half-width of the square around the origin in which the object with its keep-out must lie, m.
    """

    name: str
    number: int
    keepout: float
    half_extent: float


def sample(key: PRNGKey, placements: tuple[Placement, ...]) -> tuple[Float[Array, "N 2"], Bool[Array, ""]]:
    """Positions (m) of all objects in order of ``placements``, and whether a layout was found."""
    keepout = jnp.array(np.repeat([p.keepout for p in placements], [p.number for p in placements]), jnp.float32)
    reach = jnp.array(
        np.repeat([p.half_extent - p.keepout for p in placements], [p.number for p in placements]), jnp.float32
    )
    num = keepout.shape[0]

    def place(carry, i):
        key, points, ok = carry
        key, key_draw = jax.random.split(key)
        draws = reach[i] * jax.random.uniform(key_draw, (TRIES_PER_OBJECT, 2), minval=-1.0, maxval=1.0)
        free = _is_free(draws, keepout[i], points, keepout, jnp.arange(num) < i)
        return (key, points.at[i].set(draws[jnp.argmax(free)]), ok & free.any()), None

    def attempt(carry):
        key, _, _, tries = carry
        points = jnp.zeros((num, 2), jnp.float32)
        (key, points, ok), _ = jax.lax.scan(place, (key, points, jnp.bool_(True)), jnp.arange(num))
        return key, points, ok, tries + 1

    start = key, jnp.zeros((num, 2), jnp.float32), jnp.bool_(False), jnp.int32(0)
    _, points, ok, _ = jax.lax.while_loop(lambda c: ~c[2] & (c[3] < RESTARTS), attempt, start)
    return points, ok


def redraw(
    key: PRNGKey, placement: Placement, points: Float[Array, "N 2"], keepout: Float[Array, " N"]
) -> tuple[Float[Array, "2"], Bool[Array, ""]]:
    """A new place (m) for one object among ``points``, and whether one was found in 10,000 draws."""
    batch = 100
    reach = placement.half_extent - placement.keepout
    everyone = jnp.ones(points.shape[0], bool)

    def attempt(carry):
        key, _, _, tries = carry
        key, key_draw = jax.random.split(key)
        draws = jax.random.uniform(key_draw, (batch, 2), minval=-reach, maxval=reach)
        free = _is_free(draws, placement.keepout, points, keepout, everyone)
        return key, draws[jnp.argmax(free)], free.any(), tries + batch

    start = key, jnp.zeros(2, jnp.float32), jnp.bool_(False), jnp.int32(0)
    _, point, ok, _ = jax.lax.while_loop(lambda c: ~c[2] & (c[3] < REDRAWS), attempt, start)
    return point, ok


def _is_free(draws, own_keepout, points, keepout, present):
    """Which of the draws [D, 2] keep their distance from all `present` points [N]."""
    gap = jnp.sum(jnp.square(draws[:, None] - points[None]), axis=-1) >= jnp.square(own_keepout + keepout)
    return jnp.all(gap | ~present, axis=1)
