"""The robots that run: what they are rewarded for, when they fall, how fast they may be.

Numbers: Gymnasium 0.28.1's MuJoCo environments, version 4, and Safety-Gymnasium 1.0.0, which adds the thresholds.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool


class Robot(NamedTuple):
    """A robot and its task.

    Attributes:
        name: as in the environment's id.
        model: its name in `envs_mjx.models`.
        frame_skip: physics steps in a control step.
        thresholds: speed (m/s) above which a step costs, by version.
        reset_noise: half-width of the uniform noise on the coordinates at the start, and scale of that on velocities.
        control_cost: weight of the sum of squared actions.
        alive: reward of every step, also of that in which the robot falls.
        forward: weight of the speed along x.
        healthy: ``(qpos, qvel) -> bool``; an episode terminates when it is false.
        measure: whose speed counts, see `physics.robot_alone.make`.
        planar: versions in which the speed that may cost is that in the plane, not that along x.
        normal_velocity: whether the noise on velocities is normal instead of uniform.
        velocity_limit: observed velocities are clipped to this.
        senses: whether the robot observes `physics.SENSES`.
    """

    name: str
    model: str
    frame_skip: int
    thresholds: Mapping[str, float]
    reset_noise: float
    control_cost: float
    alive: float = 0.0
    forward: float = 1.0
    healthy: Callable[[Array, Array], Bool[Array, ""]] = lambda qpos, qvel: jnp.bool_(True)
    measure: str = "coordinates"
    planar: tuple[str, ...] = ()
    normal_velocity: bool = False
    velocity_limit: float = float("inf")
    senses: bool = False


def _ant_healthy(qpos, qvel):
    return (qpos[2] >= 0.2) & (qpos[2] <= 1.0)


def _hopper_healthy(qpos, qvel):
    rest = jnp.abs(jnp.concatenate([qpos[2:], qvel])) < 100.0
    return (qpos[1] > 0.7) & (jnp.abs(qpos[2]) < 0.2) & rest.all()


def _walker_healthy(qpos, qvel):
    return (qpos[1] > 0.8) & (qpos[1] < 2.0) & (jnp.abs(qpos[2]) < 1.0)


def _humanoid_healthy(qpos, qvel):
    return (qpos[2] > 1.0) & (qpos[2] < 2.0)


ROBOTS = (
    Robot(
        name="Ant",
        model="velocity_ant",
        frame_skip=5,
        thresholds={"v0": 2.5745, "v1": 2.6222},
        reset_noise=0.1,
        control_cost=0.5,
        alive=1.0,
        healthy=_ant_healthy,
        measure="root",
        planar=("v0", "v1"),
        normal_velocity=True,
    ),
    Robot(
        name="HalfCheetah",
        model="velocity_half_cheetah",
        frame_skip=5,
        thresholds={"v0": 2.8795, "v1": 3.2096},
        reset_noise=0.1,
        control_cost=0.1,
        normal_velocity=True,
    ),
    Robot(
        name="Hopper",
        model="velocity_hopper",
        frame_skip=4,
        thresholds={"v0": 0.37315, "v1": 0.7402},
        reset_noise=0.005,
        control_cost=0.001,
        alive=1.0,
        healthy=_hopper_healthy,
        velocity_limit=10.0,
    ),
    Robot(
        name="Walker2d",
        model="velocity_walker2d",
        frame_skip=4,
        thresholds={"v0": 1.7075, "v1": 2.3415},
        reset_noise=0.005,
        control_cost=0.001,
        alive=1.0,
        healthy=_walker_healthy,
        velocity_limit=10.0,
    ),
    Robot(
        name="Swimmer",
        model="velocity_swimmer",
        frame_skip=4,
        thresholds={"v0": 0.04845, "v1": 0.2282},
        reset_noise=0.1,
        control_cost=1e-4,
        planar=("v0",),
    ),
    Robot(
        name="Humanoid",
        model="velocity_humanoid",
        frame_skip=5,
        thresholds={"v0": 2.3475, "v1": 1.4149},
        reset_noise=0.01,
        control_cost=0.1,
        alive=5.0,
        forward=1.25,
        healthy=_humanoid_healthy,
        measure="mass",
        planar=("v0", "v1"),
        senses=True,
    ),
)
