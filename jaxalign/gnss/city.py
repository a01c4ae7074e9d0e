"""A city of ground-standing prisms: polygonal footprints, courtyards as holes, flat tops. NumPy, float64, local metres.

Coordinates are x east, y north, z up around ``City.origin``. The outer ring of a footprint runs counter-clockwise and
its holes clockwise, so that the open air is always to the right of a wall. The ground is z = 0; a city on a slope is
laid flat, every building standing on its own foot.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxalign.core.errors import UserError
from jaxalign.gnss.frames import Geodetic

Points = Float[np.ndarray, "n 2"]


class Building(NamedTuple):
    """One prism.

    Attributes:
        rings: outer ring first, then holes; corners ``[n, 2]`` in m, the first not repeated.
        top_m: height of the flat top above the ground, m.
        name: unique name for messages and files.
        material: of the walls, a name of :mod:`jaxalign.gnss.materials`.
    """

    rings: tuple[Points, ...]
    top_m: float
    name: str = ""
    material: str = "concrete"


class City(NamedTuple):
    """All buildings as flat arrays; W walls in order of ring, R rings, B buildings.

    Attributes:
        start: first corner of every wall, m; the second is the next of its ring.
        ring: ring of every wall.
        ring_building: building of every ring; a building's first ring is its outer one.
        top_m: height of the tops, m.
        names: of the buildings.
        materials: of the buildings' walls.
        origin: where the local frame touches the ellipsoid, None if the city stands nowhere on Earth.
        notes: one sentence per thing that was left out or assumed when the city was made.
    """

    start: Float[np.ndarray, "W 2"]
    ring: Int[np.ndarray, " W"]
    ring_building: Int[np.ndarray, " R"]
    top_m: Float[np.ndarray, " B"]
    names: tuple[str, ...]
    materials: tuple[str, ...]
    origin: Geodetic | None = None
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Number of buildings."""
        return len(self.top_m)

    @property
    def end(self) -> Float[np.ndarray, "W 2"]:
        """Second corner of every wall, m."""
        following = np.arange(1, len(self.ring) + 1)
        last = np.flatnonzero(np.diff(self.ring, append=-1))
        following[last] = np.concatenate([[0], last[:-1] + 1])
        return self.start[following]

    @property
    def wall_building(self) -> Int[np.ndarray, " W"]:
        """Building of every wall."""
        return self.ring_building[self.ring]

    def bounds(self) -> Float[np.ndarray, "2 2"]:
        """Lowest and highest x and y, m."""
        return np.stack([self.start.min(axis=0), self.start.max(axis=0)])


def make_city(
    buildings: Iterable[Building],
    *,
    origin: Geodetic | None = None,
    strict: bool = True,
    notes: tuple[str, ...] = (),
) -> City:
    """A city of valid buildings.

    Args:
        buildings: prisms; the sense of rings is mended, closing points and doubled corners are removed, and of equal
            names all but the first are numbered.
        origin: of the local frame.
        strict: refuse the first bad building; else leave it out and say so in ``City.notes``.
        notes: sentences to keep.

    Raises:
        UserError: no building is left; if strict, a ring with fewer than three corners or no area, one that crosses
            itself, a hole that is not within the outer ring, a corner or height that is not finite, or a height that
            is not positive.
    """
    kept, left_out = [], []
    cleaned = _apart([_cleaned(number, building) for number, building in enumerate(buildings)])
    for building, complaint in zip(cleaned, _complaints(cleaned), strict=True):
        if complaint and strict:
            raise UserError(complaint)
        if complaint:
            left_out.append(f"{complaint} It was left out.")
        else:
            kept.append(building)
    if not kept:
        why = left_out[0] if left_out else "The list is empty."
        raise UserError(f"The city has no usable building. {why}")
    rings = [ring for building in kept for ring in building.rings]
    return City(
        start=np.concatenate(rings),
        ring=np.repeat(np.arange(len(rings)), [len(ring) for ring in rings]),
        ring_building=np.repeat(np.arange(len(kept)), [len(building.rings) for building in kept]),
        top_m=np.array([building.top_m for building in kept], float),
        names=tuple(building.name for building in kept),
        materials=tuple(building.material for building in kept),
        origin=origin,
        notes=(*notes, *left_out),
    )


def buildings_of(city: City) -> list[Building]:
    """The prisms that `city` was made of."""
    corners = np.split(city.start, np.flatnonzero(np.diff(city.ring)) + 1)
    rings = [[] for _ in range(city.size)]
    for ring, building in zip(corners, city.ring_building, strict=True):
        rings[building].append(ring)
    columns = zip(rings, city.top_m, city.names, city.materials, strict=True)
    return [Building(tuple(part), float(top), name, material) for part, top, name, material in columns]


def rectangles(city: City) -> Float[np.ndarray, "B 5"]:
    """Centre x, y, half-lengths and angle (m, rad) of buildings that are rectangles; NaN for the others."""
    shape = np.full((city.size, 5), np.nan)
    rings, corners = np.bincount(city.ring_building, minlength=city.size), np.bincount(city.ring)
    candidate = (rings[city.ring_building] == 1) & (corners == 4)
    quads = city.start[candidate[city.ring]].reshape(-1, 4, 2)
    first, second = quads[:, 1] - quads[:, 0], quads[:, 3] - quads[:, 0]
    lengths = np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1)
    skew = np.abs((first * second).sum(1)) / (lengths[0] * lengths[1])
    opposite = np.linalg.norm(quads[:, 0] + first + second - quads[:, 2], axis=1)
    right = (skew * np.maximum(*lengths) < 1e-4) & (opposite < 1e-4)
    values = (*quads.mean(axis=1).T, lengths[0] / 2, lengths[1] / 2, np.arctan2(first[:, 1], first[:, 0]))
    shape[city.ring_building[candidate][right]] = np.stack(values, axis=1)[right]
    return shape


def inside(city: City, points_m: Float[np.ndarray, "n dim"]) -> Bool[np.ndarray, " n"]:
    """Which points lie in a building's footprint (not in its courtyard); with a z, only those below its top count."""
    found = np.zeros(len(points_m), bool)
    order = np.argsort(points_m[:, 0], kind="stable")
    x, y, *z = points_m[order].T
    starts, ends = city.start, city.end
    first_wall = np.searchsorted(city.wall_building, np.arange(city.size + 1))
    low = np.stack([np.minimum.reduceat(starts[:, axis], first_wall[:-1]) for axis in (0, 1)], axis=1)
    high = np.stack([np.maximum.reduceat(starts[:, axis], first_wall[:-1]) for axis in (0, 1)], axis=1)
    begin, stop = np.searchsorted(x, low[:, 0]), np.searchsorted(x, high[:, 0])
    for b in np.flatnonzero(stop > begin):
        near = np.arange(begin[b], stop[b])
        near = near[(y[near] >= low[b, 1]) & (y[near] <= high[b, 1])]
        if z:
            near = near[z[0][near] < city.top_m[b]]
        walls = slice(first_wall[b], first_wall[b + 1])
        found[order[near]] |= _crossings(x[near], y[near], starts[walls], ends[walls]) % 2 == 1
    return found


def outdoor_grid(
    city: City, spacing_m: float = 3.0, height_m: float = 1.5, area: Float[np.ndarray, "2 2"] | None = None
) -> Float[np.ndarray, "N 3"]:
    """Centres (m) of the square cells that lie outdoors, `height_m` above the ground.

    Args:
        city: the buildings.
        spacing_m: side of a cell.
        height_m: of the antenna.
        area: lowest and highest x and y; the city's bounds if None.

    Raises:
        UserError: a spacing that is not positive, or no cell outdoors.
    """
    if not spacing_m > 0:
        raise UserError(f"The grid spacing is {spacing_m} m; give a positive number, 3 for example.")
    low, high = city.bounds() if area is None else np.asarray(area, float)
    axes = [np.arange(a + spacing_m / 2, b, spacing_m) for a, b in zip(low, high, strict=True)]
    points = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    points = points[~inside(city, points)]
    if not len(points):
        raise UserError(f"No cell of {spacing_m} m within {low} to {high} m lies outdoors; give another area.")
    return np.concatenate([points, np.full((len(points), 1), height_m)], axis=1)


def _crossings(x, y, start, end):
    """Number of walls [w] that a ray from each point [p] towards +x crosses."""
    (x0, y0), (x1, y1) = start.T, end.T
    spans = (y0 > y[:, None]) != (y1 > y[:, None])
    rise = np.where(y1 == y0, 1.0, y1 - y0)
    return (spans & (x[:, None] < x0 + (y[:, None] - y0) * (x1 - x0) / rise)).sum(axis=1)


def _signed_area(ring):
    x, y = (ring - ring[0]).T
    return 0.5 * float(x @ np.roll(y, -1) - y @ np.roll(x, -1))


def _cleaned(number, building):
    """The building with a name, without repeated corners, outer ring counter-clockwise and holes clockwise."""
    rings = []
    for place, ring in enumerate(building.rings):
        points = np.asarray(ring, float).reshape(-1, 2)
        points = points[np.linalg.norm(points - np.roll(points, 1, axis=0), axis=1) > 1e-6]
        if len(points) >= 3 and (_signed_area(points) < 0) == (place == 0):
            points = points[::-1]
        rings.append(points)
    return building._replace(rings=tuple(rings), name=building.name or f"building-{number}")


def _apart(buildings):
    """The buildings under names of which there is one each."""
    taken, out = {building.name for building in buildings}, []
    seen = set()
    for building in buildings:
        name, number = building.name, 1
        while name in seen or (number > 1 and name in taken):
            number += 1
            name = f"{building.name}#{number}"
        seen.add(name)
        out.append(building._replace(name=name))
    return out


def _complaints(buildings):
    """What is wrong with each building, empty if nothing."""
    said = [_height_complaint(building) or _corner_complaint(building) for building in buildings]
    for number, place in _self_crossing([() if said[i] else b.rings for i, b in enumerate(buildings)]):
        said[number] = (
            f"Building {buildings[number].name}: ring {place} of its footprint crosses itself; "
            "repair it (shapely.make_valid does) or remove the building."
        )
    said = [complaint or _area_complaint(building) for complaint, building in zip(said, buildings, strict=True)]
    return [complaint or _hole_complaint(building) for complaint, building in zip(said, buildings, strict=True)]


def _height_complaint(building):
    if np.isfinite(building.top_m) and building.top_m > 0:
        return ""
    return f"Building {building.name} has height {building.top_m:g} m; give a positive height or remove the building."


def _corner_complaint(building):
    if not building.rings:
        return f"Building {building.name} has no footprint; give at least one ring."
    for place, ring in enumerate(building.rings):
        if len(ring) < 3 or not np.isfinite(ring).all():
            return (
                f"Building {building.name}: ring {place} of its footprint needs three or more distinct, finite "
                "corners; repair or remove it."
            )
    return ""


def _area_complaint(building):
    for place, ring in enumerate(building.rings):
        if abs(_signed_area(ring)) < 1e-3:
            return f"Building {building.name}: ring {place} of its footprint has no area; repair or remove it."
    return ""


def _hole_complaint(building):
    outer, *holes = building.rings
    following = np.roll(outer, -1, axis=0)
    for place, hole in enumerate(holes, 1):
        edges = hole[:, None], np.roll(hole, -1, axis=0)[:, None]
        if _segments_cross(*edges, outer, following).any() or not encloses(outer, hole):
            return (
                f"Building {building.name}: ring {place} of its footprint is not within the outer one; repair it "
                "(shapely.make_valid does) or make it a building of its own."
            )
    return ""


def encloses(outer: Points, inner: Float[np.ndarray, "k 2"]) -> bool:
    """Whether a ring goes around another, of two that do not cross; they may touch."""
    return bool(within(outer, np.concatenate([inner, (inner + np.roll(inner, -1, axis=0)) / 2])).mean() > 0.5)


def within(ring: Points, points: Float[np.ndarray, "k 2"]) -> Bool[np.ndarray, " k"]:
    """Which points a ring goes around."""
    x, y = points.T
    return _crossings(x, y, ring, np.roll(ring, -1, axis=0)) % 2 == 1


def _self_crossing(rings_per_building):
    """(building, ring) of rings of which two edges that are not neighbours touch; all rings of a length at once."""
    by_length = {}
    for number, rings in enumerate(rings_per_building):
        for place, ring in enumerate(rings):
            by_length.setdefault(len(ring), []).append((number, place, ring))
    for length, group in by_length.items():
        if length == 3:
            continue
        first, second = np.triu_indices(length, 2)
        apart = ~((first == 0) & (second == length - 1))
        first, second = first[apart], second[apart]
        block = max(1, 2_000_000 // len(first))
        for begin in range(0, len(group), block):
            part = group[begin : begin + block]
            corners = np.stack([ring for *_, ring in part])
            a, b = corners, np.roll(corners, -1, axis=1)
            crossing = _segments_meet(a[:, first], b[:, first], a[:, second], b[:, second])
            for row in np.flatnonzero(crossing.any(axis=1)):
                yield part[row][:2]


def _side(p, q, r):
    """1 where r is left of the line from p to q, -1 right of it, 0 on it, [..., 2] each."""
    along, to = q - p, r - p
    return np.sign(along[..., 0] * to[..., 1] - along[..., 1] * to[..., 0])


def _segments_cross(a, b, c, d):
    """Whether segments a-b and c-d [..., 2] cross; to touch is not enough."""
    return (_side(a, b, c) * _side(a, b, d) < 0) & (_side(c, d, a) * _side(c, d, b) < 0)


def _segments_meet(a, b, c, d):
    """Whether segments a-b and c-d [..., 2] share a point."""
    across = (_side(a, b, c) * _side(a, b, d) <= 0) & (_side(c, d, a) * _side(c, d, b) <= 0)
    boxes = (np.maximum(a, b) >= np.minimum(c, d)) & (np.maximum(c, d) >= np.minimum(a, b))
    return across & boxes.all(axis=-1)
