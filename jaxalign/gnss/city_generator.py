"""Cities from a seed: blocks between canyons, courtyards, one plaza, one boulevard, polygonal footprints."""

from typing import NamedTuple

import numpy as np

from jaxalign.core.errors import UserError
from jaxalign.gnss.city import Building, City, make_city
from jaxalign.gnss.frames import Geodetic


class Plan(NamedTuple):
    """What a generated city looks like; lengths in m.

    Attributes:
        blocks: number of blocks along both axes.
        block_m: side of a block.
        street_m: narrowest and widest canyon.
        boulevard_m: width of the one wide street, in the middle.
        height_m: median of the log-normal heights.
        height_spread: standard deviation of the logarithm of the heights.
        height_limits_m: lowest and highest building.
        courtyard_share: share of blocks that are one building around a courtyard.
        plain: only rectangles, no courtyards: the fast path of the rays.
        rotation_rad: of the street grid against north.
        plaza: leave one block empty.
    """

    blocks: tuple[int, int] = (6, 6)
    block_m: float = 80.0
    street_m: tuple[float, float] = (12.0, 30.0)
    boulevard_m: float = 45.0
    height_m: float = 30.0
    height_spread: float = 0.5
    height_limits_m: tuple[float, float] = (6.0, 200.0)
    courtyard_share: float = 0.15
    plain: bool = False
    rotation_rad: float = 0.2
    plaza: bool = True


MATERIALS = ("concrete", "brick", "glass")
MATERIAL_SHARES = (0.5, 0.3, 0.2)


def generate_city(seed: int, plan: Plan = Plan(), origin: Geodetic | None = None) -> City:
    """The city of a seed, centred on the origin of its frame.

    Every block is either one building around a courtyard or four lots, each with a rectangle, an L, a chamfered
    rectangle or a hexagon.

    Args:
        seed: two cities of the same seed and plan are equal.
        plan: sizes and shares.
        origin: of the local frame.

    Raises:
        UserError: no blocks, or sizes that are not positive.
    """
    if min(plan.blocks) < 1 or plan.block_m <= 0 or not 0 < plan.street_m[0] <= plan.street_m[1]:
        raise UserError(
            f"A plan of {plan.blocks} blocks of {plan.block_m} m with streets of {plan.street_m} m cannot be built; "
            "give at least one block and positive sizes, narrowest street first."
        )
    rng = np.random.default_rng(seed)
    left, bottom = (_block_edges(rng, plan, axis) for axis in (0, 1))
    plaza = tuple(count // 2 for count in plan.blocks) if plan.plaza and max(plan.blocks) > 1 else None
    buildings = []
    for i, x in enumerate(left):
        for j, y in enumerate(bottom):
            if (i, j) != plaza:
                buildings += _block(rng, plan, np.array([x, y]))
    middle = np.array([left[0] + left[-1], bottom[0] + bottom[-1]]) / 2 + plan.block_m / 2
    c, s = np.cos(plan.rotation_rad), np.sin(plan.rotation_rad)
    turn = np.array([[c, s], [-s, c]])
    placed = (b._replace(rings=tuple((ring - middle) @ turn for ring in b.rings)) for b in buildings)
    return make_city(placed, origin=origin)


def _block_edges(rng, plan, axis):
    """Lower edges of the blocks along an axis; the boulevard crosses the first axis in the middle."""
    streets = rng.uniform(*plan.street_m, size=plan.blocks[axis])
    if axis == 0:
        streets[(plan.blocks[0] - 1) // 2] = plan.boulevard_m
    return np.concatenate([[0.0], np.cumsum(plan.block_m + streets)[:-1]])


def _block(rng, plan, corner):
    if not plan.plain and rng.uniform() < plan.courtyard_share:
        depth = plan.block_m * rng.uniform(0.2, 0.3)
        outer = corner + plan.block_m * _SQUARE
        hole = corner + depth + (plan.block_m - 2 * depth) * _SQUARE
        return [_building(rng, plan, (outer, hole))]
    lot = plan.block_m / 2
    lots = [corner + lot * np.array([i, j]) for i in (0, 1) for j in (0, 1)]
    return [_building(rng, plan, (_footprint(rng, plan, place, lot),)) for place in lots]


def _building(rng, plan, rings):
    height = float(np.clip(plan.height_m * np.exp(plan.height_spread * rng.normal()), *plan.height_limits_m))
    return Building(rings, height, material=str(rng.choice(MATERIALS, p=MATERIAL_SHARES)))


def _footprint(rng, plan, place, lot):
    shape = _SQUARE if plan.plain else _SHAPES[rng.choice(len(_SHAPES), p=_SHAPE_SHARES)]
    turn = rng.integers(4)
    for _ in range(turn):
        shape = np.stack([1 - shape[:, 1], shape[:, 0]], axis=1)
    size = lot * rng.uniform(0.7, 0.98, size=2)
    tilt = rng.normal(0, 0.01)
    c, s = np.cos(tilt), np.sin(tilt)
    return place + lot / 2 + (size * (shape - 0.5)) @ np.array([[c, s], [-s, c]])


_SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
_L = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.45], [0.5, 0.45], [0.5, 1.0], [0.0, 1.0]])
_CHAMFERED = np.array([[0.0, 0.0], [0.75, 0.0], [1.0, 0.25], [1.0, 1.0], [0.0, 1.0]])
_HEXAGON = np.array([[0.25, 0.0], [0.75, 0.0], [1.0, 0.5], [0.75, 1.0], [0.25, 1.0], [0.0, 0.5]])
_SHAPES = (_SQUARE, _L, _CHAMFERED, _HEXAGON)
_SHAPE_SHARES = (0.55, 0.2, 0.15, 0.1)
