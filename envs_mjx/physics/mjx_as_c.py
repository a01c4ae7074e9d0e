"""MJX made to compute what MuJoCo's C engine computes, where it matters for robots on a floor.

MJX 3.17 differs in four ways, of which the first three show in every step of a robot that walks or rolls:

* A capsule's contact frame follows its axis in C, but in MJX only while the axis is less than 60 degrees from the
  floor. Friction pyramids are not round, so a foot that stands steeply slides otherwise.
* A cylinder has up to four contacts in C (the lowest point of either rim, and two more of the lower rim); MJX drops
  one.
* Its solver accepts a step only if the cost falls, and in float32 the cost, which is dominated by the heavy joints,
  cannot resolve what the light feet still gain. `refined` adds a Newton step that is judged by its gradient.
* It cannot collide a cylinder with a box, and finds what a sphere, capsule or cylinder has in common with a cylinder by
  a few steps of gradient descent, which leave it up to millimetres off. Here the nearest points of the axis of one and
  the solid other are found by bisection: the distance is convex along the axis. A fixed cylinder is met at its side
  only, as pillars are.

Geometry: the documentation of MuJoCo, "Computation, Contact"; checked against its C engine in the tests. All of this
reaches into MJX's private modules, which is one reason why its version is pinned.
"""

import contextlib
import io
import warnings
from collections.abc import Iterator

import jax
import jax.numpy as jnp

with contextlib.redirect_stdout(io.StringIO()):  # it prints that Warp, which is optional, is missing
    from mujoco import mjx
    from mujoco.mjx._src import collision_convex, collision_driver, solver
    from mujoco.mjx._src.types import GeomType

__all__ = ["as_c", "mjx"]

TINY = 1e-12
FLAT = 1e-7  # slope (m) up to which two points of an axis are equally near
BISECTIONS = 24
REFINEMENTS = 3


def _contact(normal, tangent, distance, lowest):
    """One contact: distance, point halfway between the surfaces, and frame with the normal first."""
    across = tangent - normal * jnp.dot(normal, tangent)
    size = jnp.linalg.norm(across)
    axis = jnp.where(jnp.abs(normal[1]) < 0.5, jnp.array([0.0, 1.0, 0.0]), jnp.array([0.0, 0.0, 1.0]))
    fallback = axis - normal * jnp.dot(normal, axis)
    across = jnp.where(size > TINY, across / jnp.maximum(size, TINY), fallback / jnp.linalg.norm(fallback))
    frame = jnp.stack([normal, across, jnp.cross(normal, across)])
    return distance, lowest - 0.5 * distance * normal, frame


def _plane_capsule(plane_pos, plane_mat, _, pos, mat, size):
    """A contact at either end."""
    normal, axis = plane_mat[:, 2], mat[:, 2]
    contacts = []
    for end in (pos + size[1] * axis, pos - size[1] * axis):
        distance = jnp.dot(end - plane_pos, normal) - size[0]
        contacts.append(_contact(normal, axis, distance, end - size[0] * normal))
    return contacts


def _plane_cylinder(plane_pos, plane_mat, _, pos, mat, size):
    """The lowest point of the lower rim and of the upper one, and two of the lower rim, 120 degrees on."""
    radius, half = size[0], size[1]
    normal = plane_mat[:, 2]
    axis = jnp.where(jnp.dot(mat[:, 2], normal) > 0, -mat[:, 2], mat[:, 2])  # points to the floor
    downhill = axis * jnp.dot(axis, normal) - normal  # steepest way down on the rim
    size_downhill = jnp.linalg.norm(downhill)
    downhill = jnp.where(size_downhill < TINY, mat[:, 0], downhill / jnp.maximum(size_downhill, TINY)) * radius
    sideways = jnp.cross(downhill, axis) * jnp.sqrt(0.75)
    rims = (axis * half + downhill, downhill - axis * half)
    rims += (axis * half - 0.5 * downhill + sideways, axis * half - 0.5 * downhill - sideways)
    zero = jnp.zeros(3)  # no direction along the floor is preferred
    points = [pos + rim for rim in rims]
    return [_contact(normal, zero, jnp.dot(point - plane_pos, normal), point) for point in points]


def _nearest_in_box(point, size):
    return jnp.clip(point, -size, size)


def _nearest_in_cylinder(point, size):
    across = jnp.linalg.norm(point[:2])
    planar = point[:2] * jnp.minimum(1.0, size[0] / jnp.maximum(across, TINY))
    return jnp.append(planar, jnp.clip(point[2], -size[1], size[1]))


def _around_axis(nearest):
    """A contact of the points at a radius from an axis with a solid, given the solid's point nearest to another.

    Half the squared distance between the axis at ``t`` and the solid has the slope ``a . (p(t) - nearest(p(t)))``,
    which never falls. Where a stretch of the axis is equally near, its middle is taken.
    """

    def collide(pos, mat, size, solid_pos, solid_mat, solid_size):
        centre, axis = solid_mat.T @ (pos - solid_pos), solid_mat.T @ mat[:, 2]

        def gap(t):
            point = centre + t * axis
            on_solid = nearest(point, solid_size)
            return on_solid - point, on_solid

        def halve(_, ends):
            low, high = ends  # of the place where the slope passes -FLAT, and of where it passes FLAT
            slopes = [-jnp.dot(axis, gap(sum(end) / 2)[0]) for end in (low, high)]
            past = slopes[0] > -FLAT, slopes[1] > FLAT
            return tuple(
                (jnp.where(is_past, start, (start + end) / 2), jnp.where(is_past, (start + end) / 2, end))
                for is_past, (start, end) in zip(past, ends, strict=True)
            )

        whole = (-size[1], size[1])
        first, last = jax.lax.fori_loop(0, BISECTIONS, halve, (whole, whole))
        towards, on_solid = gap((first[1] + last[0]) / 2)
        distance = jnp.linalg.norm(towards)
        inward = -centre + axis * jnp.dot(axis, centre)  # should the axis run through the solid
        normal = jnp.where(distance > TINY, towards, inward)
        normal = solid_mat @ (normal / jnp.maximum(jnp.linalg.norm(normal), TINY))
        return [_contact(normal, jnp.zeros(3), distance - size[0], solid_pos + solid_mat @ on_solid)]

    return collide


def _swapped(collide):
    """The same contact with the two geoms in the other order."""

    def swapped(pos, mat, size, *other):
        (distance, point, frame), *_ = collide(*other, pos, mat, size)
        return [(distance, point, frame * jnp.array([[-1.0], [1.0], [-1.0]]))]

    return swapped


def _collider(shape, number: int):
    """What MJX's driver calls for all pairs of a kind at once."""

    def one(*geometry):
        return jax.tree.map(lambda *x: jnp.stack(x), *shape(*geometry))

    def collide(model, data, key, geom):
        each = [(data.geom_xpos[i], data.geom_xmat[i], model.geom_size[i]) for i in geom.T]
        contacts = jax.vmap(one)(*each[0], *each[1])
        return jax.tree.map(jnp.concatenate, contacts)

    collide.ncon = number  # type: ignore[attr-defined]
    return collide


_FUNCTIONS = {
    (GeomType.PLANE, GeomType.CAPSULE): _collider(_plane_capsule, 2),
    (GeomType.PLANE, GeomType.CYLINDER): _collider(_plane_cylinder, 4),
    (GeomType.SPHERE, GeomType.CYLINDER): _collider(_around_axis(_nearest_in_cylinder), 1),  # an axis without length
    (GeomType.CAPSULE, GeomType.CYLINDER): _collider(_around_axis(_nearest_in_cylinder), 1),
    (GeomType.CYLINDER, GeomType.CYLINDER): _collider(_swapped(_around_axis(_nearest_in_cylinder)), 1),
    (GeomType.CYLINDER, GeomType.BOX): _collider(_around_axis(_nearest_in_box), 1),
    (GeomType.CYLINDER, GeomType.MESH): collision_convex.capsule_convex,
}


_solve = solver.solve


def refined(model, data):
    """MJX's solution of the contact problem after a further Newton step, where that lowers the gradient.

    The gradient is measured in the norm of the inverse Hessian, in which a Newton step of a quadratic ends at zero.
    """

    def refine(_, data):
        old = solver.Context.create(model, data)
        new = solver.Context.create(model, data.replace(qacc=data.qacc + old.search))
        better = jnp.dot(new.grad, new.Mgrad) < jnp.dot(old.grad, old.Mgrad)
        qacc, force, forces = (
            jnp.where(better, getattr(new, name), getattr(old, name))
            for name in ("qacc", "qfrc_constraint", "efc_force")
        )
        return data.tree_replace({"qacc": qacc, "qfrc_constraint": force, "_impl.efc_force": forces})

    return jax.lax.fori_loop(0, REFINEMENTS, refine, _solve(model, data))


@contextlib.contextmanager
def as_c() -> Iterator[None]:
    """Models put on the device, and functions traced, inside behave as this file says."""
    table = collision_driver._COLLISION_FUNC
    own = dict(table)
    table.update(_FUNCTIONS)
    solver.solve = refined
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*coplanar face.*")  # the racecar's chassis has a flat bottom
            yield
    finally:
        table.clear()
        table.update(own)
        solver.solve = _solve
