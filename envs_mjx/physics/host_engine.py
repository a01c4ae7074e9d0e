"""Engine "mujoco": MuJoCo's C engine in float64 on the host's CPU, all cores, through a host callback."""

import functools
import os
import threading
from collections import defaultdict

import jax
import mujoco.batch
import numpy as np

from envs_mjx import scene
from envs_mjx.agents import Agent
from envs_mjx.objects import Objects
from envs_mjx.physics.orbit import target
from envs_mjx.physics.state import SUBSTEPS, Bodies, PhysicsState

MAX_MODELS = 256


@functools.cache
def stepper(agent: Agent, objects: tuple[Objects, ...]) -> "HostStepper":
    """The stepper of a world; equal worlds share one, because a registered function is never forgotten."""
    return HostStepper(agent, Bodies.of(objects))


class HostStepper:
    """Steps the rows of a batch, grouped by which kinds of objects take part and how many.

    Holds no simulation state: everything a step needs is in its arguments. Safe to call from several threads at once.

    Args:
        agent: robot.
        bodies: objects.
    """

    def __init__(self, agent: Agent, bodies: Bodies):
        self.agent, self.bodies = agent, bodies
        self.model = functools.lru_cache(MAX_MODELS)(self._model)
        self.idle: dict[tuple, list[mujoco.batch.Batch]] = defaultdict(list)
        self.lock = threading.Lock()
        groups = "+".join(f"{group.number} {group.name}" for group in bodies.groups)
        self.name = f"{agent.name} among {groups or 'nothing'}"

    def _model(self, counts: tuple[int, ...]):
        return scene.build(self.agent, tuple(zip(self.bodies.groups, counts, strict=True)))

    def step(self, base: PhysicsState, state: PhysicsState, ctrl, active, rows) -> PhysicsState:
        """`base` with the robot and the active bodies of the chosen rows advanced by one control step from `state`."""
        return self._each(SUBSTEPS, base, state, ctrl, active, rows)

    def evaluate(self, state: PhysicsState, ctrl, active, rows) -> PhysicsState:
        """`state` with accelerations and touch of the chosen rows computed, among the active bodies; nothing moves."""
        return self._each(0, state, state, ctrl, active, rows)

    def _each(self, substeps, base, state, ctrl, active, rows):
        base, state = jax.tree.map(np.asarray, (base, state))
        ctrl, active, rows = np.asarray(ctrl), np.asarray(active), np.asarray(rows)
        if ctrl.ndim == 1:  # a single environment
            one = jax.tree.map(lambda x: x[None], (base, state, ctrl, active, rows))
            return jax.tree.map(lambda x: x[0], self._batch(substeps, *one))
        return self._batch(substeps, base, state, ctrl, active, rows)

    def _batch(self, substeps, base, state, ctrl, active, rows) -> PhysicsState:
        out = jax.tree.map(np.array, base)
        rows = np.flatnonzero(rows)
        counts, code = np.zeros((len(rows), len(self.bodies.groups)), int), np.zeros(len(rows), int)
        for g, group in enumerate(self.bodies.groups):
            near = active[rows, self.bodies.starts[g] : self.bodies.starts[g + 1]].sum(axis=1)
            # an idle obstacle costs less than a model of its own
            counts[:, g] = np.where(near > 0, group.number, 0) if group.kind == "fixed" else near
            code = code * (group.number + 1) + counts[:, g]
        for first in np.unique(code, return_index=True)[1]:
            same = code == code[first]
            self._advance(substeps, out, state, ctrl, active, rows[same], tuple(counts[first].tolist()))
        return out

    def _chosen(self, active, rows, counts) -> np.ndarray:
        """Numbers of the bodies that take part in each row, movable ones first, [rows, n]."""
        columns = []
        for g, count in enumerate(counts):
            start, end = self.bodies.starts[g], self.bodies.starts[g + 1]
            if self.bodies.groups[g].kind == "fixed":
                columns.append(np.broadcast_to(np.arange(start, end)[:count], (len(rows), count)))
            else:
                columns.append(np.nonzero(active[rows, start:end])[1].reshape(len(rows), count) + start)
        return np.concatenate(columns, axis=1) if columns else np.zeros((len(rows), 0), int)

    def _advance(self, substeps, out, state, ctrl, active, rows, counts) -> None:
        """Advances or evaluates `rows` of the batch, in which `counts` objects of each group take part."""
        nq, nv = self.agent.nq, self.agent.nv
        chosen = self._chosen(active, rows, counts)
        moving = chosen[:, : sum(n for g, n in zip(self.bodies.groups, counts, strict=True) if g.kind != "fixed")]
        size = 1 << (len(rows) - 1).bit_length()  # few distinct sizes, so that batches are reused
        batch = self._take(counts, size)
        ids = np.arange(len(rows), dtype=np.int32)
        row, local = rows[:, None], ids[:, None]

        def joined(x, num, width):
            picked = x[rows]
            objects = picked[:, num:].reshape(len(rows), -1, width)[local, moving]
            return np.concatenate([picked[:, :num], objects.reshape(len(rows), -1)], axis=1)

        def split(base, x, num, width):
            base[rows, :num] = x[:, :num]
            base[:, num:].reshape(len(base), -1, width)[row, moving] = x[:, num:].reshape(len(rows), -1, width)

        try:
            batch.bind("qpos")[ids] = joined(state.qpos, nq, 7)
            batch.bind("qvel")[ids] = joined(state.qvel, nv, 6)
            batch.bind("qacc_warmstart")[ids] = joined(state.warmstart, nv, 6)
            batch.bind("ctrl")[ids] = ctrl[rows]
            self._place_mocaps(batch, ids, state, rows, chosen, counts, substeps)
            if substeps:
                split(out.warmstart, np.array(batch.bind("qacc_warmstart")[ids]), nv, 6)
                split(out.qpos, np.array(batch.bind("qpos")[ids]), nq, 7)
                split(out.qvel, batch.bind("qvel")[ids], nv, 6)
            batch.forward(ids)
            out.qacc[rows] = batch.bind("qacc")[ids][:, :nv]
            if self.agent.touch_sensors:
                out.touch[rows] = batch.bind("sensordata")[ids]
        finally:
            with self.lock:
                self.idle[counts, size].append(batch)

    def _place_mocaps(self, batch, ids, state, rows, chosen, counts, substeps) -> None:
        """Puts mocap bodies in place, then runs the substeps, moving those that drag an object before each."""
        travel = np.array([g.travel for g, n in zip(self.bodies.groups, counts, strict=True) for _ in range(n)])
        kinds = [g.kind for g, n in zip(self.bodies.groups, counts, strict=True) for _ in range(n)]
        dragged, mocaps = np.array([k == "orbiting" for k in kinds]), np.array([k != "free" for k in kinds])
        if not mocaps.any():
            if substeps:
                batch.step(ids, nstep=substeps)
            return
        home = state.home[rows[:, None], chosen[:, mocaps]].astype(float)
        batch.bind("mocap_quat")[ids] = home[..., 3:]
        position, dragged, travel = home[..., :3], dragged[mocaps], travel[mocaps]
        batch.bind("mocap_pos")[ids] = position
        if not dragged.any():
            if substeps:
                batch.step(ids, nstep=substeps)
            return
        start = state.steps[rows].astype(float) * SUBSTEPS
        radius = travel[dragged]
        # evaluating a state that was reached keeps the points where its last substep had them
        for substep in range(substeps) if substeps else (-1,):
            time = np.maximum(start + substep, 0.0) * self.agent.timestep
            offset = np.stack([target(np, time, r) for r in radius], axis=1)
            moved = position.copy()
            moved[:, dragged] += offset
            batch.bind("mocap_pos")[ids] = moved
            if substeps:
                batch.step(ids, nstep=1)

    def _take(self, counts: tuple[int, ...], size: int) -> mujoco.batch.Batch:
        with self.lock:
            if self.idle[counts, size]:
                return self.idle[counts, size].pop()
            model = self.model(counts)
        threads = max(1, (os.cpu_count() or 1) // jax.local_device_count())
        batch = mujoco.batch.Batch(model, size, min(threads, size))
        batch.bind("qacc")
        if self.agent.touch_sensors:
            batch.bind("sensordata")
        return batch
