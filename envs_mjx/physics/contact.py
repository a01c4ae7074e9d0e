"""Which objects the robot touches, decided from poses: the same answer for every engine, simulated or not."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Bool, Float

from envs_mjx import lanes, scene
from envs_mjx.agents import Agent
from envs_mjx.collision import Convex, any_overlap
from envs_mjx.geometry import box_distance, quat_to_mat, to_world
from envs_mjx.objects import Objects
from envs_mjx.physics.mjx_as_c import as_c, mjx

_KINDS = {
    mujoco.mjtGeom.mjGEOM_SPHERE: ("sphere", 1),
    mujoco.mjtGeom.mjGEOM_CAPSULE: ("capsule", 2),
    mujoco.mjtGeom.mjGEOM_CYLINDER: ("cylinder", 2),
    mujoco.mjtGeom.mjGEOM_BOX: ("box", 3),
}


class RobotShapes(NamedTuple):
    """The robot's shapes that can touch things, ``shapes`` [G], and their ``poses``: robot qpos to [G, 3], [G, 3,
    3].
    """

    shapes: tuple[Convex, ...]
    poses: Callable[[Array], tuple[Float[Array, "G 3"], Float[Array, "G 3 3"]]]


def robot_shapes(agent: Agent) -> RobotShapes:
    """Shapes and forward kinematics of a robot."""
    model = scene.build(agent)
    solid = np.flatnonzero((model.geom_contype > 0) & (model.geom_bodyid > 0))
    with as_c():
        device_model = mjx.put_model(scene.build(agent, for_mjx=True), impl="jax")
        blank = mjx.make_data(device_model, impl="jax")

    def poses(qpos):
        data = mjx.kinematics(device_model, blank.replace(qpos=qpos))
        return data.geom_xpos[solid], data.geom_xmat[solid].reshape(-1, 3, 3)

    return RobotShapes(tuple(_convex(model, int(geom)) for geom in solid), poses)


def _convex(model: mujoco.MjModel, geom: int) -> Convex:
    kind = mujoco.mjtGeom(model.geom_type[geom])
    if kind == mujoco.mjtGeom.mjGEOM_MESH:
        mesh = model.geom_dataid[geom]
        start = model.mesh_vertadr[mesh]
        return Convex("mesh", (), model.mesh_vert[start : start + model.mesh_vertnum[mesh]].copy())
    name, length = _KINDS[kind]
    return Convex(name, tuple(model.geom_size[geom][:length].tolist()))  # type: ignore[arg-type]


def touching(robot: RobotShapes, radius: float, group: Objects) -> Callable[[Array, Array, Array], Bool[Array, " n"]]:
    """``(robot qpos, robot pos [3], poses [n, 7]) -> which of a group's objects the robot touches [n]``.

    Only objects within `radius` (m) of the robot's root are examined shape by shape, and only in the lanes of a batch
    where there are any.
    """
    parts = tuple(Convex(shape.kind, shape.size) for shape in group.shapes)
    places, half = jnp.array([shape.pos for shape in group.shapes]), jnp.array(group.half)

    def examine(qpos, pose):
        mat = quat_to_mat(pose[3:])
        mats = jnp.broadcast_to(mat, (len(parts), 3, 3))
        return any_overlap(robot.shapes, *robot.poses(qpos), parts, pose[:3] + to_world(places, mat), mats)

    def one(qpos, pos, pose):
        near = box_distance(pos, pose[:3], quat_to_mat(pose[3:]), half) <= radius + 1e-3
        return lanes.where(near, examine, jnp.bool_(False), qpos, pose)

    return jax.vmap(one, (None, None, 0))
