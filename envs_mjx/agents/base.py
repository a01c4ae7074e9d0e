"""What a robot must provide."""

from collections.abc import Callable
from typing import NamedTuple

import mujoco
from jaxtyping import Array, Float

from envs_mjx.sensors import BodyMotion


class Shape(NamedTuple):
    """A sphere or box of the robot that can touch objects.

    Attributes:
        name: geom name.
        kind: ``"sphere"`` or ``"box"``.
        size: radius, or half-lengths, m.
        pos: centre in the body frame, m.
        friction: sliding, torsional (m) and rolling (m) coefficient.
    """

    name: str
    kind: str
    size: tuple[float, ...]
    pos: tuple[float, float, float]
    friction: tuple[float, float, float]


class Agent(NamedTuple):
    """A robot.

    Attributes:
        name: as in environment ids, e.g. ``"Point"``.
        add_to: adds the robot's body, joints and actuators to a spec; joint coordinates at zero put the body frame at
            the world origin.
        motion: ``(qpos, qvel, qacc)`` of the robot to the kinematics of its sensor site.
        place: ``(xy, yaw)`` to the robot's ``qpos`` at the start of an episode.
        shapes: what can touch objects.
        radius: of a sphere around the body origin that holds all shapes, m.
        nq: length of the robot's ``qpos``.
        nv: length of the robot's ``qvel``.
        timestep: of the physics, s.
        action_low: lowest control per actuator.
        action_high: highest control per actuator.
        keepout: radius for random placement, m.
    """

    name: str
    add_to: Callable[[mujoco.MjSpec], None]
    motion: Callable[..., BodyMotion]
    place: Callable[..., Float[Array, " nq"]]
    shapes: tuple[Shape, ...]
    radius: float
    nq: int
    nv: int
    timestep: float
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    keepout: float = 0.4
