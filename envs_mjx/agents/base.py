"""What a robot must provide."""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Bool, Float

from envs_mjx import models
from envs_mjx.api import PRNGKey
from envs_mjx.geometry import quat_to_mat, quat_z
from envs_mjx.models import RobotModel
from envs_mjx.sensors import BodyMotion

# Collision masks: bit 1 is the floor's, bit 2 that of everything else. The robot meets both, and itself.
ROBOT_MASKS = {"contype": 3, "conaffinity": 2}


def no_senses(qpos: Float[Array, " nq"], qvel: Float[Array, " nv"], touch: Float[Array, " T"]) -> Float[Array, "0"]:
    """A robot without joint or touch sensors."""
    return jnp.zeros(0)


def immortal(motion: BodyMotion) -> Bool[Array, ""]:
    """A robot that cannot die."""
    return jnp.bool_(True)


class Agent(NamedTuple):
    """A robot.

    Attributes:
        name: as in environment ids, e.g. ``"Point"``.
        build: adds bodies, joints, actuators (and touch sensors) to a spec; the root body is called ``"agent"``, and
            geoms that can touch things carry `ROBOT_MASKS`.
        on_floor: whether the floor carries the robot. If not, nothing touches it while it is alone.
        motion: ``(qpos, qvel, qacc)`` of the robot to the kinematics of its root body.
        place: ``(key, xy, yaw)`` to the robot's ``qpos`` at the start of an episode.
        radius: of a sphere around the root's origin that holds the robot in every posture, m.
        nq: length of the robot's ``qpos``.
        nv: length of the robot's ``qvel``.
        timestep: of the physics, s.
        integrator: MuJoCo's name of it.
        action_low: lowest control per actuator.
        action_high: highest control per actuator.
        sensor_site: of accelerometer and velocimeter in the root's frame, m.
        sense_blocks: name and length of the observations after the magnetometer.
        senses: ``(qpos, qvel, touch)`` to those observations.
        touch_sensors: number of touch sensors.
        alive: whether the robot, moving so, can go on; the episode terminates if not.
        keepout: radius for random placement, m.
        box_half: half edge length of the box that it can push, m.
        box_density: of that box, kg/m^3.
    """

    name: str
    build: Callable[[mujoco.MjSpec], None]
    on_floor: bool
    motion: Callable[..., BodyMotion]
    place: Callable[..., Float[Array, " nq"]]
    radius: float
    nq: int
    nv: int
    timestep: float
    integrator: mujoco.mjtIntegrator
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    sensor_site: tuple[float, float, float] = (0.0, 0.0, 0.0)
    sense_blocks: tuple[tuple[str, int], ...] = ()
    senses: Callable[..., Float[Array, " E"]] = no_senses
    touch_sensors: int = 0
    alive: Callable[[BodyMotion], Bool[Array, ""]] = immortal
    keepout: float = 0.4
    box_half: float = 0.2
    box_density: float = 0.001


def free_motion(qpos: Float[Array, " nq"], qvel: Float[Array, " nv"], qacc: Float[Array, " nv"]) -> BodyMotion:
    """Kinematics of a root body with a free joint, whose coordinates come first."""
    return BodyMotion(
        pos=qpos[:3],
        mat=quat_to_mat(qpos[3:7]),
        velocity=qvel[:3],
        spin=qvel[3:6],
        acceleration=qacc[:3],
        spin_rate=qacc[3:6],
    )


def from_model(name: str, robot: RobotModel, **rest: Any) -> Agent:
    """A robot with a free root joint that stands on the floor, from the numbers of its model.

    Args:
        name: as in environment ids.
        robot: its model.
        rest: further attributes of `Agent`; ``place`` stands it upright with all joints at zero unless given.
    """

    def place(key: PRNGKey, xy: Float[Array, "2"], yaw: Float[Array, ""]) -> Float[Array, " nq"]:
        return jnp.concatenate([xy, jnp.array([robot.bodies[0].pos[2]]), quat_z(yaw), rest_pose(robot)])

    def build(spec: mujoco.MjSpec) -> None:
        models.attach(spec, robot, **ROBOT_MASKS)

    numbers = dict(
        build=build,
        on_floor=True,
        motion=free_motion,
        place=place,
        radius=reach(robot),
        nq=robot.nq,
        nv=robot.nv,
        timestep=robot.timestep,
        integrator=getattr(mujoco.mjtIntegrator, f"mjINT_{robot.integrator.upper()}"),
        action_low=robot.ctrl_low,
        action_high=robot.ctrl_high,
    )
    return Agent(name=name, **(numbers | rest))


def rest_pose(robot: RobotModel) -> Float[Array, " _"]:
    """Coordinates of all joints after the root's in the start pose: zeros, and unit quaternions of ball joints."""
    pose = [[1.0, 0.0, 0.0, 0.0] if joint.type == "ball" else [joint.ref] for joint in robot.joints[1:]]
    return jnp.array([x for coordinates in pose for x in coordinates])


def reach(robot: RobotModel) -> float:
    """Radius (m) around the root's origin that no geom leaves in any posture: lengths along each limb added up."""
    along = {"world": 0.0}
    for body in robot.bodies:
        along[body.name] = along[body.parent] + (math.hypot(*body.pos) if body.parent != "world" else 0.0)
    bounds = {"sphere": lambda s: s[0], "capsule": lambda s: s[0] + s[1], "box": lambda s: math.hypot(*s[:3])}
    bounds["cylinder"] = lambda s: math.hypot(*s[:2])

    def bound(geom) -> float:
        if geom.type == "mesh":
            return max(math.hypot(*vertex) for vertex in geom.vertices)
        return bounds[geom.type](geom.size)

    return max(along[geom.body] + math.hypot(*geom.pos) + bound(geom) for geom in robot.geoms)


def addresses(robot: RobotModel, joints: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """Where hinge or slide `joints` are in the robot's ``qpos`` and ``qvel``."""
    order = [joint.name for joint in robot.joints]
    width = np.cumsum([0, *({"free": 7, "ball": 4}.get(joint.type, 1) for joint in robot.joints)])
    freedom = np.cumsum([0, *({"free": 6, "ball": 3}.get(joint.type, 1) for joint in robot.joints)])
    index = [order.index(name) for name in joints]
    return width[index], freedom[index]


def sin_cos(angles: Float[Array, " n"]) -> Float[Array, " 2*n"]:
    """Angles as pairs (sin, cos)."""
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=1).reshape(-1)
