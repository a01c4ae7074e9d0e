"""A velocity environment: Gymnasium's running robots with a limit on speed.

    reward = w_f v_x + alive - w_c sum_i a_i^2,     cost = [speed > threshold],     speed = v_x or sqrt(v_x^2 + v_y^2)

with the action as given, although the actuators clip it to their range. Velocities are displacements over a control
step; what is displaced, and which parts of the observation are stale, says `physics.robot_alone`.
Source: https://github.com/PKU-Alignment/safety-gymnasium (Ji et al. 2023, https://arxiv.org/abs/2310.12567), version
1.0.0, on the MuJoCo environments (version 4) of https://gymnasium.farama.org, version 0.28.1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from envs_mjx import physics
from envs_mjx.api import FAILED_REWARD, Env, EnvSpec, PRNGKey, TimeStep, full_precision
from envs_mjx.physics import HUGE, RobotState
from envs_mjx.velocity.robots import Robot

HORIZON = 1000


class State(NamedTuple):
    """Everything an episode needs to go on.

    Attributes:
        physics: the robot.
        time: steps since the reset.
    """

    physics: RobotState
    time: Int[Array, "*batch"]


class Outcome(NamedTuple):
    """A control step's velocity (m/s), the speed that may cost (m/s), reward, cost, and whether the robot fell."""

    velocity: Float[Array, "*batch 2"]
    speed: Float[Array, "*batch"]
    reward: Float[Array, "*batch"]
    cost: Float[Array, "*batch"]
    fell: Bool[Array, "*batch"]


class Velocity:
    """Builds the pure functions of one environment; `env` holds them. Keeps no state.

    Args:
        env_id: registered name.
        robot: robot and its task.
        version: ``"v0"`` or ``"v1"``, which differ in the threshold.
        engine: see `physics.robot_alone`.

    Raises:
        ValueError: unknown engine, or a version that the robot has no threshold for.
    """

    def __init__(self, env_id: str, robot: Robot, version: str, engine: str):
        if version not in robot.thresholds:
            raise ValueError(
                f"{env_id}: {robot.name} has no threshold for version {version!r}; use {', '.join(robot.thresholds)}."
            )
        self.robot, self.threshold = robot, robot.thresholds[version]
        self.in_plane = version in robot.planar
        self.physics = physics.make_alone(robot.model, robot.frame_skip, robot.measure, robot.senses, engine)
        setup = self.physics.setup
        self.hidden, model = setup.planar, setup.robot
        senses = tuple(zip(physics.SENSES, setup.sense_sizes, strict=True)) if robot.senses else ()
        self.spec = EnvSpec(
            id=env_id,
            obs_blocks=(("position", model.nq - setup.planar), ("velocity", model.nv), *senses),
            action_low=model.ctrl_low,
            action_high=model.ctrl_high,
            cost_names=("cost_velocity",),
            horizon=HORIZON,
            control_dt=robot.frame_skip * model.timestep,
            engine=engine,
        )
        self.env = Env(full_precision(self.reset), full_precision(self.step), self.spec)

    def reset(self, key: PRNGKey) -> tuple[State, Float[Array, " O"]]:
        """A new episode: the start pose with noise."""
        robot, model = self.robot, self.physics.setup.robot
        key_position, key_velocity = jax.random.split(key)
        noise, scale = robot.reset_noise, jnp.float32(robot.reset_noise)
        qpos = jnp.array(model.qpos0, jnp.float32)
        qpos += jax.random.uniform(key_position, qpos.shape, minval=-noise, maxval=noise)
        if self.physics.setup.free:
            qpos = qpos.at[3:7].divide(jnp.linalg.norm(qpos[3:7]))
        if robot.normal_velocity:
            qvel = scale * jax.random.normal(key_velocity, (model.nv,))
        else:
            qvel = jax.random.uniform(key_velocity, (model.nv,), minval=-noise, maxval=noise)
        body, senses = self.physics.init(qpos, qvel)
        return State(body, jnp.int32(0)), self.observe(body, senses)

    def step(self, state: State, action: Float[Array, " A"]) -> tuple[State, TimeStep]:
        """One control step.

        A simulation that diverges, or an action that is not finite, leaves the robot where it was; the senses that need
        a simulation are then zero.

        Raises:
            ValueError: the action has the wrong shape.
        """
        if action.shape != (self.spec.action_size,):
            raise ValueError(
                f"{self.spec.id}: an action needs shape ({self.spec.action_size},), got {action.shape}; "
                "batch environments with jax.vmap(env.step)."
            )
        action = action.astype(jnp.float32)
        body, moved, senses = self.physics.step(state.physics, action)
        numbers = [jnp.all(jnp.abs(x) < HUGE) for x in (*body, moved, senses)]
        sane = jnp.isfinite(action).all() & jnp.stack(numbers).all()
        body = jax.tree.map(lambda new, old: jnp.where(sane, new, old), body, state.physics)
        moved, senses = jnp.where(sane, moved, 0.0), jnp.where(sane, senses, 0.0)

        outcome = self.judge(moved, body.qpos, body.qvel, action)
        cost = jnp.where(sane, outcome.cost, 1.0)
        time = state.time + 1
        after = TimeStep(
            obs=self.observe(body, senses),
            reward=jnp.where(sane, outcome.reward, FAILED_REWARD),
            cost=cost[None],
            terminated=outcome.fell,
            truncated=(time >= self.spec.horizon) | ~sane,
            info={
                "cost": cost,
                "diverged": ~sane,
                "x_position": body.origin[0],
                "y_position": body.origin[1],
                "x_velocity": outcome.velocity[0],
                "y_velocity": outcome.velocity[1],
            },
        )
        return State(body, time), after

    def judge(self, moved: Float[Array, "2"], qpos, qvel, action: Float[Array, " A"]) -> Outcome:
        """What a step is worth.

        Args:
            moved: displacement during the step, m.
            qpos: coordinates after it.
            qvel: velocities after it.
            action: as given.
        """
        robot = self.robot
        velocity = moved / self.spec.control_dt
        speed = jnp.sqrt(jnp.sum(velocity**2)) if self.in_plane else velocity[0]
        reward = robot.forward * velocity[0] + robot.alive - robot.control_cost * jnp.sum(action**2)
        cost = (speed > self.threshold).astype(jnp.float32)
        return Outcome(velocity, speed, reward, cost, ~robot.healthy(qpos, qvel))

    def observe(self, body: RobotState, senses: Float[Array, " S"]) -> Float[Array, " O"]:
        """The flat observation, blocks in the order of ``spec.obs_blocks``; it does not say where the robot is."""
        limit = self.robot.velocity_limit
        return jnp.concatenate([body.qpos[self.hidden :], jnp.clip(body.qvel, -limit, limit), senses])
