"""Whether two convex shapes touch, decided in float32 from their poses alone, under ``jit`` and ``vmap``.

A shape is a core plus a radius: a sphere is a point, a capsule a segment, all others are their own core. Two shapes
touch when the distance of their cores is at most the sum of their radii. From a point it has a closed form; the rest is
Gilbert, Johnson, Keerthi, "A fast procedure for computing the distance between complex objects in three-dimensional
space" (IEEE J. Robotics and Automation 4(2), 1988), which looks for the point of ``A - B = {a - b}`` next to the
origin. Two bounds hold however badly conditioned an iteration is, and decide:

    dist <= |v|                        for every convex combination v of points of A - B
    dist >= min {u . x : x in A - B}   for every unit vector u

Deviations from the paper: the sub-problem tries all features that contain the newest point (3 edges, 3 triangles and
the tetrahedron) and takes the best; the next direction over a triangle is its normal, which stays accurate where the
closest point is all rounding error. The loop carries support points, not differences, because XLA may compute a value
twice with different rounding: coordinates of a support point may be mixed freely, those of a vertex of ``A - B`` may
not.
"""

import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from envs_mjx.geometry import Mat3, Vec3, box_box_overlap, sphere_box_overlap

MAX_ITERATIONS = 40
ROUNDING = 12 * float(np.finfo(np.float32).eps)  # of a distance, relative to the size of the shapes
TINY = 1e-24  # squared sines and lengths below are zero

Kind = Literal["sphere", "capsule", "box", "cylinder", "mesh"]
SIZES = {"sphere": 1, "capsule": 2, "box": 3, "cylinder": 2, "mesh": 0}
Point = tuple[Array, Array, Array]  # coordinates apart: each fills a vector register with lanes


class Convex(NamedTuple):
    """A convex shape about its own origin, static under ``jit``.

    Attributes:
        kind: and meaning of ``size``: ``"sphere"`` (radius), ``"capsule"`` (radius, half-length of the segment along
        z),
            ``"box"`` (half-lengths), ``"cylinder"`` (radius, half-height along z) or ``"mesh"`` (nothing).
        size: m.
        vertices: [n, 3] of a mesh, which stands for their convex hull, m.
    """

    kind: Kind
    size: tuple[Any, ...] = ()
    vertices: np.ndarray | None = None

    @property
    def radius(self) -> Any:
        """Thickness around the core, m."""
        return self.size[0] if self.kind in ("sphere", "capsule") else 0.0

    @property
    def extent(self) -> Any:
        """Bound of the distance from the origin to any point of the shape, m."""
        if self.vertices is not None:
            return float(np.linalg.norm(self.vertices, axis=1).max())
        return sum(self.size)


def overlap(a: Convex, pos_a: Vec3, mat_a: Mat3, b: Convex, pos_b: Vec3, mat_b: Mat3) -> Bool[Array, ""]:
    """Whether two shapes touch, as MuJoCo lists contacts: ``dist <= 0``.

    Args:
        a: one shape.
        pos_a: its origin in the world, m.
        mat_a: its axes in the world, as columns.
        b: other shape.
        pos_b: its origin in the world, m.
        mat_b: its axes in the world, as columns.

    Returns:
        True where they touch. Shapes closer than `tolerance` touch.

    Raises:
        ValueError: a shape is not as `Convex` says.
    """
    _check(a)
    _check(b)
    return _overlap(a, pos_a, mat_a, b, pos_b, mat_b)


def any_overlap(
    first: Sequence[Convex],
    pos_a: Float[Array, "A 3"],
    mat_a: Float[Array, "A 3 3"],
    second: Sequence[Convex],
    pos_b: Float[Array, "B 3"],
    mat_b: Float[Array, "B 3 3"],
) -> Bool[Array, ""]:
    """Whether any of the `first` shapes touches any of the `second`.

    Shapes of one kind are examined together, so that the size of the program depends on how many kinds there are, not
    on how many shapes. Spheres and boxes meet boxes by the closed forms of `geometry`.

    Args:
        first: A shapes.
        pos_a: their origins in the world, m.
        mat_a: their axes in the world, as columns.
        second: B shapes.
        pos_b: their origins in the world, m.
        mat_b: their axes in the world, as columns.

    Raises:
        ValueError: a shape is not as `Convex` says.
    """
    hits = []
    for rows in _by_kind(first):
        for columns in _by_kind(second):
            i, j = (index.reshape(-1) for index in np.meshgrid(rows, columns, indexing="ij"))
            pair = jax.vmap(functools.partial(_overlap_sized, first[rows[0]], second[columns[0]]))
            sizes_a, sizes_b = _sizes(first, i), _sizes(second, j)
            hits.append(pair(sizes_a, sizes_b, pos_a[i], mat_a[i], pos_b[j], mat_b[j]).any())
    return jnp.stack(hits).any()


def _sizes(shapes: Sequence[Convex], index: np.ndarray) -> np.ndarray:
    return np.array([shapes[k].size for k in index], np.float32)


def _by_kind(shapes: Sequence[Convex]) -> list[list[int]]:
    """Numbers of the shapes of each kind; every mesh by itself."""
    groups: dict[Any, list[int]] = {}
    for i, shape in enumerate(shapes):
        _check(shape)
        groups.setdefault(shape.kind if shape.vertices is None else i, []).append(i)
    return list(groups.values())


def _overlap_sized(a: Convex, b: Convex, size_a, size_b, pos_a, mat_a, pos_b, mat_b):
    """Whether shapes of the kinds of `a` and `b`, but of other sizes, touch."""
    if b.kind == "box" and a.kind == "sphere":
        return sphere_box_overlap(pos_a, size_a[0], pos_b, mat_b, size_b)
    if b.kind == "box" and a.kind == "box":
        return box_box_overlap(pos_a, mat_a, size_a, pos_b, mat_b, size_b)
    return _overlap(a._replace(size=tuple(size_a)), pos_a, mat_a, b._replace(size=tuple(size_b)), pos_b, mat_b)


def _overlap(a: Convex, pos_a, mat_a, b: Convex, pos_b, mat_b):
    reach = a.radius + b.radius + _tolerance(a, b)
    return _core_distance(a, b, *_relative(pos_a, mat_a, pos_b, mat_b), (reach, reach)) <= reach


def distance(a: Convex, pos_a: Vec3, mat_a: Mat3, b: Convex, pos_b: Vec3, mat_b: Mat3) -> Float[Array, ""]:
    """Distance (m) of two shapes; 0 where they touch. Not differentiable in reverse mode.

    Args:
        a: one shape.
        pos_a: its origin in the world, m.
        mat_a: its axes in the world, as columns.
        b: other shape.
        pos_b: its origin in the world, m.
        mat_b: its axes in the world, as columns.

    Returns:
        The distance; less than `tolerance` counts as 0.

    Raises:
        ValueError: a shape is not as `Convex` says.
    """
    reach, slack = a.radius + b.radius, tolerance(a, b)
    gap = _core_distance(a, b, *_relative(pos_a, mat_a, pos_b, mat_b), (reach + slack, np.inf)) - reach
    return jnp.where(gap <= slack, 0.0, gap)


def tolerance(a: Convex, b: Convex) -> float:
    """Distance (m) that float32 cannot tell from touching: about 1e-6 for shapes of half a metre.

    Raises:
        ValueError: a shape is not as `Convex` says.
    """
    for shape in (a, b):
        _check(shape)
    return _tolerance(a, b)


def _tolerance(a: Convex, b: Convex):
    return ROUNDING * (a.extent + b.extent)


def _check(shape: Convex) -> None:
    if shape.kind not in get_args(Kind):
        raise ValueError(f"Convex.kind is {shape.kind!r}; use one of {', '.join(get_args(Kind))}.")
    wanted = SIZES[shape.kind]
    if len(shape.size) != wanted or not all(0 < x < np.inf for x in shape.size):
        raise ValueError(f"Convex.size of a {shape.kind} is {shape.size}; give {wanted} positive numbers, in metres.")
    form = np.shape(shape.vertices) if shape.vertices is not None else None
    if shape.kind != "mesh" and form is not None:
        raise ValueError(f"Convex.vertices is given for a {shape.kind}; leave it out, only a mesh has vertices.")
    if shape.kind == "mesh" and (form is None or len(form) != 2 or form[1] != 3 or form[0] == 0):
        raise ValueError(f"Convex.vertices of a mesh has shape {form}; give an array of shape [n, 3], in metres.")


def _relative(pos_a, mat_a, pos_b, mat_b):
    """Position and axes of b in a's frame."""
    return mat_a.T @ (pos_b - pos_a), mat_a.T @ mat_b


def _core_distance(a: Convex, b: Convex, shift, rot, stop):
    """Distance of the cores; exact only between the two distances `stop`, else on the same side of both."""
    if b.kind == "sphere" and a.kind != "mesh":
        return _point_distance(a, shift)
    if a.kind == "sphere" and b.kind != "mesh":
        return _point_distance(b, -shift @ rot)
    return _gjk(a, b, shift, rot, stop)


def _point_distance(shape: Convex, point):
    """Distance of a point in the shape's frame to its core."""
    size = shape.size
    if shape.kind == "sphere":
        out = point
    elif shape.kind == "capsule":
        out = jnp.stack([point[0], point[1], jnp.maximum(jnp.abs(point[2]) - size[1], 0.0)])
    elif shape.kind == "box":
        out = jnp.maximum(jnp.abs(point) - jnp.array(size), 0.0)
    else:
        over = jnp.stack([jnp.linalg.norm(point[:2]) - size[0], jnp.abs(point[2]) - size[1]])
        out = jnp.maximum(over, 0.0)
    return jnp.linalg.norm(out)


def _gjk(a: Convex, b: Convex, shift, rot, stop):
    """Distance of two cores; b's origin and axes in a's frame are `shift` and `rot`."""
    slack, (near, far) = _tolerance(a, b), stop
    shift, rows, columns = tuple(shift), [tuple(row) for row in rot], [tuple(column) for column in rot.T]

    def supports(u):  # in their own frames
        return _support(a, tuple(-x for x in u)), _support(b, tuple(_dot(column, u) for column in columns))

    def difference(points):
        return tuple(x - s - _dot(row, points[1]) for x, s, row in zip(points[0], shift, rows))

    def step(carry):
        count, corners, feature, weight, u, points, low, high = carry
        newest = difference(points)
        weight /= weight.sum()
        closest = tuple((weight * x).sum() for x in corners)
        simplex = _corners_of(feature, corners)
        low, high = jnp.maximum(low, _dot(u, newest)), jnp.minimum(high, jnp.sqrt(_dot(closest, closest)))
        feature, weight, u = _closest(newest, simplex)
        corners = tuple(jnp.concatenate([x[None], old]) for x, old in zip(newest, simplex))
        return count + 1, corners, feature, weight, u, supports(u), low, high

    def running(carry):
        count, *_, low, high = carry
        return (count < MAX_ITERATIONS) & (high > near) & (low <= far) & (high - low > slack)

    u = _unit(tuple(-x for x in shift))
    points, one, worst = supports(u), jnp.ones_like(shift[0]), jnp.full_like(shift[0], np.inf)
    corners = tuple(jnp.broadcast_to(x, (4,)) for x in difference(points))
    start = (0, corners, jnp.int32(0), jnp.broadcast_to(one, (4,)), u, points, -worst, worst)
    return jax.lax.while_loop(running, step, start)[-1]


def _corners_of(feature, corners) -> Point:
    """Three corners of a tetrahedron that span the feature; an edge repeats one.

    Args:
        feature: i < 3 for the edge 0-(1 + i), 3 + i for the triangle that has the next corner too.
        corners: coordinates, each [4].
    """
    first, second = _hot(feature)
    x, y, z = (
        jnp.stack([x[0], jnp.where(first, x[1:], 0.0).sum(), jnp.where(second, x[1:], 0.0).sum()]) for x in corners
    )
    return x, y, z


def _hot(feature):
    """Which of the three old corners are the second and the third of a feature."""
    index = feature % 3
    return jnp.arange(3) == index, jnp.arange(3) == jnp.where(feature < 3, index, (index + 1) % 3)


def _support(shape: Convex, u: Point) -> Point:
    """Point of the core that is farthest along `u`."""
    size, zero = shape.size, jnp.zeros_like(u[0])
    if shape.kind == "sphere":
        return zero, zero, zero
    if shape.kind == "capsule":
        return zero, zero, jnp.where(u[2] >= 0, size[1], -size[1])
    if shape.kind == "box":
        x, y, z = (jnp.where(c >= 0, half, -half) for c, half in zip(u, size))
        return x, y, z
    if shape.kind == "cylinder":
        scale = size[0] * jax.lax.rsqrt(jnp.maximum(u[0] * u[0] + u[1] * u[1], TINY))
        return scale * u[0], scale * u[1], jnp.where(u[2] >= 0, size[1], -size[1])
    vertices = jnp.asarray(shape.vertices, jnp.float32)
    point = vertices[jnp.argmax(_dot(tuple(vertices.T), u))]
    return point[0], point[1], point[2]


def _closest(newest: Point, simplex: Point):
    """Feature of a tetrahedron, among those with its newest corner, that is next to the origin.

    Args:
        newest: coordinates of the newest corner.
        simplex: coordinates of the others, each [3]; corners may repeat.

    Returns:
        The feature, as `_corners_of` reads it; weights [4] >= 0 of the point of the tetrahedron next to the origin; a
        unit vector that points from the origin to the feature.
    """
    edge = tuple(x - y for x, y in zip(simplex, newest))
    side = _next(edge)
    along = jnp.clip(-_dot(newest, edge) / jnp.maximum(_dot(edge, edge), TINY), 0.0, 1.0)
    on_edge = tuple(x + along * e for x, e in zip(newest, edge))

    normal = _cross(edge, side)
    square, height = _dot(normal, normal), _dot(newest, normal)
    inverse = 1.0 / jnp.maximum(square, TINY)
    s, t, on_face, over = jnp.zeros(3), jnp.zeros(3), newest, jnp.zeros(3, bool)
    for _ in range(2):  # the second time removes the rounding errors of a sliver
        s -= _dot(_cross(on_face, side), normal) * inverse
        t += _dot(_cross(on_face, edge), normal) * inverse
        over = (square > TINY) & (s >= 0) & (t >= 0) & (s + t <= 1)
        on_face = tuple(x + s * e + t * f for x, e, f in zip(newest, edge, side))

    squares = jnp.concatenate([_dot(on_edge, on_edge), jnp.where(over, _dot(on_face, on_face), np.inf)])
    feature = jnp.argmin(squares).astype(jnp.int32)
    outward = tuple(jnp.where(height >= 0, n, -n) for n in normal)
    u = _unit(tuple(_take(feature, x, y) for x, y in zip(on_edge, outward)))

    first, second = _hot(feature)
    weight = jnp.where(first, _take(feature, along, s), 0.0) + jnp.where(second, _take(feature, jnp.zeros(3), t), 0.0)
    volume = _dot(tuple(x[0] for x in edge), tuple(x[1] for x in normal))
    inside = -jnp.roll(height, -1) / jnp.where(volume == 0, 1.0, volume)
    within = tuple(x + (inside * e).sum() for x, e in zip(newest, edge))
    holds = (volume != 0) & (inside >= 0).all() & (inside.sum() <= 1) & (_dot(within, within) < squares.min())
    weight = jnp.where(holds, inside, weight)
    return feature, jnp.maximum(jnp.concatenate([1.0 - weight.sum(keepdims=True), weight]), 0.0), u


def _dot(p, q):
    return p[0] * q[0] + p[1] * q[1] + p[2] * q[2]


def _cross(p, q) -> Point:
    return p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0]


def _unit(p) -> Point:
    """Normalises; zero becomes x."""
    square = _dot(p, p)
    scale = jax.lax.rsqrt(jnp.maximum(square, TINY * TINY * 1e12))
    return jnp.where(square > 0, p[0] * scale, 1.0), p[1] * scale, p[2] * scale


def _next(p):
    """The point after each of three."""
    return tuple(jnp.roll(x, -1) for x in p)


def _take(feature, edges, faces):
    """The value of one of three edges and three triangles."""
    return jnp.where(jnp.arange(6) == feature, jnp.concatenate([edges, faces]), 0.0).sum()
