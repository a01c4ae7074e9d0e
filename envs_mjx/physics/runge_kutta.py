"""Classical 4th-order Runge-Kutta on the coordinates of a robot, for NumPy and JAX alike.

    k_i = (v_i, a(q_i, v_i, u)),   q_i = q (+) h A_i v_{i-1},   v_i = v + h A_i a_{i-1},   i = 1..4
    q' = q (+) h sum_i B_i v_i,    v' = v + h sum_i B_i a_i

where (+) turns a free joint's quaternion by the rotation vector. The engines have this integrator built in, but do not
tell what they computed at its fourth stage: that is what Gymnasium's robots observe, see `robot_alone`.
"""

from types import ModuleType
from typing import Any

A = (0.0, 0.5, 0.5, 1.0)
B = (1 / 6, 1 / 3, 1 / 3, 1 / 6)


def move(xp: ModuleType, qpos: Any, delta: Any, free: bool) -> Any:
    """``qpos (+) delta``.

    Args:
        xp: ``numpy`` or ``jax.numpy``.
        qpos: coordinates, ``[..., nq]``.
        delta: displacement in the tangent space, ``[..., nv]``: m and rad; of a free joint in the world for its
            position, in the body's frame for its rotation vector.
        free: whether the first joint is a free one; all others have one coordinate each.

    Returns:
        Coordinates, ``[..., nq]``; the quaternion has length 1 if it had.
    """
    if not free:
        return qpos + delta
    quat = _turned(xp, qpos[..., 3:7], delta[..., 3:6])
    return xp.concatenate([qpos[..., :3] + delta[..., :3], quat, qpos[..., 7:] + delta[..., 6:]], axis=-1)


def _turned(xp: ModuleType, quat: Any, rotation: Any) -> Any:
    """Quaternion (w, x, y, z) after a rotation vector in its own frame."""
    angle = xp.sqrt(xp.sum(rotation**2, axis=-1, keepdims=True))
    vector = 0.5 * xp.sinc(angle / (2 * xp.pi)) * rotation  # sin(angle / 2) times the axis
    scalar = xp.cos(0.5 * angle)
    w, xyz = quat[..., :1], quat[..., 1:]
    return xp.concatenate(
        [
            w * scalar - xp.sum(xyz * vector, axis=-1, keepdims=True),
            w * vector + scalar * xyz + xp.cross(xyz, vector),
        ],
        axis=-1,
    )
