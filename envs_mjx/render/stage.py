"""What is drawn of a world: a MuJoCo model of everything in it, and how a state of the environment poses that model.

The model is for eyes only. Nothing collides in it: the robot keeps its joints, and every object, ghosts included, hangs
on a mocap body. Colours and cameras are those of Safety-Gymnasium (Ji et al. 2023, https://arxiv.org/abs/2310.12567).
Deviations: a black sky instead of its photographs of stars, simple shapes in place of the racecar's meshes, and nothing
nearer than 0.03 m is drawn, in all worlds (the original: 0.36 m in Run).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import mujoco
import numpy as np

from envs_mjx import models, registry
from envs_mjx.navigation import Navigation
from envs_mjx.objects import Shape
from envs_mjx.render import cameras, colours
from envs_mjx.velocity import Velocity

FLOOR_HALF = 3.5  # m
_STAGE = """
<mujoco>
  <compiler angle="radian"/>
  <statistic extent="3"/>
  <visual><map znear="0.01" zfar="50"/></visual>
  <asset>
    <texture name="sky" type="skybox" builtin="flat" rgb1="0 0 0" rgb2="0 0 0" width="16" height="16"/>
    <texture name="floor" type="2d" builtin="checker" rgb1="0.859 0.843 0.765" rgb2="0.949 0.914 0.855" width="128"
             height="128"/>
    <material name="floor" texture="floor" texrepeat="10 10" reflectance="0.1" shininess="0.1" specular="0.1"/>
    <material name="endless" texture="floor" texuniform="true" texrepeat="1 1"/>
  </asset>
  <worldbody><light type="directional" dir="0 0 -1" diffuse="1 1 1" specular="0 0 0" castshadow="false"/></worldbody>
</mujoco>
"""
_TYPES = {
    "sphere": mujoco.mjtGeom.mjGEOM_SPHERE,
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
}


class Seen(NamedTuple):
    """The part of a state that pictures show; of it alone a batch can leave the device."""

    physics: Any
    points: dict[str, Any]


def seen(state: Any) -> Seen:
    """What pictures show of a state, or of many; also inside `jax.jit`."""
    return Seen(state.physics, getattr(state, "points", {}))


class Pose(NamedTuple):
    """Coordinates of the robot ``[nq]``, and places ``[M, 3]`` and rotations (w, x, y, z) ``[M, 4]`` of all objects."""

    qpos: np.ndarray
    pos: np.ndarray
    quat: np.ndarray


class Stage(NamedTuple):
    """What is drawn of an environment.

    Attributes:
        id: of the environment.
        model: everything in it.
        pose: state of the environment to the pose of the model.
        root: number of the robot's root body.
        forward: the robot's nose in the frame of its root; None if it has none.
        axes: coordinates across and up a flat picture: x and y from above, or x and z from the side.
        rings: number of bins and colour of every lidar by the name of its block, in the order of the observation.
    """

    id: str
    model: mujoco.MjModel
    pose: Callable[[Any], Pose]
    root: int
    forward: tuple[float, float, float] | None
    axes: tuple[int, int]
    rings: dict[str, tuple[int, np.ndarray]]

    def camera(self, name: str) -> int:
        """Number of a camera.

        Raises:
            ValueError: there is none of that name.
        """
        known = [self.model.camera(i).name for i in range(self.model.ncam)]
        if name not in known:
            raise ValueError(f"{self.id}: there is no camera {name!r}; choose one of: {', '.join(known)}")
        return known.index(name)

    def place(self, data: mujoco.MjData, state: Any) -> None:
        """Puts everything in `data` where `state` says."""
        pose = self.pose(state)
        data.qpos[:] = pose.qpos
        data.mocap_pos[:], data.mocap_quat[:] = pose.pos, pose.quat
        mujoco.mj_kinematics(self.model, data)
        mujoco.mj_comPos(self.model, data)
        mujoco.mj_camlight(self.model, data)


@functools.lru_cache(maxsize=16)
def stage(env_id: str) -> Stage:
    """What is drawn of `env_id`, built once.

    Raises:
        ValueError: unknown id (the message suggests the nearest).
    """
    made = registry.builder(env_id, "mujoco")
    return _of_velocity(made) if isinstance(made, Velocity) else _of_navigation(made)


def _of_navigation(nav: Navigation) -> Stage:
    spec = mujoco.MjSpec.from_string(_STAGE)
    nav.agent.build(spec)
    colours.paint(spec, nav.agent.name)
    reach = [abs(x) + side for g in nav.task.objects for at in g.at for x, side in zip(at, g.half, strict=False)]
    _add_floor(spec, max(FLOOR_HALF, *reach, 0.0))
    for group in nav.task.objects:
        for i in range(group.number):
            body = spec.worldbody.add_body(name=f"{group.name}_{i}", mocap=True)
            for shape in group.shapes:
                _add_shape(body, shape, np.array(group.colour, float))
    cameras.add_world(spec)
    cameras.add_track(spec.body("agent"), cameras.BEHIND)
    eye = cameras.eye(nav.spec.id, nav.agent.name)
    cameras.add_vision(spec.body("agent"), eye)
    model = spec.compile()
    seen_by = {f"{group.name}_lidar": np.array(group.colour, float) for group in nav.task.objects}
    rings = {name: (size, seen_by[name]) for name, size in nav.spec.obs_blocks if name in seen_by}
    pose = functools.partial(_pose_navigation, nav)
    return Stage(nav.spec.id, model, pose, model.body("agent").id, eye.forward, (0, 1), rings)


def _of_velocity(made: Velocity) -> Stage:
    env_id, robot = made.spec.id, models.load(made.robot.model)
    spec = mujoco.MjSpec.from_string(_STAGE)
    models.attach(spec, robot)
    colours.paint(spec)
    _add_floor(spec, None, robot.floor.pos[2])
    flat = not any(joint.type == "free" or "z" in joint.name for joint in robot.joints)  # it swims in the plane
    cameras.add_world(spec)
    cameras.add_track(spec.body(robot.root), cameras.ABOVE if flat else cameras.BESIDE)
    model = spec.compile()
    nothing = np.zeros((0, 3)), np.zeros((0, 4))

    def pose(state: Any) -> Pose:
        return Pose(_coordinates(env_id, state, model.nq), *nothing)

    return Stage(env_id, model, pose, model.body(robot.root).id, None, (0, 1) if flat else (0, 2), {})


def _add_floor(spec: mujoco.MjSpec, half: float | None, height: float = 0.0) -> None:
    """Adds a square floor, or an endless one without `half`."""
    size, material = ([0, 0, 1], "endless") if half is None else ([half, half, 0.1], "floor")
    spec.worldbody.add_geom(
        name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=size, pos=[0, 0, height], material=material
    )


def _add_shape(body: Any, shape: Shape, colour: np.ndarray) -> None:
    size = (*shape.size, 0.0, 0.0)[:3]
    body.add_geom(type=_TYPES[shape.kind], size=size, pos=shape.pos, rgba=colour, contype=0, conaffinity=0)


def _pose_navigation(nav: Navigation, state: Any) -> Pose:
    nq, bodies = nav.agent.nq, nav.physics.bodies
    qpos = _coordinates(nav.spec.id, state, nq + 7 * bodies.movable)
    fixed = np.asarray(state.physics.home)[bodies.movable :]
    solid = np.concatenate([qpos[nq:].reshape(-1, 7), fixed])
    pos, quat = [np.zeros((0, 3))], [np.zeros((0, 4))]
    for group in nav.task.objects:
        if group.kind == "ghost":
            xy = np.asarray(state.points[group.name])
            pos.append(np.column_stack([xy, np.full(len(xy), group.height)]))
            quat.append(np.tile([1.0, 0.0, 0.0, 0.0], (len(xy), 1)))
        elif group.number:
            poses = solid[bodies.slice(group.name)]
            pos.append(poses[:, :3])
            quat.append(poses[:, 3:])
    return Pose(qpos[:nq], np.concatenate(pos), np.concatenate(quat))


def _coordinates(env_id: str, state: Any, size: int) -> np.ndarray:
    """``qpos`` of a state.

    Raises:
        ValueError: the state belongs to another environment, or to many.
    """
    qpos = np.asarray(state.physics.qpos)
    if qpos.shape != (size,):
        raise ValueError(
            f"{env_id}: cannot draw a state with coordinates of shape {qpos.shape}; pass one state of this environment "
            f"(shape ({size},)), of a batch jax.tree.map(lambda x: x[i], state)."
        )
    return qpos
