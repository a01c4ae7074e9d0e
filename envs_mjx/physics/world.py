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

from envs_mjx import lanes
from envs_mjx.agents import Agent
from envs_mjx.geometry import box_distance, quat_to_mat
from envs_mjx.hostcall import host_call
from envs_mjx.objects import Objects
from envs_mjx.physics import host_engine, mjx_engine, orbit
from envs_mjx.physics.state import SUBSTEPS, Bodies, PhysicsState

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
    asleep = _asleep(agent, bodies, horizon)
    move, evaluate = _with_mjx(agent, bodies) if engine == "mjx" else _with_host(agent, objects, bodies, horizon)

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
        active, distance = awake(agent, bodies, state, horizon)
        return move(asleep(state)._replace(steps=state.steps + 1), state, ctrl, active, distance)

    return Physics(init, step, evaluate, bodies)


def _with_mjx(agent: Agent, bodies: Bodies):
    nq, nv = agent.nq, agent.nv
    alone, still = mjx_engine.alone(agent), mjx_engine.alone(agent, substeps=0)
    contact = mjx_engine.contact(agent, bodies) if bodies.groups else None

    def move(base, state, ctrl, active, distance):
        base = _alone(agent, alone, base, state, ctrl)
        return contact(base, state, ctrl, active, distance) if contact else base

    def evaluate(state, ctrl):
        *_, qacc, touch = still(state.qpos[:nq], state.qvel[:nv], state.warmstart[:nv], ctrl)
        return state._replace(qacc=qacc, touch=touch)

    return move, evaluate


def _with_host(agent: Agent, objects: tuple[Objects, ...], bodies: Bodies, horizon: int):
    host = host_engine.stepper(agent, objects)
    alone = None if agent.on_floor else mjx_engine.alone(agent)

    def contact(base, state, ctrl, active):
        return host_call(host.step, f"{host.name}/step", base, base, state, ctrl, active, active.any() | agent.on_floor)

    def move(base, state, ctrl, active, distance):
        del distance
        if not alone:
            return contact(base, state, ctrl, active)
        base = _alone(agent, alone, base, state, ctrl)
        if not bodies.groups:
            return base
        args = (base, state, ctrl, active)
        return lanes.where(active.any(), contact, base, *args, chunk=HOST_CHUNK, zero_fill=True)

    def evaluate(state, ctrl):
        active = awake(agent, bodies, state, horizon)[0]
        return host_call(host.evaluate, f"{host.name}/evaluate", state, state, ctrl, active, jnp.bool_(True))

    return move, evaluate


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


def awake(
    agent: Agent, bodies: Bodies, state: PhysicsState, horizon: int
) -> tuple[Bool[Array, " B"], Float[Array, " B"]]:
    """Which bodies need dynamics in the coming control step, and their distance (m) from the robot's origin."""
    nq, nv, count = agent.nq, agent.nv, bodies.movable
    if not bodies.groups:
        return jnp.zeros(0, bool), jnp.zeros(0)
    pose = jnp.concatenate([state.qpos[nq:].reshape(-1, 7), state.home[count:]])
    velocity = state.qvel[nv:].reshape(count, 6)
    pos, mat = pose[:, :3], jax.vmap(quat_to_mat)(pose[:, 3:])
    robot = agent.motion(state.qpos[:nq], state.qvel[:nv], state.qacc)
    seconds = SUBSTEPS * agent.timestep
    margin = 0.5 * REACH_ACCELERATION * seconds**2
    half = jnp.array(bodies.half)

    def gap(point):
        return jax.vmap(box_distance, (None, 0, 0, 0))(point, pos, mat, half)

    speed, spin = jnp.linalg.norm(velocity[:, :3], axis=1), jnp.linalg.norm(velocity[:, 3:], axis=1)
    robot_travel = jnp.linalg.norm(robot.velocity) * seconds + margin
    distance = gap(robot.pos)
    active = distance < agent.radius + robot_travel
    active = active.at[:count].set(active[:count] | _disturbed(agent, bodies, state, speed, spin, horizon))
    travel = jnp.maximum(speed * seconds + margin, robot_travel)
    near = jax.vmap(gap)(pos[:count]) < (jnp.linalg.norm(half[:count], axis=1) + travel)[:, None]  # [mover, neighbour]
    for _ in range(count - (count == len(bodies.half))):  # a pushed object wakes its neighbours, and they theirs
        active |= jnp.any(near & active[:count, None], axis=0)
    return active, distance


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
