"""A world's physics: which bodies need an engine, and which engine moves them.

In most steps the robot touches nothing. Objects out of its reach are then where they were (or on their orbit), which
costs nothing; only objects that move or are within reach are *awake* and enter a contact solve, see `lanes`. A robot
that the floor does not carry (Point) moves in closed form, see `planar`, unless something is awake.

Engines, chosen by name:

    "mjx"     everything else in MJX. Runs on GPU, TPU and CPU. At most `mjx_engine.SLOTS` objects of a group are
              simulated at once, those nearest to the robot; a further one pauses for the step.
    "mujoco"  contact steps in MuJoCo's C engine (float64, on the host's CPU), with all objects concerned.

Both run `SUBSTEPS` steps of the robot's own integrator (semi-implicit Euler with implicit joint damping, or 4th-order
Runge-Kutta), then evaluate the forward dynamics once more without integrating, so that accelerations belong to the new
state.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from envs_mjx import lanes, scene
from envs_mjx.agents import Agent
from envs_mjx.geometry import Vec3, box_distance, quat_to_mat, to_world
from envs_mjx.hostcall import host_call
from envs_mjx.objects import Objects
from envs_mjx.physics import host_engine, mjx_engine, orbit
from envs_mjx.physics.state import SUBSTEPS, Bodies, PhysicsState
from envs_mjx.sensors import BodyMotion

ENGINES = ("mjx", "mujoco")
HOST_CHUNK = 64

# An object slower than this is at rest and is frozen once out of reach; ten times below the speed that costs.
REST_SPEED, REST_SPIN = 1e-5, 1e-4  # m/s, rad/s
ON_TRACK, ON_TRACK_SPEED, ON_TRACK_TURN = 1e-5, 1e-4, 1e-4  # m, m/s, rad: when an orbiting object is undisturbed
REACH_ACCELERATION = 25.0  # m/s^2, bounds the speed gained within one control step


class Physics(NamedTuple):
    """Pure functions of one world.

    Attributes:
        init: ``(robot qpos, home [B, 7]) -> state`` at rest.
        step: ``(state, ctrl) -> state`` over one control step.
        evaluate: ``(state, ctrl) -> state`` with accelerations and touch computed anew; nothing moves.
        bodies: numbering of the bodies.
    """

    init: Callable[[Array, Array], PhysicsState]
    step: Callable[[PhysicsState, Array], PhysicsState]
    evaluate: Callable[[PhysicsState, Array], PhysicsState]
    bodies: Bodies


def default_engine() -> str:
    """``"mujoco"`` where JAX computes on the CPU, else ``"mjx"``."""
    return "mujoco" if jax.default_backend() == "cpu" else "mjx"


def make(agent: Agent, objects: tuple[Objects, ...], engine: str, horizon: int) -> Physics:
    """Physics of `agent` among `objects`.

    Args:
        agent: robot.
        objects: groups of objects; ghosts are ignored.
        engine: one of `ENGINES`.
        horizon: control steps of an episode; beyond, orbiting objects are simulated even if undisturbed.

    Raises:
        ValueError: unknown engine.
    """
    if engine not in ENGINES:
        raise ValueError(f"Unknown physics engine {engine!r}; choose one of: {', '.join(ENGINES)}.")
    bodies = Bodies.of(objects)
    asleep, awake = _asleep(agent, bodies, horizon), _awake(agent, bodies, horizon)
    alone = None if engine == "mujoco" and agent.on_floor else mjx_engine.alone(agent)
    meet, evaluate = _with_mjx(agent, bodies) if engine == "mjx" else _with_host(agent, objects, awake)

    def init(qpos, home):
        objects = bodies.movable
        state = PhysicsState(
            qpos=jnp.concatenate([qpos, home[:objects].reshape(-1)]),
            qvel=jnp.zeros(agent.nv + 6 * objects),
            qacc=jnp.zeros(agent.nv),
            warmstart=jnp.zeros(agent.nv + 6 * objects),
            touch=jnp.zeros(agent.touch_sensors),
            home=home,
            steps=jnp.int32(0),
        )
        return evaluate(state, jnp.zeros(len(agent.action_low))) if agent.on_floor else state

    def step(state: PhysicsState, ctrl):
        ctrl = jnp.where(jnp.isfinite(ctrl).all(), ctrl, 0.0)  # of a bad control C writes a log file
        base = asleep(state)._replace(steps=state.steps + 1)
        if alone:
            base = _alone(agent, alone, base, state, ctrl)
        return meet(base, state, ctrl, *awake(state, base)) if meet else base

    return Physics(init, step, evaluate, bodies)


def _with_mjx(agent: Agent, bodies: Bodies):
    nq, nv = agent.nq, agent.nv
    still = mjx_engine.alone(agent, substeps=0)

    def evaluate(state, ctrl):
        *_, qacc, touch = still(state.qpos[:nq], state.qvel[:nv], state.warmstart[:nv], ctrl)
        return state._replace(qacc=qacc, touch=touch)

    return (mjx_engine.contact(agent, bodies) if bodies.groups else None), evaluate


def _with_host(agent: Agent, objects: tuple[Objects, ...], awake):
    host = host_engine.stepper(agent, objects)

    def step(base, state, ctrl, active):
        return host_call(host.step, f"{host.name}/step", base, base, state, ctrl, active, active.any() | agent.on_floor)

    def meet(base, state, ctrl, active, distance):
        del distance
        moving = base._replace(home=None, steps=None)  # neither changes, so that neither is copied
        args = (moving, state._replace(qacc=None, touch=None), ctrl, active)
        if agent.on_floor:
            moving = step(*args)
        else:
            moving = lanes.where(active.any(), step, moving, *args, chunk=HOST_CHUNK, zero_fill=True)
        return moving._replace(home=base.home, steps=base.steps)

    def evaluate(state, ctrl):
        active = awake(state, state)[0]
        return host_call(host.evaluate, f"{host.name}/evaluate", state, state, ctrl, active, jnp.bool_(True))

    return (meet if host.bodies.groups or agent.on_floor else None), evaluate


def _alone(agent: Agent, run, base: PhysicsState, state: PhysicsState, ctrl) -> PhysicsState:
    """`base` with the robot moved as if there were no objects."""
    nq, nv = agent.nq, agent.nv
    qpos, qvel, warmstart, qacc, touch = run(state.qpos[:nq], state.qvel[:nv], state.warmstart[:nv], ctrl)
    return base._replace(
        qpos=base.qpos.at[:nq].set(qpos),
        qvel=base.qvel.at[:nv].set(qvel),
        warmstart=base.warmstart.at[:nv].set(warmstart),
        qacc=qacc,
        touch=touch,
    )


def _tracks(agent: Agent, bodies: Bodies, horizon: int):
    """Offset and velocity [horizon + 1, O, 3] of all undisturbed orbiting objects by control step."""
    tracks = [
        orbit.track(group, agent.timestep, agent.integrator, max(horizon, 1))
        for group in bodies.groups
        if group.kind == "orbiting"
        for _ in range(group.number)
    ]
    return tuple(jnp.stack([getattr(track, name) for track in tracks], axis=1) for name in ("offset", "velocity"))


def _asleep(agent: Agent, bodies: Bodies, horizon: int):
    """State -> state of all objects after a step in which nothing touches them; the robot does not move."""
    nq, nv, count = agent.nq, agent.nv, bodies.movable
    tracks = _tracks(agent, bodies, horizon) if bodies.orbiting.any() else None

    def run(state: PhysicsState) -> PhysicsState:
        pose = state.qpos[nq:].reshape(count, 7)
        velocity = jnp.zeros((count, 6))
        if tracks:
            offset, speed = (x[jnp.minimum(state.steps + 1, horizon)] for x in tracks)
            orbiting = state.home[:count][bodies.orbiting]
            on_track = jnp.concatenate([orbiting[:, :3] + offset, orbiting[:, 3:]], axis=1)
            pose = pose.at[bodies.orbiting].set(on_track)
            velocity = velocity.at[bodies.orbiting, :3].set(speed)
        return state._replace(
            qpos=state.qpos.at[nq:].set(pose.reshape(-1)),
            qvel=state.qvel.at[nv:].set(velocity.reshape(-1)),
            warmstart=state.warmstart.at[nv:].set(0.0),
        )

    return run


def _awake(agent: Agent, bodies: Bodies, horizon: int):
    """``(state, state after the robot has moved alone) -> (which bodies [B] need dynamics in this control step, their
    distance (m) from the robot's origin [B])``.

    A body is awake if it moves by itself, if the robot may reach it, or if one that is awake may.
    """
    nq, nv, count = agent.nq, agent.nv, bodies.movable
    seconds = SUBSTEPS * agent.timestep
    margin = 0.5 * REACH_ACCELERATION * seconds**2
    half, size = bodies.half, np.linalg.norm(bodies.half, axis=1)
    in_reach = _in_reach(agent, margin)

    def poses(state: PhysicsState):
        pose = jnp.concatenate([state.qpos[nq:].reshape(-1, 7), state.home[count:]])
        return pose[:, :3], jax.vmap(quat_to_mat)(pose[:, 3:]), half

    def speeds(state: PhysicsState):
        velocity = state.qvel[nv:].reshape(count, 6)
        return jnp.linalg.norm(velocity[:, :3], axis=1), jnp.linalg.norm(velocity[:, 3:], axis=1)

    def reach(robot: BodyMotion):
        return agent.radius + jnp.linalg.norm(robot.velocity) * seconds + margin

    def look_closer(state: PhysicsState, base: PhysicsState, restless):
        boxes, robot = poses(state), _motion(agent, state)
        active = (_gaps(robot.pos, boxes) < reach(robot)) & in_reach(state, base, boxes)
        active = active.at[:count].set(active[:count] | restless)
        travel = jnp.maximum(speeds(state)[0], jnp.linalg.norm(robot.velocity)) * seconds + margin
        beside = jax.vmap(lambda pos: _gaps(pos, boxes))(boxes[0][:count]) < (size[:count] + travel)[:, None]
        for _ in range(count - (count == len(half))):  # a pushed object wakes its neighbours, and they theirs
            active |= jnp.any(beside & active[:count, None], axis=0)
        return active

    def awake(state: PhysicsState, base: PhysicsState) -> tuple[Bool[Array, " B"], Float[Array, " B"]]:
        if not bodies.groups:
            return jnp.zeros(0, bool), jnp.zeros(0)
        robot = _motion(agent, state)
        centres = jnp.concatenate([state.qpos[nq:].reshape(-1, 7), state.home[count:]])[:, :3]
        distance = jnp.linalg.norm(robot.pos - centres, axis=1)
        near = distance < size + reach(robot)  # of the balls around the boxes
        restless = _disturbed(agent, bodies, state, *speeds(state), horizon)
        some = near.any() | restless.any()
        return lanes.where(some, look_closer, jnp.zeros_like(near), state, base, restless), distance

    return awake


def _motion(agent: Agent, state: PhysicsState) -> BodyMotion:
    return agent.motion(state.qpos[: agent.nq], state.qvel[: agent.nv], state.qacc)


def _gaps(point: Vec3, boxes) -> Float[Array, " B"]:
    """Distances (m) of a point to boxes (centres, rotations, half-lengths)."""
    return jax.vmap(box_distance, (None, 0, 0, 0))(point, *boxes)


def _in_reach(agent: Agent, margin: float):
    """``(state, state after the robot has moved alone, boxes) -> which boxes a robot of one piece may touch``.

    Balls hold its shapes. A centre that goes from ``p`` to ``q`` along a straight line comes nowhere nearer to a box
    than ``(distance(p) + distance(q) - |q - p|) / 2``; the margin allows for the bend. For robots with joints all are.
    """
    model = scene.build(agent)
    if model.nbody > 2:
        return lambda state, base, boxes: jnp.bool_(True)
    solid = (model.geom_bodyid == 1) & (model.geom_contype > 0)
    centres, radii = (jnp.asarray(x[solid], jnp.float32) for x in (model.geom_pos, model.geom_rbound))

    def nearest(start, end, boxes):
        return 0.5 * (_gaps(start, boxes) + _gaps(end, boxes) - jnp.linalg.norm(end - start))

    def run(state: PhysicsState, base: PhysicsState, boxes) -> Bool[Array, " B"]:
        start, end = (at.pos + to_world(centres, at.mat) for at in (_motion(agent, state), _motion(agent, base)))
        clearance = jax.vmap(nearest, (0, 0, None))(start, end, boxes) - radii[:, None]
        return (clearance <= margin).any(axis=0)

    return run


def _disturbed(agent: Agent, bodies: Bodies, state: PhysicsState, speed, spin, horizon: int) -> Bool[Array, " D"]:
    """Which movable objects are not at rest, or not on their track."""
    restless = (speed > REST_SPEED) | (spin > REST_SPIN)
    if not bodies.orbiting.any():
        return restless
    offset, velocity = (x[jnp.minimum(state.steps, horizon)] for x in _tracks(agent, bodies, horizon))
    which = np.flatnonzero(bodies.orbiting)
    pose, home = state.qpos[agent.nq :].reshape(-1, 7)[which], state.home[which]
    moving = state.qvel[agent.nv :].reshape(-1, 6)[which, :3]
    turn = 2 * jnp.linalg.norm(_relative_rotation(home[:, 3:], pose[:, 3:]), axis=1)
    off = jnp.linalg.norm(pose[:, :3] - home[:, :3] - offset, axis=1) > ON_TRACK
    off |= jnp.linalg.norm(moving - velocity, axis=1) > ON_TRACK_SPEED
    off |= (turn > ON_TRACK_TURN) | (spin[which] > REST_SPIN) | (state.steps >= horizon)
    return restless.at[which].set(off)


def _relative_rotation(a: Float[Array, "n 4"], b: Float[Array, "n 4"]) -> Float[Array, "n 3"]:
    """Vector part of ``conj(a) b``."""
    return a[:, :1] * b[:, 1:] - b[:, :1] * a[:, 1:] - jnp.cross(a[:, 1:], b[:, 1:])
