"""Pairs of walls that can reflect one after the other, listed per tile: mostly the two sides of a street."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from jaxalign.gnss.city import City
from jaxalign.gnss.tiles import Tiles, Walls, disc_gap, pad, take, walls_of


class Pairs(NamedTuple):
    """Walls that reflect one after the other, ``[T, P]`` each.

    Attributes:
        near: the wall nearest to the receiver along the path.
        far: the wall nearest to the satellite.
        reach: tangent of the highest elevation of such a path.
    """

    near: Walls
    far: Walls
    reach: Float[Array, "*T P"]


def facing_pairs(
    city: City, tiles: Tiles, *, range_m: float = 100.0, most_cos: float = -0.8, wall_range_m: float = 150.0
) -> Pairs:
    """The pairs of every tile, highest in the sky first.

    Args:
        city: of which the tiles were made.
        tiles: whose reflectors come first on the path.
        range_m: largest distance between the two walls.
        most_cos: largest cosine between the normals; -0.8 keeps the sides of a street, 1 also keeps corners.
        wall_range_m: farthest first wall.
    """
    walls, _ = walls_of(city)
    place = np.argsort(walls.wall)
    receivers, source = np.asarray(tiles.receivers, float), np.asarray(tiles.source)
    listed, reach = np.asarray(tiles.reflectors.wall), np.asarray(tiles.reflectors.reach)
    rows = []
    for t, centre in enumerate(np.asarray(tiles.centre, float)):
        points = receivers[t][source[t] >= 0] + (*centre, 0.0)
        if not len(points):
            rows.append((take(walls, slice(0, 0)), take(walls, slice(0, 0))))
            continue
        low, high = points.min(axis=0), points.max(axis=0)
        near = take(walls, place[listed[t][reach[t] > 0]])
        near = take(near, disc_gap(near, near.half, low, high) < wall_range_m)
        rows.append(_pairs(near, walls, low, high, float(tiles.mask_tan[0]), (range_m, most_cos)))
        rows[-1] = tuple(side._replace(x=side.x - centre[0], y=side.y - centre[1]) for side in rows[-1])
    near, far = (pad([row[side] for row in rows]) for side in (0, 1))
    return Pairs(near, far, near.reach)


def _pairs(near, walls, low, high, mask_tan, limits):
    """Both sides of the pairs of one tile, with the reach of the pair."""
    range_m, most_cos = limits
    if not len(near.x):
        return near, near
    box = np.array([near.x - near.half, near.y - near.half]).min(axis=1) - range_m
    corner = np.array([near.x + near.half, near.y + near.half]).max(axis=1) + range_m
    far = take(walls, disc_gap(walls, walls.half, box, corner) <= 0)
    far_reach = (far.top - low[2]) / np.maximum(disc_gap(far, far.half, low, high), 1e-3) * (1 + 1e-5)
    far = take(far._replace(reach=far_reach), far_reach > mask_tan)
    near_reach = (near.top - low[2]) / np.maximum(disc_gap(near, near.half, low, high), 1e-3) * (1 + 1e-5)
    near = near._replace(reach=near_reach)
    cos = np.outer(near.tangent_x, far.tangent_x) + np.outer(near.tangent_y, far.tangent_y)
    gap = np.hypot(near.x[:, None] - far.x, near.y[:, None] - far.y) - near.half[:, None] - far.half
    allowed = (cos <= most_cos) & (gap < range_m) & (_in_front(near, far) > 0.01) & (_in_front(far, near).T > 0.01)
    first, second = np.nonzero(allowed)
    reach = np.minimum(near.reach[first], far.reach[second])
    order = np.argsort(-reach, kind="stable")
    sides = take(near, first[order]), take(far, second[order])
    return tuple(side._replace(reach=reach[order]) for side in sides)


def _in_front(wall, other):
    """How far `other` [m] extends in front of `wall` [n], m."""
    normal_x, normal_y = wall.tangent_y[:, None], -wall.tangent_x[:, None]
    middle = (other.x - wall.x[:, None]) * normal_x + (other.y - wall.y[:, None]) * normal_y
    return middle + np.abs(other.half * (other.tangent_x * normal_x + other.tangent_y * normal_y))
