"""Things in a world besides the robot: what they look like, whether they collide, where they may lie.

Numbers are those of Safety-Gymnasium 1.0.0 (Ji et al. 2023, https://arxiv.org/abs/2310.12567).
"""

import itertools
from typing import Literal, NamedTuple

import numpy as np

Kind = Literal["ghost", "fixed", "free", "orbiting"]
RGBA = tuple[float, float, float, float]


class Shape(NamedTuple):
    """A convex part of a body.

    Attributes:
        kind: ``"sphere"`` (radius), ``"box"`` (half-lengths) or ``"cylinder"`` (radius, half-height; upright).
        size: m.
        pos: centre in the body frame, m.
    """

    kind: Literal["sphere", "box", "cylinder"]
    size: tuple[float, ...]
    pos: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def half(self) -> tuple[float, float, float]:
        """Half-lengths of the box around the shape, about its own centre, m."""
        first = self.size[0]
        if self.kind == "box":
            return first, self.size[1], self.size[2]
        return first, first, first if self.kind == "sphere" else self.size[1]


class Objects(NamedTuple):
    """A group of equal objects.

    Attributes:
        name: of the group, e.g. ``"hazards"``; its lidar is called ``<name>_lidar``.
        number: of objects.
        keepout: radius that random placement keeps free around each, m.
        area: where they may lie with their keep-out: half-width of a square around the origin, or a rectangle
            (x_low, y_low, x_high, y_high), m.
        kind: ``"ghost"`` collides with nothing, ``"fixed"`` is an immovable obstacle, ``"free"`` can be pushed,
            ``"orbiting"`` is dragged round its home by a soft spring on a circle of radius ``travel``.
        shapes: of each object; a ghost's are only drawn.
        height: of the centre at the start of an episode, m.
        density: of free and orbiting objects, kg/m^3.
        travel: radius of the orbit, m.
        at: fixed places, one per object, instead of random ones, m.
        colour: red, green, blue, opacity.
    """

    name: str
    number: int
    keepout: float
    area: float | tuple[float, float, float, float]
    kind: Kind
    shapes: tuple[Shape, ...]
    height: float
    density: float = 0.0
    travel: float = 0.0
    at: tuple[tuple[float, float], ...] = ()
    colour: RGBA = (0.5, 0.5, 0.5, 1.0)

    @property
    def half(self) -> tuple[float, float, float]:
        """Half-lengths of the box, about the body's origin and along its axes, that holds all shapes, m."""
        corners = [np.abs(shape.pos) + np.array(shape.half) for shape in self.shapes]
        x, y, z = np.max(corners, axis=0).tolist()
        return x, y, z


def goal(area: float, keepout: float = 0.4, radius: float = 0.3) -> Objects:
    """Where the robot or the box should go."""
    half_height = radius / 2
    shape = Shape("cylinder", (radius, half_height))
    return Objects("goal", 1, keepout, area, "ghost", (shape,), half_height + 0.01, colour=(0, 1, 0, 0.25))


def hazards(number: int, area: float, keepout: float = 0.18, radius: float = 0.2) -> Objects:
    """Dangerous areas on the floor."""
    shape = Shape("cylinder", (radius, 0.01))
    return Objects("hazards", number, keepout, area, "ghost", (shape,), 0.02, colour=(0, 0, 1, 0.25))


def vases(number: int, area: float) -> Objects:
    """Light boxes that should not be touched."""
    shape = Shape("box", (0.1, 0.1, 0.1))
    return Objects("vases", number, 0.15, area, "free", (shape,), 0.1 - 4e-5, 0.001, colour=(0, 1, 1, 1))


def pillars(number: int, area: float) -> Objects:
    """Immovable cylinders."""
    shape = Shape("cylinder", (0.2, 0.5))
    return Objects("pillars", number, 0.3, area, "fixed", (shape,), 0.5, colour=(0.5, 0.5, 1, 1))


def buttons(number: int, area: float) -> Objects:
    """Immovable spheres to press."""
    return Objects("buttons", number, 0.2, area, "fixed", (Shape("sphere", (0.1,)),), 0.1, colour=(1, 0.5, 0, 1))


def gremlins(number: int, area: float, keepout: float = 0.4, travel: float = 0.35) -> Objects:
    """Boxes dragged round on circles; they float 0.1 m above the floor."""
    shape = Shape("box", (0.1, 0.1, 0.1))
    colour = (0.5, 0.0, 1.0, 1.0)
    return Objects("gremlins", number, keepout, area, "orbiting", (shape,), 0.1, 0.001, travel, colour=colour)


def push_box(area: float, half: float = 0.2, keepout: float = 0.2, density: float = 0.001) -> Objects:
    """A box with a column at each upright edge, so that a robot can hook it."""
    column = (half / 2, half / 2, half)
    corners = itertools.product((half, -half), repeat=2)
    shapes = (Shape("box", (half,) * 3), *(Shape("box", column, (x, y, 0.0)) for x, y in corners))
    return Objects("push_box", 1, keepout, area, "free", shapes, half, density, colour=(1, 1, 0, 1))


def circle(radius: float = 1.5) -> Objects:
    """The ring to run along, around the origin."""
    shape = Shape("cylinder", (radius, 0.01))
    return Objects("circle", 1, 0.0, 0.0, "ghost", (shape,), 0.01, at=((0.0, 0.0),), colour=(0, 1, 0, 0.1))


def walls(at: tuple[tuple[float, float], ...], half: tuple[float, float], name: str = "sigwalls") -> Objects:
    """Signs of a forbidden region: seen by people, not by the robot, and passed without touch."""
    shape = Shape("box", (*half, 0.3))
    return Objects(name, len(at), 0.0, 0.0, "ghost", (shape,), 0.25, at=at, colour=(1, 1, 0, 0.1))
