"""Occlusion and nearest hit of rays from receivers to satellites, by dense arithmetic over tiled lists.

A satellite is a plane wave, so all rays of one satellite are parallel: a ray climbs from its start by h metres while it
moves by h times its slope, slope = (east, north) / up of the direction. A prism blocks it if the start lies in the
prism's shadow. The shadow of a box is its footprint swept along -slope * (top - z): a hexagon, bounded by three strips.
The shadow of a wall is a parallelogram. Either is tested without a division and without a special case; the signed gap
is at most 0 inside.

Only walls that face the ray's start are tested (a ray that leaves a prism below its top has entered it below its top),
which is right for rays that start in the open.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxalign.gnss.tiles import CHUNK, Boxes, Tiles, Walls

GROUP = 8  # satellites of neighbouring elevation that visit the same number of list entries
_STEEPEST = 1e6


def box_gap(box: Boxes, x, y, slope_x, slope_y, climb):
    """At most 0 where the ray from (x, y) meets the plan of a box within `climb` metres of ascent."""
    dx, dy = x - box.x, y - box.y
    along, across = dx * box.cos + dy * box.sin, dy * box.cos - dx * box.sin
    run_x, run_y = slope_x * box.cos + slope_y * box.sin, slope_y * box.cos - slope_x * box.sin
    half = 0.5 * climb
    strip_x = jnp.abs(along + half * run_x) - (box.half_x + half * jnp.abs(run_x))
    strip_y = jnp.abs(across + half * run_y) - (box.half_y + half * jnp.abs(run_y))
    strip = jnp.abs(along * run_y - across * run_x) - (box.half_x * jnp.abs(run_y) + box.half_y * jnp.abs(run_x))
    return jnp.maximum(jnp.maximum(strip_x, strip_y), jnp.maximum(strip, -climb))


def wall_gap(wall: Walls, x, y, slope_x, slope_y, climb):
    """At most 0 where the ray from (x, y) meets the front of a wall within `climb` metres of ascent."""
    dx, dy = x - wall.x, y - wall.y
    front, along = dx * wall.tangent_y - dy * wall.tangent_x, dx * wall.tangent_x + dy * wall.tangent_y
    towards = slope_y * wall.tangent_x - slope_x * wall.tangent_y
    sideways = slope_x * wall.tangent_x + slope_y * wall.tangent_y
    half = 0.5 * climb * towards
    strip = jnp.abs(along * towards + front * sideways) - wall.half * towards
    return jnp.maximum(jnp.maximum(strip, jnp.abs(front - half) - half), -climb)


def visit(rows, steps, fold, carry):
    """`fold(carry, row, position)` over the first `steps` chunks of a tile's list."""

    def chunk(k, carry):
        part = jax.tree.map(lambda field: lax.dynamic_slice_in_dim(field, k * CHUNK, CHUNK), rows)
        for i in range(CHUNK):
            carry = fold(carry, jax.tree.map(lambda field, i=i: field[i], part), k * CHUNK + i)
        return carry

    return lax.fori_loop(0, steps, chunk, carry)


def steps_above(rows, tangent):
    """Chunks ``[..., T]`` of every tile's list that hold something reaching above elevations of tangent ``[...]``."""
    return (rows.reach[..., ::CHUNK] > tangent[..., None, None]).sum(-1).astype(jnp.int32)


def blocked(surroundings, steps, start, slope, climb) -> Array:
    """Whether boxes or walls cut rays.

    Args:
        surroundings: boxes and walls of one tile.
        steps: chunks of either list to visit.
        start: x, y and z of the starts, m, shapes that broadcast together with those of `slope` and `climb`.
        slope: x and y of direction / up.
        climb: ascent at which the ray ends, m; ``inf`` for rays to a satellite.
    """
    x, y, z = start
    shape = jnp.broadcast_shapes(*(jnp.shape(part) for part in (*start, *slope, climb)))

    def fold(gap_of):
        return lambda gap, row, _: jnp.minimum(gap, gap_of(row, x, y, *slope, jnp.minimum(row.top - z, climb)))

    gap = jnp.full(shape, jnp.inf, jnp.float32)
    for rows, gap_of, count in zip(surroundings, (box_gap, wall_gap), steps, strict=True):
        if rows.x.shape[-1]:
            gap = visit(rows, count, fold(gap_of), gap)
    return gap <= 0


def tiles_at_once(count: int) -> int:
    """On a CPU one tile at a time, which stays in the cache and ends its own loops; on an accelerator all."""
    return 1 if jax.default_backend() == "cpu" else count


def in_groups(kernel, tiles: Tiles, lists: tuple, directions: Float[Array, "S 3"], slack_tan: float = 0.0):
    """`kernel` over tiles and groups of satellites of similar elevation, results ``[T, S, ..., C]``.

    Args:
        kernel: ``(tile, lists, directions [G, 3], steps) -> tree of [G, ..., C]``; `steps` are the chunks to visit of
            each list.
        tiles: T tiles.
        lists: per tile, with a ``reach``, highest first.
        directions: unit vectors to the satellites, east, north, up; those below the mask are taken at the mask.
        slack_tan: lowers the tangent of elevation from which on list entries are visited.
    """
    directions = _above(directions, tiles.mask_tan[0])
    tangent = directions[:, 2] / jnp.hypot(directions[:, 0], directions[:, 1]).clip(1 / _STEEPEST)
    order = jnp.argsort(tangent)
    spare = -len(order) % GROUP
    padded = jnp.concatenate([directions[order], jnp.tile(jnp.array([[0.0, 0.0, 1.0]], jnp.float32), (spare, 1))])
    groups = padded.reshape(-1, GROUP, 3)
    lowest = tangent[order[::GROUP]] - slack_tan
    steps = jnp.stack([steps_above(rows, lowest) for rows in lists])  # [lists, groups, T]
    together = tiles_at_once(tiles.source.shape[0])
    slabs = tiles.source.shape[0] // together

    def slab(args):
        part, steps = args
        most = steps.max(axis=-1)

        def group(args):
            directions, steps = args
            return jax.vmap(lambda tile, rows: kernel(tile, rows, directions, steps))(*part)

        return lax.map(group, (groups, most.T))

    def unsort(values):  # [slabs, groups, together, GROUP, ...] -> [T, S, ...]
        values = jnp.moveaxis(values, 2, 1)
        values = values.reshape(-1, groups.shape[0] * GROUP, *values.shape[4:])
        return values[:, jnp.argsort(order)]

    split = jax.tree.map(lambda field: field.reshape(slabs, together, *field.shape[1:]), (tiles, lists))
    steps = jnp.moveaxis(steps.reshape(*steps.shape[:2], slabs, together), 2, 0)
    return jax.tree.map(unsort, lax.map(slab, (split, steps)))


def _above(directions, mask_tan):
    """Directions, lifted to the mask where they are lower."""
    flat = jnp.hypot(directions[:, 0], directions[:, 1])
    return directions.at[:, 2].set(jnp.maximum(directions[:, 2], flat * mask_tan))


def slope_of(directions: Float[Array, "G 3"]) -> tuple[Array, Array]:
    """East and north per metre of ascent, ``[G, 1]`` each."""
    return directions[:, :1] / directions[:, 2:], directions[:, 1:2] / directions[:, 2:]


def place_of(tile: Tiles) -> tuple[Array, Array, Array]:
    """x, y and z of a tile's receivers, ``[C]`` each."""
    return tile.receivers[:, 0], tile.receivers[:, 1], tile.receivers[:, 2]


def observable(tiles: Tiles, directions: Float[Array, "S 3"]) -> Bool[Array, "T S C"]:
    """Where an answer means something: the satellite is above the elevation mask and the receiver is outdoors."""
    above = directions[:, 2] >= jnp.hypot(directions[:, 0], directions[:, 1]) * tiles.mask_tan[0]
    return above[:, None] & ~tiles.indoors[:, None]


@jax.jit
def occluded(tiles: Tiles, directions: Float[Array, "S 3"]) -> Bool[Array, "T S C"]:
    """Whether a building blocks the straight line to a satellite; true below the elevation mask and indoors.

    Args:
        tiles: T tiles of C receivers.
        directions: unit vectors to the satellites (of all epochs, one after the other), east, north, up.
    """

    def kernel(tile, lists, directions, steps):
        return blocked(lists, steps, place_of(tile), slope_of(directions), jnp.float32(jnp.inf))

    return in_groups(kernel, tiles, (tiles.boxes, tiles.walls), directions) | ~observable(tiles, directions)


@jax.jit
def nearest_hit(tiles: Tiles, directions: Float[Array, "S 3"]) -> tuple[Float[Array, "T S C"], Int[Array, "T S C"]]:
    """Distance (m, inf if none) to the first building on the line to a satellite, and its number (-1 if none).

    Satellites below the elevation mask are taken at the mask; indoors the answer means nothing (``observable``).
    """

    def kernel(tile, lists, directions, steps):
        x, y, z = place_of(tile)
        slope = slope_of(directions)

        def fold(gap_of, entry_of):
            def closer(best, row, _):
                climb, building = best
                entry = entry_of(row, x, y, *slope)
                hit = (gap_of(row, x, y, *slope, row.top - z) <= 0) & (entry < climb)
                return jnp.where(hit, entry, climb), jnp.where(hit, row.building, building)

            return closer

        shape = directions.shape[0], x.shape[0]
        best = jnp.full(shape, jnp.inf, jnp.float32), jnp.full(shape, -1, jnp.int32)
        functions = (box_gap, box_entry), (wall_gap, wall_entry)
        for rows, count, (gap_of, entry_of) in zip(lists, steps, functions, strict=True):
            if rows.x.shape[-1]:
                best = visit(rows, count, fold(gap_of, entry_of), best)
        return best[0] / directions[:, 2:], best[1]

    return in_groups(kernel, tiles, (tiles.boxes, tiles.walls), directions)


def box_entry(box: Boxes, x, y, slope_x, slope_y):
    """Ascent at which the ray enters the plan of a box, if it does; 0 where it starts inside."""
    dx, dy = x - box.x, y - box.y
    along, across = dx * box.cos + dy * box.sin, dy * box.cos - dx * box.sin
    run_x, run_y = slope_x * box.cos + slope_y * box.sin, slope_y * box.cos - slope_x * box.sin
    entries = [-(place * _inverse(run) + half * jnp.abs(_inverse(run)))
               for place, run, half in ((along, run_x, box.half_x), (across, run_y, box.half_y))]  # fmt: skip
    return jnp.maximum(jnp.maximum(*entries), 0.0)


def wall_entry(wall: Walls, x, y, slope_x, slope_y):
    """Ascent at which the ray crosses the plane of a wall."""
    front = (x - wall.x) * wall.tangent_y - (y - wall.y) * wall.tangent_x
    return front * _inverse(slope_y * wall.tangent_x - slope_x * wall.tangent_y)


def _inverse(run):
    return 1.0 / jnp.where(jnp.abs(run) < 1e-9, 1e-9, run)
