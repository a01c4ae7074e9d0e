"""How capsules and cylinders meet the floor in MJX: as in MuJoCo's C engine.

MJX's own functions differ from C in two ways that show in every step of a robot that walks or rolls. A capsule's contact
frame follows its axis in C, but in MJX only while the axis is less than 60 degrees from the floor; friction pyramids are
not round, so a foot that stands steeply slides otherwise (1e-3 rad per control step of Ant and Doggo). And a cylinder has
up to four contacts in C (the lowest point of either rim, and two more of the lower rim), of which MJX drops one.

Geometry: the documentation of MuJoCo, "Computation, Contact"; checked against its C engine in the tests.
"""

import contextlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from mujoco.mjx._src import collision_driver
from mujoco.mjx._src.types import GeomType

TINY = 1e-12


def _contact(normal, tangent, distance, lowest):
    """One contact: distance, point halfway between the surfaces, and frame with the normal first."""
    across = tangent - normal * jnp.dot(normal, tangent)
    size = jnp.linalg.norm(across)
    axis = jnp.where(jnp.abs(normal[1]) < 0.5, jnp.array([0.0, 1.0, 0.0]), jnp.array([0.0, 0.0, 1.0]))
    fallback = axis - normal * jnp.dot(normal, axis)
    across = jnp.where(size > TINY, across / jnp.maximum(size, TINY), fallback / jnp.linalg.norm(fallback))
    frame = jnp.stack([normal, across, jnp.cross(normal, across)])
    return distance, lowest - 0.5 * distance * normal, frame


def _plane_capsule(plane_pos, plane_mat, pos, mat, size):
    """A contact at either end."""
    normal, axis = plane_mat[:, 2], mat[:, 2]
    contacts = []
    for end in (pos + size[1] * axis, pos - size[1] * axis):
        distance = jnp.dot(end - plane_pos, normal) - size[0]
        contacts.append(_contact(normal, axis, distance, end - size[0] * normal))
    return contacts


def _plane_cylinder(plane_pos, plane_mat, pos, mat, size):
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


def _collider(shape, number: int):
    """What MJX's driver calls for all pairs of a kind at once."""

    def one(*geometry):
        return jax.tree.map(lambda *x: jnp.stack(x), *shape(*geometry))

    def collide(model, data, key, geom):
        plane, other = geom.T
        poses = (data.geom_xpos[plane], data.geom_xmat[plane], data.geom_xpos[other], data.geom_xmat[other])
        contacts = jax.vmap(one)(*poses, model.geom_size[other])
        return jax.tree.map(jnp.concatenate, contacts)

    collide.ncon = number  # type: ignore[attr-defined]
    return collide


_FUNCTIONS = {
    (GeomType.PLANE, GeomType.CAPSULE): _collider(_plane_capsule, 2),
    (GeomType.PLANE, GeomType.CYLINDER): _collider(_plane_cylinder, 4),
}


@contextlib.contextmanager
def colliders() -> Iterator[None]:
    """While models are put on the device or functions traced inside, MJX collides with the functions of this file."""
    table = collision_driver._COLLISION_FUNC
    own = {kinds: table[kinds] for kinds in _FUNCTIONS}
    table.update(_FUNCTIONS)
    try:
        yield
    finally:
        table.update(own)
