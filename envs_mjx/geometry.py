"""Rotations and exact overlap tests between the shapes that raise contact costs.

A cost counts contacts in MuJoCo's list, that is pairs with ``dist <= 0``. Deciding it from the poses alone, instead of
from an engine's contact buffer, gives the same answer for every engine and for objects that were not simulated.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Vec3 = Float[Array, "3"]
Mat3 = Float[Array, "3 3"]


def to_local(vector: Float[Array, "*n 3"], mat: Mat3) -> Float[Array, "*n 3"]:
    """``mat^T v``: vectors of the world in the axes of a body.

    Written out, as all small products that every step needs: a batch of dots takes several times as long on a CPU.
    """
    return vector[..., :1] * mat[0] + vector[..., 1:2] * mat[1] + vector[..., 2:] * mat[2]


def to_world(vector: Float[Array, "*n 3"], mat: Mat3) -> Float[Array, "*n 3"]:
    """``mat v``: vectors in the axes of a body in those of the world."""
    return to_local(vector, mat.T)


def rotation_z(angle: Float[Array, ""]) -> Mat3:
    """Rotation by ``angle`` (rad) about +z."""
    c, s, zero, one = jnp.cos(angle), jnp.sin(angle), jnp.zeros_like(angle), jnp.ones_like(angle)
    return jnp.stack([jnp.stack([c, -s, zero]), jnp.stack([s, c, zero]), jnp.stack([zero, zero, one])])


def quat_z(angle: Float[Array, ""]) -> Float[Array, "4"]:
    """Unit quaternion (w, x, y, z) of a rotation by ``angle`` (rad) about +z."""
    zero = jnp.zeros_like(angle)
    return jnp.stack([jnp.cos(0.5 * angle), zero, zero, jnp.sin(0.5 * angle)])


def quat_to_mat(quat: Float[Array, "4"]) -> Mat3:
    """Rotation matrix of a quaternion (w, x, y, z), which is normalised first."""
    w, x, y, z = quat / jnp.linalg.norm(quat)
    return jnp.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def box_distance(point: Vec3, pos: Vec3, mat: Mat3, half: Vec3) -> Float[Array, ""]:
    """Distance (m) of a point to a box; 0 inside."""
    local = jnp.abs(to_local(point - pos, mat)) - half
    return jnp.linalg.norm(jnp.maximum(local, 0.0))


def sphere_box_overlap(
    centre: Vec3, radius: float | Float[Array, ""], pos: Vec3, mat: Mat3, half: Vec3
) -> Bool[Array, ""]:
    """Whether a sphere touches a box."""
    return box_distance(centre, pos, mat, half) <= radius


def box_box_overlap(pos_a: Vec3, mat_a: Mat3, half_a: Vec3, pos_b: Vec3, mat_b: Mat3, half_b: Vec3) -> Bool[Array, ""]:
    """Whether two boxes touch: no axis among 3 + 3 face normals and 9 edge products separates them.

    Source: Gottschalk, Lin, Manocha, "OBBTree" (SIGGRAPH 1996), the separating-axis theorem for boxes.
    """
    rel = mat_a.T @ mat_b  # b's axes in a's frame
    shift = (pos_b - pos_a) @ mat_a
    extent = jnp.abs(rel)
    faces_a = jnp.abs(shift) <= half_a + extent @ half_b
    faces_b = jnp.abs(shift @ rel) <= half_b + half_a @ extent
    i1, i2 = jnp.array([1, 2, 0]), jnp.array([2, 0, 1])
    # axis e_i x r_j; nearly parallel edges give a zero axis, on which 0 <= 0 (+ rounding slack) never separates
    reach = half_a[i1, None] * extent[i2] + half_a[i2, None] * extent[i1]
    reach += half_b[None, i1] * extent[:, i2] + half_b[None, i2] * extent[:, i1]
    edges = jnp.abs(shift[i2, None] * rel[i1] - shift[i1, None] * rel[i2]) <= reach + 1e-7
    return faces_a.all() & faces_b.all() & edges.all()
