"""The only file that calls a physics engine.

A world is one robot and ``V`` equal boxes. In most steps nothing touches anything: the robot then moves on its own
(`free` below, MuJoCo MJX without a single contact slot) and the boxes stand still, which costs nothing. Only the
environments in which a box moves or is within the robot's reach pay for a contact solve (`contact`), see `lanes`.

Engines, chosen by name:

    "mjx"     contact steps in MJX too. Runs on GPU, TPU and CPU. At most `MJX_SLOTS` boxes are simulated at once, those
              nearest to the robot; a further moving box pauses for the step (needs four boxes in motion at once).
    "mujoco"  contact steps in MuJoCo's C engine (float64, on the host's CPU), with all boxes concerned.

Both integrate `SUBSTEPS` semi-implicit Euler steps with implicit joint damping, then evaluate the forward dynamics once
more without integrating, so that accelerations belong to the new state.
"""

import contextlib
import io
import os
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import mujoco.batch
import numpy as np
from jaxtyping import Array, Bool, Float

from envs_mjx import lanes, scene
from envs_mjx.agents import Agent
from envs_mjx.geometry import box_distance, quat_to_mat
from envs_mjx.scene import FreeBox

with contextlib.redirect_stdout(io.StringIO()):  # it prints that Warp, which is optional, is missing
    from mujoco import mjx

SUBSTEPS = 10
MJX_SLOTS = 3
MJX_SOLVER_ITERATIONS, MJX_LINE_SEARCH_ITERATIONS = 8, 10
HOST_CHUNK = 64
ENGINES = ("mjx", "mujoco")

# A box slower than this is at rest and is frozen once out of reach; ten times below the speed that costs.
REST_SPEED, REST_SPIN = 1e-5, 1e-4  # m/s, rad/s
REACH_MARGIN = 0.005  # m, covers the speed gained within one control step


class PhysicsState(NamedTuple):
    """Generalised state of robot and boxes.

    Attributes:
        qpos: robot coordinates, then position (m) and quaternion (w, x, y, z) of every box, ``[nq + 7 V]``.
        qvel: robot velocities, then linear (world) and angular (body) velocity of every box, ``[nv + 6 V]``.
        qacc: accelerations of the robot at this state under the last control, ``[nv]``.
        warmstart: accelerations of the last substep, where the contact solver starts, ``[nv + 6 V]``.
    """

    qpos: Float[Array, " Q"]
    qvel: Float[Array, " N"]
    qacc: Float[Array, " nv"]
    warmstart: Float[Array, " N"]


class Physics(NamedTuple):
    """``init(qpos) -> state`` at rest, and ``step(state, ctrl) -> state`` over one control step."""

    init: Callable[[Array], PhysicsState]
    step: Callable[[PhysicsState, Array], PhysicsState]


def default_engine() -> str:
    """``"mujoco"`` where JAX computes on the CPU, else ``"mjx"``."""
    return "mujoco" if jax.default_backend() == "cpu" else "mjx"


def make(agent: Agent, box: FreeBox, count: int, engine: str) -> Physics:
    """Physics of `agent` among `count` boxes.

    Raises:
        ValueError: unknown engine.
    """
    if engine not in ENGINES:
        raise ValueError(f"Unknown physics engine {engine!r}; choose one of: {', '.join(ENGINES)}.")
    nq, nv = agent.nq, agent.nv
    free = _mjx_step(scene.build(agent, None, 0))

    def init(qpos):
        num = nv + 6 * count
        return PhysicsState(qpos, jnp.zeros(num), jnp.zeros(nv), jnp.zeros(num))

    def step(state: PhysicsState, ctrl):
        qpos, qvel, qacc, warmstart = free(state.qpos[:nq], state.qvel[:nv], state.warmstart[:nv], ctrl)
        if count == 0:
            return PhysicsState(qpos, qvel, qacc, warmstart)
        active, distance = _awake(agent, box, state)
        active &= jnp.isfinite(ctrl).all()  # of a bad control C writes a log file; the robot alone fails as well
        still = jnp.zeros(6 * count)
        alone = PhysicsState(
            jnp.concatenate([qpos, state.qpos[nq:]]),
            jnp.concatenate([qvel, still]),
            qacc,
            jnp.concatenate([warmstart, still]),
        )
        return contact(alone, state, ctrl, active, distance)

    contact = {"mjx": _mjx_contact, "mujoco": _host_contact}[engine](agent, box, count)
    return Physics(init, step)


def _awake(agent: Agent, box: FreeBox, state: PhysicsState) -> tuple[Bool[Array, " V"], Float[Array, " V"]]:
    """Which boxes need dynamics in the coming control step, and their distance (m) from the robot's origin."""
    nq, nv = agent.nq, agent.nv
    pose, velocity = state.qpos[nq:].reshape(-1, 7), state.qvel[nv:].reshape(-1, 6)
    pos, mat = pose[:, :3], jax.vmap(quat_to_mat)(pose[:, 3:])
    robot = agent.motion(state.qpos[:nq], state.qvel[:nv], state.qacc)
    half = jnp.full(3, box.half)
    seconds = SUBSTEPS * agent.timestep

    def gap(point):
        return jax.vmap(box_distance, (None, 0, 0, None))(point, pos, mat, half)

    speed, spin = jnp.linalg.norm(velocity[:, :3], axis=1), jnp.linalg.norm(velocity[:, 3:], axis=1)
    robot_travel = jnp.linalg.norm(robot.velocity) * seconds + REACH_MARGIN
    distance = gap(robot.pos)
    active = (speed > REST_SPEED) | (spin > REST_SPIN) | (distance < agent.radius + robot_travel)
    box_travel = jnp.maximum(speed * seconds + REACH_MARGIN, robot_travel)
    near = jax.vmap(gap)(pos) < box.bounding_radius + box_travel[:, None]  # [mover, neighbour]
    for _ in range(pos.shape[0] - 1):  # a pushed box wakes its neighbours, and they theirs
        active |= jnp.any(near & active[:, None], axis=0)
    return active, distance


def _mjx_step(model: mujoco.MjModel):
    """(qpos, qvel, warmstart, ctrl) -> (qpos, qvel, qacc, warmstart) over one control step in MJX."""
    model.opt.iterations, model.opt.ls_iterations = MJX_SOLVER_ITERATIONS, MJX_LINE_SEARCH_ITERATIONS
    device_model = mjx.put_model(model, impl="jax")
    blank = mjx.make_data(model, impl="jax")

    def substep(carry, last):
        data = mjx.forward(device_model, blank.replace(**carry))
        moved = mjx.euler(device_model, data)
        carry = {name: jnp.where(last, value, getattr(moved, name)) for name, value in carry.items()}
        return carry, data.qacc

    def run(qpos, qvel, warmstart, ctrl):
        # one more pass than substeps: the last evaluates accelerations and does not move
        carry = dict(qpos=qpos, qvel=qvel, qacc_warmstart=warmstart, ctrl=ctrl)
        carry, qacc = jax.lax.scan(substep, carry, jnp.arange(SUBSTEPS + 1) == SUBSTEPS)
        return carry["qpos"], carry["qvel"], qacc[-1], carry["qacc_warmstart"]

    return run


def _mjx_contact(agent: Agent, box: FreeBox, count: int):
    """Contact steps in MJX: one compiled model for a single box, one for several."""
    nq, nv = agent.nq, agent.nv

    def with_slots(slots: int):
        advance = _mjx_step(scene.build(agent, box, slots, corner_points=True))

        def run(alone: PhysicsState, state: PhysicsState, ctrl, active, distance):
            chosen = jnp.argsort(jnp.where(active, distance, jnp.inf))[:slots]

            def gather(x, num, width):
                return jnp.concatenate([x[:num], x[num:].reshape(-1, width)[chosen].reshape(-1)])

            def scatter(base, x, num, width):
                boxes = base[num:].reshape(-1, width)
                new = jnp.where(active[chosen, None], x[num:].reshape(-1, width), boxes[chosen])
                return jnp.concatenate([x[:num], boxes.at[chosen].set(new).reshape(-1)])

            qpos, qvel, qacc, warmstart = advance(
                gather(state.qpos, nq, 7), gather(state.qvel, nv, 6), gather(state.warmstart, nv, 6), ctrl
            )
            paused = active.at[chosen].set(False)
            velocity = jnp.where(paused[:, None], state.qvel[nv:].reshape(-1, 6), 0.0).reshape(-1)
            base = alone._replace(qvel=alone.qvel.at[nv:].set(velocity))
            return PhysicsState(
                scatter(base.qpos, qpos, nq, 7),
                scatter(base.qvel, qvel, nv, 6),
                qacc[:nv],
                scatter(base.warmstart, warmstart, nv, 6),
            )

        return run

    single, several = with_slots(1), with_slots(min(count, MJX_SLOTS))

    def contact(alone, state, ctrl, active, distance):
        args = (alone, state, ctrl, active, distance)
        number = jnp.sum(active)
        out = lanes.where(number == 1, single, alone, *args)
        return lanes.where(number > 1, several, out, *args, chunk=8) if count > 1 else out

    return contact


def _host_contact(agent: Agent, box: FreeBox, count: int):
    """Contact steps in MuJoCo's C engine, through a host callback."""
    host = _HostStepper(agent, box, count)

    def run(alone: PhysicsState, state: PhysicsState, ctrl, active):
        return jax.pure_callback(host, alone, alone, state, ctrl, active, vmap_method="broadcast_all")

    def contact(alone, state, ctrl, active, distance):
        del distance
        return lanes.where(active.any(), run, alone, alone, state, ctrl, active, chunk=HOST_CHUNK, zero_fill=True)

    return contact


class _HostStepper:
    """Steps the rows of a batch in which a box is active, grouped by how many boxes are.

    Holds no simulation state: everything a step needs is in its arguments. Safe to call from several threads at once.
    """

    def __init__(self, agent: Agent, box: FreeBox, count: int):
        self.nq, self.nv = agent.nq, agent.nv
        self.models = [scene.build(agent, box, n) for n in range(1, count + 1)]
        self.idle: dict[tuple[int, int], list[mujoco.batch.Batch]] = defaultdict(list)
        self.lock = threading.Lock()

    def __call__(self, alone: PhysicsState, state: PhysicsState, ctrl, active) -> PhysicsState:
        alone, state = jax.tree.map(np.asarray, (alone, state))
        ctrl, active = np.asarray(ctrl), np.asarray(active)
        if active.ndim == 1:  # a single environment
            one = jax.tree.map(lambda x: x[None], (alone, state, ctrl, active))
            return jax.tree.map(lambda x: x[0], self._step(*one))
        return self._step(alone, state, ctrl, active)

    def _step(self, alone, state, ctrl, active) -> PhysicsState:
        out = jax.tree.map(np.array, alone)
        number = active.sum(axis=1)
        for n in np.unique(number[number > 0]):
            rows = np.flatnonzero(number == n)
            which = np.nonzero(active[rows])[1].reshape(len(rows), n)
            self._step_group(out, state, ctrl, rows, which)
        return out

    def _step_group(self, out: PhysicsState, state: PhysicsState, ctrl, rows, which) -> None:
        """Advances `rows` of the batch, in which the boxes `which` [rows, n] are active."""
        n = which.shape[1]
        size = 1 << (len(rows) - 1).bit_length()  # few distinct sizes, so that batches are reused
        batch = self._take(n, size)
        ids = np.arange(len(rows), dtype=np.int32)
        row = rows[:, None]

        def joined(x, num, width):
            boxes = x[rows][:, num:].reshape(len(rows), -1, width)[ids[:, None], which]
            return np.concatenate([x[rows][:, :num], boxes.reshape(len(rows), -1)], axis=1)

        def split(base, x, num, width):
            base[rows, :num] = x[:, :num]
            base[:, num:].reshape(len(base), -1, width)[row, which] = x[:, num:].reshape(len(rows), n, width)

        try:
            batch.bind("qpos")[ids] = joined(state.qpos, self.nq, 7)
            batch.bind("qvel")[ids] = joined(state.qvel, self.nv, 6)
            batch.bind("qacc_warmstart")[ids] = joined(state.warmstart, self.nv, 6)
            batch.bind("ctrl")[ids] = ctrl[rows]
            batch.step(ids, nstep=SUBSTEPS)
            warmstart = np.array(batch.bind("qacc_warmstart")[ids])
            batch.forward(ids)
            split(out.qpos, batch.bind("qpos")[ids], self.nq, 7)
            split(out.qvel, batch.bind("qvel")[ids], self.nv, 6)
            split(out.warmstart, warmstart, self.nv, 6)
            out.qacc[rows] = batch.bind("qacc")[ids][:, : self.nv]
        finally:
            with self.lock:
                self.idle[n, size].append(batch)

    def _take(self, n: int, size: int) -> mujoco.batch.Batch:
        with self.lock:
            if self.idle[n, size]:
                return self.idle[n, size].pop()
        threads = max(1, (os.cpu_count() or 1) // jax.local_device_count())
        batch = mujoco.batch.Batch(self.models[n - 1], size, min(threads, size))
        batch.bind("qacc")
        return batch


def touches_within_step(agent: Agent, box: FreeBox, count: int, state: PhysicsState, ctrl) -> Bool[np.ndarray, " S"]:
    """Whether anything but box and floor touches within the control step that starts at `state` [S] under `ctrl` [S].

    Decided by MuJoCo's C engine, substep by substep; used to sort recorded transitions.
    """
    model = scene.build(agent, box, count)
    data, floor = mujoco.MjData(model), model.geom("floor").id
    touched = np.zeros(len(ctrl), bool)
    for i in range(len(ctrl)):
        mujoco.mj_resetData(model, data)
        data.qpos, data.qvel, data.qacc_warmstart = state.qpos[i], state.qvel[i], state.warmstart[i]
        data.ctrl = ctrl[i]
        for _ in range(SUBSTEPS):
            mujoco.mj_step(model, data)
            touched[i] |= (data.contact.geom != floor).all(axis=1).any()
        mujoco.mj_forward(model, data)
        touched[i] |= (data.contact.geom != floor).all(axis=1).any()
    return touched
