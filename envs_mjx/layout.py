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

from envs_mjx import lanes
from envs_mjx.api import PRNGKey

TRIES_PER_OBJECT = 100
DRAWN_TOGETHER = 10  # of these tries; the first ten nearly always suffice
RESTARTS = 10_000
REDRAWS = 10_000


class Placement(NamedTuple):
    """Where a group of equal objects may lie.

    Attributes:
        name: group name, e.g. ``"hazards"``.
        number: of objects.
        keepout: radius, m.
        area: in which the object with its keep-out must lie: half-width of a square around the origin, or a rectangle
            (x_low, y_low, x_high, y_high), m.
        at: fixed places, one per object, instead, m.
    """

    name: str
    number: int
    keepout: float
    area: float | tuple[float, float, float, float]
    at: tuple[tuple[float, float], ...] = ()

    def bounds(self) -> Float[np.ndarray, "n 4"]:
        """Lowest x and y and highest x and y (m) of the centre of every object."""
        if self.at:
            return np.array([(*point, *point) for point in self.at]).reshape(-1, 4)
        area = self.area if isinstance(self.area, tuple) else (-self.area, -self.area, self.area, self.area)
        shrunk = np.array(area) + self.keepout * np.array([1, 1, -1, -1])
        return np.tile(shrunk, (self.number, 1))


def check(placements: tuple[Placement, ...]) -> None:
    """Refuses what cannot be placed, before anything is compiled.

    Raises:
        ValueError: a negative number or keep-out, as many fixed places as there are not objects, an area smaller than
            the keep-out, or objects that cannot fit together because their discs of half the keep-out distance need
            more than the area has.
    """
    discs, xy = 0.0, []
    for group in placements:
        if group.number < 0 or group.keepout < 0:
            raise ValueError(f"{group.name}: number {group.number} and keepout {group.keepout} must not be negative.")
        if not np.isfinite([group.keepout, *np.ravel(group.area)]).all():
            raise ValueError(f"{group.name}: keepout {group.keepout} and area {group.area} must be finite, in m.")
        if group.at and len(group.at) != group.number:
            raise ValueError(f"{group.name}: {len(group.at)} fixed places for {group.number} objects; give one each.")
        bounds = group.bounds()
        if (bounds[:, :2] > bounds[:, 2:] + 1e-9).any():
            raise ValueError(
                f"{group.name}: an area of {group.area} m is too small for a keepout of {group.keepout} m; "
                "enlarge the area or reduce the keepout."
            )
        # centres are keepout_i + keepout_j apart, so discs of these radii do not overlap
        discs += group.number * np.pi * group.keepout**2
        xy.append(bounds + group.keepout * np.array([-1, -1, 1, 1]))
    low, high = np.concatenate(xy)[:, :2].min(axis=0), np.concatenate(xy)[:, 2:].max(axis=0)
    room = float(np.prod(high - low))
    if discs > 0.9069 * room > 0:  # no packing of equal discs is denser than pi / sqrt(12)
        raise ValueError(
            f"{', '.join(g.name for g in placements if g.number)} cannot fit: their keepouts cover {discs:.1f} m^2 "
            f"of {room:.1f} m^2; use fewer objects, smaller keepouts or a larger area."
        )


def sample(key: PRNGKey, placements: tuple[Placement, ...]) -> tuple[Float[Array, "N 2"], Bool[Array, ""]]:
    """Positions (m) of all objects in order of ``placements``, and whether a layout was found."""
    keepout = np.repeat([p.keepout for p in placements], [p.number for p in placements]).astype(np.float32)
    bounds = np.concatenate([p.bounds() for p in placements]).astype(np.float32)
    num = keepout.shape[0]

    def place(carry, i):
        key, points, ok = carry
        key, key_draw = jax.random.split(key)
        free = lambda draws: _is_free(draws, jnp.asarray(keepout)[i], points, keepout, jnp.arange(num) < i)
        point, found = _first(key_draw, jnp.asarray(bounds)[i], free, DRAWN_TOGETHER, TRIES_PER_OBJECT)
        return (key, points.at[i].set(point), ok & found), None

    def attempt(carry):
        key, _, _, tries = carry
        points = jnp.zeros((num, 2), jnp.float32)
        (key, points, ok), _ = jax.lax.scan(place, (key, points, jnp.bool_(True)), jnp.arange(num))
        return key, points, ok, tries + 1

    start = key, jnp.zeros((num, 2), jnp.float32), jnp.bool_(False), jnp.int32(0)
    _, points, ok, _ = lanes.while_loop(lambda c: ~c[2] & (c[3] < RESTARTS), attempt, start)
    return points, ok


def redraw(
    key: PRNGKey, placement: Placement, points: Float[Array, "N 2"], keepout: Float[Array, " N"]
) -> tuple[Float[Array, "2"], Bool[Array, ""]]:
    """A new place (m) for one object among ``points``, and whether one was found in 10,000 draws."""
    everyone = jnp.ones(points.shape[0], bool)
    free = lambda draws: _is_free(draws, placement.keepout, points, keepout, everyone)
    return _first(key, jnp.array(placement.bounds()[0], jnp.float32), free, 100, REDRAWS)


def _first(key: PRNGKey, bounds: Float[Array, "4"], free, together: int, tries: int):
    """The first free one of `tries` uniform draws from a rectangle, `together` at a time, and whether there was one."""
    low, high = jnp.split(bounds, 2)

    def attempt(carry):
        count, _, _ = carry
        draws = low + (high - low) * jax.random.uniform(jax.random.fold_in(key, count), (together, 2))
        found = free(draws)
        return count + together, draws[jnp.argmax(found)], found.any()

    start = jnp.int32(0), jnp.zeros(2, jnp.float32), jnp.bool_(False)
    _, point, ok = jax.lax.while_loop(lambda c: ~c[2] & (c[0] < tries), attempt, start)
    return point, ok


def _is_free(draws, own_keepout, points, keepout, present):
    """Which of the draws [D, 2] keep their distance from all `present` points [N]."""
    gap = jnp.sum(jnp.square(draws[:, None] - points[None]), axis=-1) >= jnp.square(own_keepout + keepout)
    return jnp.all(gap | ~present, axis=1)
