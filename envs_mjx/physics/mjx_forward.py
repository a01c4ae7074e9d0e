"""MJX's forward dynamics with the friction directions that MuJoCo's C engine gives a capsule on a plane.

A pyramidal friction cone depends on its two tangents. C takes the capsule's axis projected on the plane, whatever its
slope; MJX 3.17 takes a fixed direction if the axis is steeper than 60 degrees. One control step of the Ant, whose
shins are that steep, then differs by up to 2e-2.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mujoco

from envs_mjx.physics.mjx_engine import mjx


def forward_of(model: mujoco.MjModel, device_model: Any) -> Callable[[Any], Any]:
    """``data -> data`` with the forward dynamics evaluated, for MJX's `device_model` of `model`.

    The tangents of a frictional contact between a plane and a capsule are the capsule's axis in the plane, and what is
    perpendicular to it.
    """
    capsule, plane = mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_PLANE
    is_capsule, is_plane = model.geom_type == capsule, model.geom_type == plane
    if not is_capsule.any() or not (model.geom_condim[is_capsule | is_plane] > 1).any():
        return lambda data: mjx.forward(device_model, data)

    def forward(data):
        data = mjx.fwd_position(device_model, data)
        contact = data._impl.contact
        first, second = contact.geom[:, 0], contact.geom[:, 1]
        aligned = jax.vmap(_aligned)(contact.frame[:, 0], data.geom_xmat[second][..., 2])
        wrong = jnp.array(is_plane)[first] & jnp.array(is_capsule)[second]
        frame = jnp.where(wrong[:, None, None], aligned, contact.frame)
        data = data.tree_replace({"_impl.contact.frame": frame})
        data = mjx.make_constraint(device_model, data)  # the first one is unused, so it is not even compiled
        data = mjx.sensor_pos(device_model, data)
        data = mjx.sensor_vel(device_model, mjx.fwd_velocity(device_model, data))
        data = mjx.fwd_acceleration(device_model, mjx.fwd_actuation(device_model, data))
        return mjx.sensor_acc(device_model, mjx.solve(device_model, data))

    return forward


def _aligned(normal, axis):
    """Contact frame, rows: normal, the axis within the plane (x if it has no direction there), their product."""
    along = axis - normal * (normal @ axis)
    length = jnp.linalg.norm(along)
    along = jnp.where(length > 1e-12, along / jnp.maximum(length, 1e-12), jnp.array([1.0, 0.0, 0.0]))
    return jnp.stack([normal, along, jnp.cross(normal, along)])
