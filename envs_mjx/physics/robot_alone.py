"""Physics of one robot alone on its floor, as Gymnasium's MuJoCo robots (version 4) are simulated.

Nothing in such a world depends on where it is in the plane, so a state is kept with its root at x = y = 0: float32
then holds displacements to 1e-7 of themselves however far the robot has run.

After a control step Gymnasium reads coordinates and velocities that are new, but everything else as the engine's last
evaluation left it. With Runge-Kutta that is the fourth stage of the last substep, up to 5 mm from the new state. Speeds
of Ant and Humanoid, and most of what Humanoid observes, are such *stale* quantities; here they are too.

Engines, chosen by name as in `world`:

    "mjx"     MJX, with Newton's solver, `mjx_engine.SOLVER_ITERATIONS` iterations in float32, for every robot.
    "mujoco"  MuJoCo's C engine (float64, on the host's CPU) with the original's solver: PGS for Humanoid, else Newton.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from envs_mjx import models
from envs_mjx.physics import robot_host, robot_mjx
from envs_mjx.physics.robot_setup import RobotSetup
from envs_mjx.physics.world import ENGINES


class RobotState(NamedTuple):
    """A robot whose root is at x = y = 0.

    Attributes:
        qpos: coordinates, those of the root in the plane 0, ``[nq]``.
        qvel: velocities, ``[nv]``.
        warmstart: accelerations of the last evaluation, where the contact solver starts, ``[nv]``.
        point: where, at that evaluation, the point whose speed counts was, in the plane from the root, m, ``[2]``.
        origin: where the root is in the world, m, ``[2]``.
    """

    qpos: Float[Array, "*batch nq"]
    qvel: Float[Array, "*batch nv"]
    warmstart: Float[Array, "*batch nv"]
    point: Float[Array, "*batch 2"]
    origin: Float[Array, "*batch 2"]


class RobotPhysics(NamedTuple):
    """Pure functions of one robot.

    Attributes:
        init: ``(qpos, qvel) -> (state, senses)``, everything evaluated at this state, the contact forces zero.
        step: ``(state, ctrl) -> (state, moved, senses)`` over one control step: how far (m, ``[2]``) the point whose
            speed counts has moved, and the senses that `robot_setup.SENSES` names, ``[S]``.
        setup: what is simulated.
    """

    init: Callable[[Array, Array], tuple[RobotState, Array]]
    step: Callable[[RobotState, Array], tuple[RobotState, Array, Array]]
    setup: RobotSetup


@functools.cache  # equal robots share one: functions registered with `host_call` are never forgotten
def make(robot: str, frame_skip: int, measure: str, senses: bool, engine: str) -> RobotPhysics:
    """Physics of `robot`, see `RobotPhysics`.

    Args:
        robot: one of `envs_mjx.models.names()`.
        frame_skip: physics steps in a control step.
        measure: whose speed counts: that of the root's new ``"coordinates"``, of the (stale) ``"root"``, or of the
            (stale) centre of ``"mass"``.
        senses: whether the (stale) senses are computed.
        engine: ``"mjx"`` or ``"mujoco"``.

    Raises:
        ValueError: unknown engine, robot or measure.
    """
    if engine not in ENGINES:
        raise ValueError(f"Unknown physics engine {engine!r}; choose one of: {', '.join(ENGINES)}.")
    setup = RobotSetup.of(models.load(robot), frame_skip, measure, senses)
    evaluate, advance = {"mjx": robot_mjx.functions, "mujoco": robot_host.functions}[engine](setup)

    def init(qpos, qvel):
        origin = jnp.zeros(2).at[: setup.planar].set(qpos[: setup.planar])
        qpos = qpos.at[: setup.planar].set(0.0)
        point, sensed = evaluate(qpos, qvel)
        return RobotState(qpos, qvel, jnp.zeros(setup.nv), point, origin), sensed

    def step(state: RobotState, ctrl):
        ctrl = jnp.where(jnp.isfinite(ctrl).all(), ctrl, 0.0)  # of a bad control C writes a log file
        *body, shift, moved, sensed = advance(state.qpos, state.qvel, state.warmstart, state.point, ctrl)
        return RobotState(*body, origin=state.origin + shift), moved, sensed

    return RobotPhysics(init, step, setup)
