"""Observations computed from poses: pseudo-lidar and proprioception.

Every sensor is a function of the agent's kinematics, so that one formula serves every physics engine.
Source: Safety-Gymnasium (Ji et al. 2023, https://arxiv.org/abs/2310.12567); sensor definitions as in MuJoCo.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from envs_mjx.geometry import Mat3, Vec3, to_local

LIDAR_BINS = 16
GRAVITY = (0.0, 0.0, -9.81)  # m/s^2
MAGNETIC_FIELD = (0.0, -0.5, 0.0)


class BodyMotion(NamedTuple):
    """Kinematics of the robot's root body.

    Attributes:
        pos: world position, m.
        mat: rotation, columns are the body's axes in the world.
        velocity: linear velocity in the world, m/s.
        spin: angular velocity in the body frame, rad/s.
        acceleration: linear acceleration in the world without gravity, m/s^2.
        spin_rate: angular acceleration in the body frame, rad/s^2.
    """

    pos: Vec3
    mat: Mat3
    velocity: Vec3
    spin: Vec3
    acceleration: Vec3
    spin_rate: Vec3


def proprioception(body: BodyMotion, site: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Float[Array, "12"]:
    """Accelerometer (includes +g: (0, 0, 9.81) at rest), velocimeter, gyro, magnetometer, in the frame of a site.

    With ``r`` the site in the body frame, ``w`` the spin and ``R`` the rotation: ``velocity = R^T v + w x r`` and
    ``acceleration = R^T (a - g) + dw/dt x r + w x (w x r)``.
    """
    offset = jnp.array(site)
    velocity = to_local(body.velocity, body.mat) + jnp.cross(body.spin, offset)
    swing = jnp.cross(body.spin_rate, offset) + jnp.cross(body.spin, jnp.cross(body.spin, offset))
    acceleration = to_local(body.acceleration - jnp.array(GRAVITY), body.mat) + swing
    return jnp.concatenate([acceleration, velocity, body.spin, to_local(jnp.array(MAGNETIC_FIELD), body.mat)])


def pseudo_lidar(points: Float[Array, "N 2"], pos: Vec3, mat: Mat3, max_dist: float) -> Float[Array, "16"]:
    """Closeness of the nearest object in each of 16 sectors: 1 at the agent's centre, 0 beyond ``max_dist``.

    With ``v`` the object (taken at height 0) in the body frame, ``d = |v_xy|``, ``theta = atan2(v_y, v_x)``, bin
    width ``w = 2 pi / 16``, ``b = floor(theta / w)``, fraction ``f = theta / w - b`` and closeness
    ``s = max(0, 1 - d / max_dist)``: bin ``b`` sees ``s``, bin ``b + 1`` sees ``f s`` and bin ``b - 1`` sees
    ``(1 - f) s``; bins keep the maximum over objects. In other words, bin ``i`` sees
    ``s clip(1.5 - |a + 0.5|, 0, 1)``, where ``a = i - theta / w``, wrapped.

    The full rotation is used, so a tilted agent's height leaks into ``d``. Bin 0 starts at the body's +x axis.
    Deviation: an angle that rounds to 2 pi belongs to bins 15 and 0 (the original crashes).
    """
    rel = jnp.concatenate([points, jnp.zeros_like(points[:, :1])], axis=1) - pos
    local = to_local(rel, mat)[:, :2]
    closeness = jnp.maximum(0.0, 1.0 - jnp.linalg.norm(local, axis=1) / max_dist)
    angle = jnp.arctan2(local[:, 1], local[:, 0]) * (LIDAR_BINS / (2 * jnp.pi))
    ahead = jnp.arange(LIDAR_BINS) - angle[:, None]  # of the object, in bins, to the near side of the bin
    ahead = jnp.where(ahead > LIDAR_BINS / 2, ahead - LIDAR_BINS, ahead)
    weight = jnp.clip(1.5 - jnp.abs(ahead + 0.5), 0.0, 1.0)
    return jnp.max(weight * closeness[:, None], axis=0, initial=0.0)
