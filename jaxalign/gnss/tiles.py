"""Receivers grouped into tiles, each with the list of walls and boxes that can matter to it, highest in the sky first.

For rays that rise at an elevation of at least E, a prism matters to a tile only if its top, seen from the tile, reaches
E: tan E <= (top - z) / distance. That is true of the direct ray and of every leg of a path of any number of wall
reflections: a reflected path climbs by tan E per metre of its length, which by the triangle inequality is at least the
distance between the receiver and the place where it meets the prism. So one list serves all kernels, and since it is
sorted by the elevation reached, a satellite only visits its beginning. No tree is walked, shapes are static, and the
cost of a ray does not depend on the size of the city.

Tiles hold exactly `capacity` receivers (the last one fewer), cut by repeated halving, so they follow the density of the
receivers. The first axis of every array counts tiles: split it over devices with ``dist.over_envs``.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxalign.core.errors import UserError
from jaxalign.gnss.city import City, inside, rectangles

CHUNK = 4  # entries of a list visited per step of a loop
FARTHEST_CITY_M = 3000.0
PADDING = 64  # lists are filled up to a multiple, so that similar cities share one compiled program
_NEVER = -1e9  # top of padded walls and boxes
_FAR_UP_M = 1e5  # where padded receivers are: they see everything

Column = Array | np.ndarray  # [M] while a list is made, then [T, M]


class Boxes(NamedTuple):
    """Rectangular prisms, arrays ``[T, M]``; lengths in m, places relative to the tile's centre."""

    x: Column
    y: Column
    cos: Column
    sin: Column
    half_x: Column
    half_y: Column
    top: Column
    reach: Column
    building: Column


class Walls(NamedTuple):
    """Walls by middle, unit tangent and half-length, ``[T, M]`` in m; the open air is at (tangent_y, -tangent_x)."""

    x: Column
    y: Column
    tangent_x: Column
    tangent_y: Column
    half: Column
    top: Column
    reach: Column
    building: Column
    wall: Column


class Tiles(NamedTuple):
    """Receivers and what surrounds them; T tiles of C receivers.

    Attributes:
        centre: of the tile in the city's frame, m; float64 until it enters a compiled program.
        receivers: x and y relative to the tile's centre, z above the city's ground, m.
        source: place of every receiver in the list it came from, -1 for padding.
        indoors: receivers inside a building and below its top; they see nothing.
        boxes: rectangular buildings that can block.
        walls: walls of the other buildings that can block.
        reflectors: walls that can reflect towards a receiver of the tile.
        mask_tan: tangent of the lowest elevation for which the lists are complete.
    """

    centre: Float[np.ndarray | Array, "T 2"]
    receivers: Float[Array, "T C 3"]
    source: Int[Array, "T C"]
    indoors: Bool[Array, "T C"]
    boxes: Boxes
    walls: Walls
    reflectors: Walls
    mask_tan: Float[Array, " T"]


def build_tiles(
    city: City,
    receivers_m: Float[np.ndarray, "N 3"],
    *,
    elevation_mask_rad: float = np.deg2rad(10.0),
    capacity: int = 128,
    reflector_range_m: float = 250.0,
    multiple: int = 1,
) -> Tiles:
    """Tiles of receivers with their lists.

    Args:
        city: the buildings.
        receivers_m: antennas, in the city's frame.
        elevation_mask_rad: lower satellites are reported as not visible; the lists grow with 1 / tan^2 of it.
        capacity: receivers per tile.
        reflector_range_m: farthest reflecting wall.
        multiple: the number of tiles is padded to a multiple of this, for splitting over devices.

    Raises:
        UserError: a mask outside (0, 90 degrees), no receivers, receivers that are not finite, or a city that is
            farther than 3 km from all of them.
    """
    receivers_m = np.asarray(receivers_m, float)
    _check(city, receivers_m, elevation_mask_rad)
    mask_tan = np.tan(elevation_mask_rad)
    groups = _halved(receivers_m[:, :2], np.arange(len(receivers_m)), capacity)
    groups += [np.array([], int)] * (-len(groups) % multiple)
    scene = (boxes_of(city), *walls_of(city))
    centres, *lists = zip(*(_tile(scene, receivers_m[ids], mask_tan, reflector_range_m) for ids in groups), strict=True)
    points = np.full((len(groups), capacity, 3), _FAR_UP_M)
    source = np.full((len(groups), capacity), -1, np.int32)
    for t, ids in enumerate(groups):
        points[t, : len(ids)] = receivers_m[ids] - (*centres[t], 0.0)
        source[t, : len(ids)] = ids
    indoors = inside(city, receivers_m)[source] & (source >= 0)
    return Tiles(
        np.array(centres),
        jnp.asarray(points, jnp.float32),
        jnp.asarray(source),
        jnp.asarray(indoors),
        *(pad(rows) for rows in lists),
        mask_tan=jnp.full(len(groups), mask_tan, jnp.float32),
    )


def by_receiver(tiles: Tiles, values: Array, count: int) -> Array:
    """Values ``[T, ..., C]`` per tile as ``[count, ...]`` in the order of the receivers that made the tiles."""
    slots = jnp.arange(tiles.source.size, dtype=jnp.int32)
    target = jnp.where(tiles.source < 0, count, tiles.source).reshape(-1)
    slot_of = jnp.zeros(count, jnp.int32).at[target].set(slots, mode="drop")
    rows = jnp.moveaxis(values, -1, 1)
    return rows.reshape(-1, *rows.shape[2:])[slot_of]


def _check(city, receivers_m, elevation_mask_rad):
    if not 0 < elevation_mask_rad < np.pi / 2:
        raise UserError(f"The elevation mask is {elevation_mask_rad} rad; give an angle between 0 and pi/2.")
    if len(receivers_m) == 0:
        raise UserError("There are no receivers; give at least one.")
    if not np.isfinite(receivers_m).all():
        bad = int(np.flatnonzero(~np.isfinite(receivers_m).all(axis=1))[0])
        raise UserError(f"Receiver {bad} is at {receivers_m[bad]} m; give finite coordinates.")
    low, high = city.bounds()
    gap = np.maximum(np.maximum(low - receivers_m[:, :2], receivers_m[:, :2] - high), 0.0)
    nearest = np.hypot(*gap.T).min()
    if nearest > FARTHEST_CITY_M:
        raise UserError(
            f"The nearest receiver is {nearest / 1000:.1f} km from the city; "
            "check that both use the same origin and coordinate system."
        )


def _halved(points, ids, capacity):
    """Index groups of exactly `capacity` points (the last fewer), halving the longer side."""
    if len(ids) <= capacity:
        return [ids]
    axis = np.argmax(np.ptp(points[ids], axis=0))
    cut = -(-len(ids) // capacity) // 2 * capacity
    order = ids[np.argpartition(points[ids, axis], cut)]
    return _halved(points, order[:cut], capacity) + _halved(points, order[cut:], capacity)


def take(rows, chosen):
    """The chosen rows of a list."""
    return type(rows)(*(field[chosen] for field in rows))


def boxes_of(city: City) -> Boxes:
    """The rectangular buildings, sorted by x; ``reach`` is still zero."""
    shape = rectangles(city)
    number = np.flatnonzero(np.isfinite(shape[:, 0]))
    number = number[np.argsort(shape[number, 0])]
    x, y, half_x, half_y, angle = shape[number].T
    return Boxes(x, y, np.cos(angle), np.sin(angle), half_x, half_y, city.top_m[number], 0.0 * x, number)


def walls_of(city: City) -> tuple[Walls, Bool[np.ndarray, " W"]]:
    """All walls, sorted by x, and which of them belong to no rectangular building; ``reach`` is still zero."""
    run, owner = city.end - city.start, city.wall_building
    length, middle = np.linalg.norm(run, axis=1), (city.start + city.end) / 2
    top, number = city.top_m[owner], np.arange(len(owner))
    (x, y), (tangent_x, tangent_y) = middle.T, (run / length[:, None]).T
    walls = Walls(x, y, tangent_x, tangent_y, length / 2, top, 0.0 * top, owner, number)
    walls = take(walls, np.argsort(walls.x))
    return walls, np.isnan(rectangles(city)[walls.building, 0])


def _tile(scene, points, mask_tan, reflector_range):
    """Centre, boxes, walls and reflectors of one tile."""
    boxes, walls, generic = scene
    if not len(points):
        nothing = slice(0, 0)
        return np.zeros(2), take(boxes, nothing), take(walls, nothing), take(walls, nothing)
    low, high = points.min(axis=0), points.max(axis=0)
    centre = (low[:2] + high[:2]) / 2
    boxes = take(boxes, _strip(boxes, np.hypot(boxes.half_x, boxes.half_y), low, high, mask_tan))
    strip = _strip(walls, walls.half, low, high, mask_tan)
    walls, generic = take(walls, strip), generic[strip]
    box_gap = disc_gap(boxes, np.hypot(boxes.half_x, boxes.half_y), low, high)
    radius = np.linalg.norm(points[:, :2] - centre, axis=1).max()
    wall_gap = np.maximum(disc_gap(walls, walls.half, low, high), _distance(walls, centre) - radius)
    in_range = (wall_gap < reflector_range) & (front_of(walls, low, high) > 0)

    def listed(rows, gap):
        return _listed(rows, gap, low[2], mask_tan, centre)

    return (
        centre,
        listed(boxes, box_gap),
        listed(take(walls, generic), wall_gap[generic]),
        listed(take(walls, in_range), wall_gap[in_range]),
    )


def _strip(rows, radius, low, high, mask_tan):
    """Slice of rows (sorted by x) that can matter to the rectangle low..high, by their x alone."""
    margin = max(rows.top.max(initial=0.0) - low[2], 0.0) / mask_tan + radius.max(initial=0.0)
    return slice(*np.searchsorted(rows.x, [low[0] - margin, high[0] + margin]))


def disc_gap(rows, radius, low, high):
    """Lower bound of the distance between the rectangle low..high and things within `radius` of their middle."""
    dx = np.maximum(np.maximum(low[0] - rows.x, rows.x - high[0]), 0.0)
    dy = np.maximum(np.maximum(low[1] - rows.y, rows.y - high[1]), 0.0)
    return np.hypot(dx, dy) - radius


def _distance(walls, point):
    """Distance of a point to walls."""
    dx, dy = point[0] - walls.x, point[1] - walls.y
    beyond = np.maximum(np.abs(dx * walls.tangent_x + dy * walls.tangent_y) - walls.half, 0.0)
    return np.hypot(beyond, dx * walls.tangent_y - dy * walls.tangent_x)


def front_of(walls, low, high):
    """How far the rectangle low..high extends in front of walls, m."""
    normal_x, normal_y = walls.tangent_y, -walls.tangent_x
    x, y = np.where(normal_x > 0, high[0], low[0]), np.where(normal_y > 0, high[1], low[1])
    return (x - walls.x) * normal_x + (y - walls.y) * normal_y


def _listed(rows, gap, lowest, mask_tan, centre):
    """Rows that can rise above the mask, highest in the sky first, relative to the centre, with their reach."""
    reach = (rows.top - lowest) / np.maximum(gap, 1e-3) * (1 + 1e-5)
    keep = np.flatnonzero(reach > mask_tan)
    keep = keep[np.argsort(-reach[keep], kind="stable")]
    rows = take(rows._replace(reach=reach), keep)
    return rows._replace(x=rows.x - centre[0], y=rows.y - centre[1])


def pad(lists):
    """Lists of one kind as arrays [T, M], M a multiple of PADDING; padding has no height and is never visited."""
    longest = max(len(rows.x) for rows in lists)
    size = -(-longest // PADDING) * PADDING
    kind = type(lists[0])
    arrays = {}
    for name in kind._fields:
        dtype = np.int32 if name in ("building", "wall") else np.float32
        arrays[name] = np.full((len(lists), size), _NEVER if name == "top" else 0, dtype)
        for t, rows in enumerate(lists):
            arrays[name][t, : len(rows.x)] = getattr(rows, name)
    return kind(**{name: jnp.asarray(value) for name, value in arrays.items()})
