"""Cities of the recordings, and small ones of a few walls, for the tests of the GNSS room."""

from pathlib import Path

import numpy as np

from jaxalign.gnss.city import Building, buildings_of, make_city

GOLDEN = Path(__file__).parent / "golden" / "gnss"


def footprints(boxes):
    """Corners [B, 4, 2], counter-clockwise, of boxes (cx, cy, hx, hy, angle, height) [B, 6]."""
    c, s = np.cos(boxes[:, 4, None]), np.sin(boxes[:, 4, None])
    x, y = boxes[:, 2, None] * [-1, 1, 1, -1], boxes[:, 3, None] * [-1, -1, 1, 1]
    return np.stack([boxes[:, 0, None] + c * x - s * y, boxes[:, 1, None] + s * x + c * y], axis=-1)


def box_city(boxes):
    return make_city(Building((ring,), float(height)) for ring, height in zip(footprints(boxes), boxes[:, 5]))


def as_polygons(city, every=1):
    """The same city of rectangles with a corner added to the walls of every n-th building, then no rectangle."""
    buildings = buildings_of(city)
    for number in range(0, len(buildings), every):
        ring = buildings[number].rings[0]
        middle = (ring + np.roll(ring, -1, axis=0)) / 2
        buildings[number] = buildings[number]._replace(rings=(np.stack([ring, middle], axis=1).reshape(-1, 2),))
    return make_city(buildings)


def street(width, height, length=4000.0, depth=10.0):
    """An endless street along north between x = 0 and x = width."""
    y = length / 2
    west = np.array([[-depth, -y], [0, -y], [0, y], [-depth, y]])
    east = west + np.array([width + depth, 0.0])
    return make_city([Building((west,), height, "west"), Building((east,), height, "east")])


def sky(count, seed, lowest=0.2):
    """Unit vectors east, north, up, uniform above the elevation (rad)."""
    rng = np.random.default_rng(seed)
    up, azimuth = rng.uniform(np.sin(lowest), 1, count), rng.uniform(0, 2 * np.pi, count)
    flat = np.sqrt(1 - up**2)
    return np.stack([flat * np.sin(azimuth), flat * np.cos(azimuth), up], axis=1).astype(np.float32)
