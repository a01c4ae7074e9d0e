"""Engine "mujoco" of `robot_alone`: MuJoCo's C engine in float64, all lanes of a batch in one call, on all cores."""

import functools
import os
import threading
from collections import defaultdict

import jax
import jax.numpy as jnp
import mujoco.batch
import numpy as np

from envs_mjx.hostcall import host_call
from envs_mjx.physics.robot_setup import SENSES, RobotSetup
from envs_mjx.physics.runge_kutta import A, B, move


def functions(setup: RobotSetup):
    """What evaluates and what advances a robot; `robot_alone` explains the values.

    Returns:
        ``(qpos, qvel) -> (point, senses)`` and
        ``(qpos, qvel, warmstart, point, ctrl) -> (qpos, qvel, warmstart, point, shift, moved, senses)``; ``shift`` is
        how far the root has moved in the plane (m), and ``qpos`` has it at the origin again.
    """
    host, name = HostRobot(setup), f"{setup.robot.name} alone, {setup.measure}"
    senses = jax.ShapeDtypeStruct((sum(setup.sense_sizes),), jnp.float32)
    plane = jax.ShapeDtypeStruct((2,), jnp.float32)

    def evaluate(qpos, qvel):
        if setup.measure != "mass" and not setup.senses:
            return jnp.zeros(2), jnp.zeros(0)
        return host_call(host.evaluate, f"{name}/evaluate", (plane, senses), qpos, qvel)

    def advance(qpos, qvel, warmstart, point, ctrl):
        shapes = (qpos, qvel, warmstart, point, plane, plane, senses)
        return host_call(host.step, f"{name}/step", shapes, qpos, qvel, warmstart, point, ctrl)

    return evaluate, advance


class HostRobot:
    """Steps the rows of a batch.

    Holds no simulation state: everything a step needs is in its arguments. Safe to call from several threads at once.

    Args:
        setup: what is simulated.
    """

    def __init__(self, setup: RobotSetup):
        self.setup = setup
        self.model = functools.cache(functools.partial(setup.build, with_forces=setup.senses))
        self.idle: dict[int, list[mujoco.batch.Batch]] = defaultdict(list)
        self.lock = threading.Lock()

    def step(self, qpos, qvel, warmstart, point, ctrl):
        """One control step of every row; see `functions`."""
        return self._on_rows(self._step, qpos, qvel, warmstart, point, ctrl)

    def evaluate(self, qpos, qvel):
        """The point whose speed counts, and the senses without forces, of every row."""
        return self._on_rows(self._evaluate, qpos, qvel)

    def _on_rows(self, run, *args):
        args = [np.asarray(x) for x in args]
        lead = args[0].shape[:-1]
        rows = [x.reshape(-1, x.shape[-1]) for x in args]
        size = 1 << (len(rows[0]) - 1).bit_length()  # few distinct sizes, so that batches are reused
        batch = self._take(size)
        try:
            return tuple(
                x.astype(np.float32).reshape(*lead, x.shape[-1]) for x in run(Rows(batch, len(rows[0])), *rows)
            )
        finally:
            with self.lock:
                self.idle[size].append(batch)

    def _take(self, size: int) -> mujoco.batch.Batch:
        with self.lock:
            if self.idle[size]:
                return self.idle[size].pop()
            model = self.model()
        threads = max(1, (os.cpu_count() or 1) // jax.local_device_count())
        batch = mujoco.batch.Batch(model, size, min(threads, size))
        derived = {"root": ["xpos"], "mass": ["xipos"]}.get(self.setup.measure, [])
        for name in (*derived, *(("qacc", *SENSES) if self.setup.senses else ())):
            batch.bind(name)  # registered before the first call, which fills it
        return batch

    def _step(self, rows: "Rows", qpos, qvel, warmstart, point, ctrl):
        setup = self.setup
        rows.write(qpos=qpos, qvel=qvel, qacc_warmstart=warmstart, ctrl=ctrl)
        if setup.senses:
            if setup.frame_skip > 1:
                rows.step(setup.frame_skip - 1)
            qpos, qvel, warmstart = self._in_stages(rows)
        else:
            rows.step(setup.frame_skip)
            qpos, qvel, warmstart = (rows.read(name).copy() for name in ("qpos", "qvel", "qacc_warmstart"))
        shift = np.zeros((len(qpos), 2))
        shift[:, : setup.planar] = qpos[:, : setup.planar]
        after = shift if setup.measure == "coordinates" else self._point(rows)
        qpos[:, : setup.planar] = 0.0
        return qpos, qvel, warmstart, after - shift, shift, after - point, self._senses(rows)

    def _in_stages(self, rows: "Rows"):
        """One Runge-Kutta step whose last evaluation is its fourth stage; `rows` holds what was computed there.

        The sensor that makes MuJoCo compute contact forces is skipped within its own Runge-Kutta step.
        """
        h, free = self.model().opt.timestep, self.setup.free
        qpos, qvel = rows.read("qpos").copy(), rows.read("qvel").copy()
        speed, acceleration, travel, gain = qvel, np.zeros_like(qvel), 0.0, 0.0
        for a, b in zip(A, B, strict=True):
            if a:
                rows.write(qpos=move(np, qpos, h * a * speed, free))
                speed = qvel + h * a * acceleration
                rows.write(qvel=speed)
            rows.forward()
            acceleration = rows.read("qacc").copy()
            travel, gain = travel + b * speed, gain + b * acceleration
        return move(np, qpos, h * travel, free), qvel + h * gain, acceleration

    def _evaluate(self, rows: "Rows", qpos, qvel):
        rows.write(qpos=qpos, qvel=qvel, qacc_warmstart=0.0, ctrl=0.0)
        rows.forward()
        senses = self._senses(rows)
        if self.setup.senses:
            senses[:, -self.setup.sense_sizes[-1] :] = 0.0
        return self._point(rows) if self.setup.measure == "mass" else np.zeros((len(qpos), 2)), senses

    def _point(self, rows: "Rows"):
        """The (stale) root or centre of mass in the plane."""
        if self.setup.measure == "root":
            return rows.read("xpos")[:, 1, :2]
        return np.einsum("b,nbi->ni", self.setup.body_mass, rows.read("xipos")[:, :, :2])

    def _senses(self, rows: "Rows"):
        if not self.setup.senses:
            return np.zeros((rows.number, 0))
        return np.concatenate([rows.read(name).reshape(rows.number, -1) for name in SENSES], axis=1)


class Rows:
    """The first `number` simulations of a batch."""

    def __init__(self, batch: mujoco.batch.Batch, number: int):
        self.batch, self.number = batch, number
        self.ids = None if number == batch.nsim else np.arange(number, dtype=np.int32)

    def write(self, **fields) -> None:
        """Sets fields of the state."""
        for name, value in fields.items():
            self.batch.bind(name)[: self.number] = value

    def read(self, name: str) -> np.ndarray:
        """A view of a field."""
        return self.batch.bind(name)[: self.number]

    def step(self, number: int) -> None:
        """Physics steps."""
        self.batch.step(self.ids, nstep=number)

    def forward(self) -> None:
        """Evaluates the dynamics; nothing moves."""
        self.batch.forward(self.ids)
