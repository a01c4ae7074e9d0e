"""Echoes off vertical walls by the image method: single bounces, and double bounces between walls that face each other.

Mirroring the receiver in a wall turns a reflected path into a straight one, and leaves its rise per metre unchanged. A
wall of outward normal n reflects a satellite in direction s to a receiver at distance d in front of it if s . n > 0,
the path meets the wall below its top and both legs are free. The echo is longer than the direct path by

    2 d (s . n),    after two walls by (p - p'') . s   with p'' the twice mirrored receiver p.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxalign.gnss.facing import Pairs
from jaxalign.gnss.rays import GROUP, blocked, in_groups, observable, place_of, visit
from jaxalign.gnss.tiles import Tiles, Walls

OFF_WALL_M = 0.01  # legs begin and end this far in front of the reflecting wall
_GRAZING = 1e-3  # smallest s . n


class Echoes(NamedTuple):
    """The shortest echoes of every receiver and satellite, ``[T, S, K, C]``.

    Attributes:
        excess_m: longer than the direct path by, m; inf where there is no echo.
        cos_incidence: cosine of the angle between path and normal, at the wall nearest to the receiver.
        cos_second: likewise at the wall nearest to the satellite; 1 after a single bounce.
        wall: of the city, nearest to the receiver, -1 where there is no echo.
        second: of the city, nearest to the satellite, -1 after a single bounce.
        missed: ``[T, S, C]``, further candidates (walls that would reflect if nothing stood in the way) not looked at.
    """

    excess_m: Float[Array, "T S K C"]
    cos_incidence: Float[Array, "T S K C"]
    cos_second: Float[Array, "T S K C"]
    wall: Int[Array, "T S K C"]
    second: Int[Array, "T S K C"]
    missed: Int[Array, "T S C"]


def single_bounce(tiles: Tiles, directions: Float[Array, "S 3"], paths: int = 2, max_excess_m: float = 300.0) -> Echoes:
    """Echoes off one wall; both legs are checked against the whole surroundings.

    Args:
        tiles: T tiles of C receivers.
        directions: unit vectors to the satellites, east, north, up.
        paths: K; the K walls of least excess are candidates, an echo can be lost only where ``missed`` is positive.
        max_excess_m: longer echoes are ignored.
    """
    return _single_bounce(tiles, directions, jnp.float32(max_excess_m), paths)


def double_bounce(
    tiles: Tiles, pairs: Pairs, directions: Float[Array, "S 3"], paths: int = 1, max_excess_m: float = 300.0
) -> Echoes:
    """Echoes off two walls; all three legs are checked. Arguments as in :func:`single_bounce`."""
    return _double_bounce(tiles, pairs, directions, jnp.float32(max_excess_m), paths)


@jax.jit(static_argnames="paths")
def _single_bounce(tiles, directions, max_excess_m, paths):
    def kernel(tile, lists, directions, steps):
        *surroundings, reflectors = lists
        start, sky = place_of(tile), _components(directions)

        def excess_of(wall):
            front, facing, reflects = mirror_test(wall, *start, sky)
            return jnp.where(reflects, 2 * front * facing, jnp.inf)

        excess, position, found = _shortest(reflectors, steps[2], excess_of, paths, max_excess_m, tile)
        wall = _rows(reflectors, position)
        front, facing, _ = mirror_test(wall, *start, sky)
        free = _free(surroundings, steps[:2], start, [(wall, front, facing)], sky)
        real = jnp.isfinite(excess) & free
        return _echoes(real, excess, (facing, jnp.ones_like(facing)), (wall.wall, -1), found - paths)

    lists = (tiles.boxes, tiles.walls, tiles.reflectors)
    return _masked(in_groups(kernel, tiles, lists, directions), tiles, directions)


@jax.jit(static_argnames="paths")
def _double_bounce(tiles, pairs, directions, max_excess_m, paths):
    def chain(pair, start, sky):
        """Distance and cosine at both walls, and whether the pair reflects."""
        x, y, z = start
        front = (x - pair.near.x) * pair.near.tangent_y - (y - pair.near.y) * pair.near.tangent_x
        image_x, image_y = x - 2 * front * pair.near.tangent_y, y + 2 * front * pair.near.tangent_x
        far_front, far_facing, far_ok = mirror_test(pair.far, image_x, image_y, z, sky)
        front, facing, near_ok = mirror_test(pair.near, x, y, z, _mirrored(sky, pair.far, far_facing))
        in_order = front * far_facing < far_front * facing
        return (front, facing), (far_front, far_facing), far_ok & near_ok & in_order

    def kernel(tile, lists, directions, steps):
        *surroundings, candidates = lists
        start, sky = place_of(tile), _components(directions)

        def excess_of(pair):
            (front, _), (far_front, far_facing), reflects = chain(pair, start, sky)
            facing = sky[0] * pair.near.tangent_y - sky[1] * pair.near.tangent_x
            return jnp.where(reflects, 2 * (front * facing + far_front * far_facing), jnp.inf)

        excess, position, found = _shortest(candidates, steps[2], excess_of, paths, max_excess_m, tile)
        pair = _rows(candidates, position)
        near, far, _ = chain(pair, start, sky)
        free = _free(surroundings, steps[:2], start, [(pair.near, *near), (pair.far, *far)], sky)
        real = jnp.isfinite(excess) & free
        return _echoes(real, excess, (near[1], far[1]), (pair.near.wall, pair.far.wall), found - paths)

    lists = (tiles.boxes, tiles.walls, pairs)
    return _masked(in_groups(kernel, tiles, lists, directions), tiles, directions)


def mirror_test(wall: Walls, x, y, z, direction):
    """Distance in front of a wall, s . n, and whether the wall, alone in the world, reflects s to the receiver."""
    dx, dy = x - wall.x, y - wall.y
    front, along = dx * wall.tangent_y - dy * wall.tangent_x, dx * wall.tangent_x + dy * wall.tangent_y
    east, north, up = direction
    facing = east * wall.tangent_y - north * wall.tangent_x
    sideways = east * wall.tangent_x + north * wall.tangent_y
    on_wall = jnp.abs(along * facing + front * sideways) <= wall.half * facing
    below_top = front * up < (wall.top - z) * facing
    return front, facing, on_wall & below_top & (front > 0) & (facing > _GRAZING)


def _components(directions):
    """East, north, up, ``[G, 1]`` each."""
    return tuple(directions[:, i, None] for i in range(3))


def _mirrored(direction, wall, facing):
    """Direction s - 2 (s . n) n."""
    east, north, up = direction
    return east - 2 * facing * wall.tangent_y, north + 2 * facing * wall.tangent_x, up


def _shortest(rows, steps, excess_of, paths, max_excess_m, tile):
    """Excess ``[K, G, C]`` of the K least, their positions in the list, and the number of all that are short enough."""
    shape = GROUP, tile.source.shape[-1]
    slots = [(jnp.full(shape, jnp.inf, jnp.float32), jnp.zeros(shape, jnp.int32)) for _ in range(paths)]

    def fold(carry, row, position):
        found, slots = carry
        excess = excess_of(row)
        excess = jnp.where(excess < max_excess_m, excess, jnp.inf)
        found += jnp.isfinite(excess)
        position = jnp.broadcast_to(position, shape).astype(jnp.int32)
        sorted_slots = []
        for best, where in slots:
            shorter = excess < best
            sorted_slots.append((jnp.where(shorter, excess, best), jnp.where(shorter, position, where)))
            excess, position = jnp.where(shorter, best, excess), jnp.where(shorter, where, position)
        return found, sorted_slots

    found = jnp.zeros(shape, jnp.int32)
    if rows.reach.shape[-1]:
        found, slots = visit(rows, steps, fold, (found, slots))
    excess, position = (jnp.stack(part) for part in zip(*slots, strict=True))
    return excess, position, found


def _rows(rows, position):
    """The rows of a list at positions of any shape; zeros if the list is empty."""
    if not rows.reach.shape[-1]:
        return jax.tree.map(lambda field: jnp.zeros(position.shape, field.dtype), rows)
    return jax.tree.map(lambda field: field[position], rows)


def _free(surroundings, steps, start, bounces, sky):
    """Whether all legs of a path are free; bounces from the receiver on, each (wall, distance in front, s . n)."""
    aims = [sky]
    for wall, _, facing in reversed(bounces):
        aims.insert(0, _mirrored(aims[0], wall, facing))
    stops = [front / jnp.maximum(facing, _GRAZING) for _, front, facing in bounces]  # along the unfolded path
    margins = [OFF_WALL_M / jnp.maximum(facing, _GRAZING) for _, _, facing in bounces]
    hits = [tuple(part + jnp.zeros_like(stops[0]) for part in start)]
    for aim, since, until in zip(aims, [0.0, *stops], stops, strict=False):
        hits.append(tuple(part + (until - since) * step for part, step in zip(hits[-1], aim, strict=True)))
    legs = []
    joints = zip(aims, hits, [0.0, *stops], [*stops, jnp.inf], [0.0, *margins], [*margins, 0.0], strict=True)
    for (east, north, up), (x, y, z), since, until, skip, margin in joints:
        begin = x + skip * east, y + skip * north, z + skip * up
        legs.append((*begin, east / up, north / up, up * (until - since - skip - margin)))
    x, y, z, slope_x, slope_y, climb = (jnp.stack(jnp.broadcast_arrays(*part)) for part in zip(*legs, strict=True))
    return ~blocked(surroundings, steps, (x, y, z), (slope_x, slope_y), climb).any(axis=0)


def _echoes(real, excess, cosines, walls, missed):
    """Echoes of a group, ``[G, K, C]``."""

    def field(value, nothing):
        return jnp.moveaxis(jnp.where(real, value, nothing), 0, 1)

    return Echoes(
        field(excess, jnp.inf),
        field(cosines[0], 1.0),
        field(cosines[1], 1.0),
        field(walls[0], -1),
        field(walls[1], -1),
        jnp.maximum(missed, 0),
    )


def _masked(echoes, tiles, directions):
    """No echoes below the elevation mask and indoors."""
    seen = observable(tiles, directions)
    shown = seen[:, :, None]
    return echoes._replace(
        excess_m=jnp.where(shown, echoes.excess_m, jnp.inf),
        wall=jnp.where(shown, echoes.wall, -1),
        second=jnp.where(shown, echoes.second, -1),
        missed=jnp.where(seen, echoes.missed, 0),
    )
