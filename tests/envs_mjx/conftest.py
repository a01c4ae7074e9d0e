"""Compiled environments and recordings, shared by all tests of `envs_mjx`: compiling dominates their duration."""

import contextlib
import io
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_mjx import parity, registry
from envs_mjx.parity import navigation
from envs_mjx.physics import PhysicsState

LANES = 64


class Draft:
    """A batch of states of Goal as writable arrays; `state` puts them together again. Boxes are what can be pushed."""

    def __init__(self, nav, state):
        self._nav, self._state = nav, state
        nq, nv, count = nav.agent.nq, nav.agent.nv, nav.physics.bodies.movable
        qpos, qvel = np.array(state.physics.qpos), np.array(state.physics.qvel)
        self.robot, self.robot_velocity = qpos[:, :nq], qvel[:, :nv]
        self.boxes, self.box_velocity = (
            x.reshape(len(x), count, width) for x, width in ((qpos[:, nq:], 7), (qvel[:, nv:], 6))
        )
        lanes = len(qpos)
        self.goal = np.array(state.points["goal"][:, 0])
        self.hazards = np.array(state.points.get("hazards", np.zeros((lanes, 0, 2), np.float32)))
        self.time = np.array(state.time)
        self.memory = None  # the distance to the goal, unless set

    def state(self):
        lanes = len(self.robot)
        body = self._state.physics._replace(
            qpos=jnp.asarray(np.concatenate([self.robot, self.boxes.reshape(lanes, -1)], axis=1)),
            qvel=jnp.asarray(np.concatenate([self.robot_velocity, self.box_velocity.reshape(lanes, -1)], axis=1)),
        )
        points = {"goal": jnp.asarray(self.goal[:, None]), "hazards": jnp.asarray(self.hazards)}
        points = {name: points[name] for name in self._state.points}
        memory = np.linalg.norm(self.robot[:, :2] - self.goal, axis=1) if self.memory is None else self.memory
        return self._state._replace(
            physics=body,
            points=points,
            memory=jnp.asarray(memory, jnp.float32),
            time=jnp.asarray(self.time),
        )


class Lanes:
    """An environment with engine "mujoco", whose `reset` and `step` are compiled once for `LANES` lanes."""

    def __init__(self, env_id):
        self.nav = registry.navigation(env_id, "mujoco")
        self.size = LANES
        self.reset = jax.jit(jax.vmap(self.nav.env.reset))
        self.step = jax.jit(jax.vmap(self.nav.env.step))

    def start(self, seed=0):
        return self.reset(jax.random.split(jax.random.key(seed), LANES))[0]

    def draft(self, seed=0):
        return Draft(self.nav, self.start(seed))

    def edit(self, state):
        return Draft(self.nav, state)

    def act(self, *rows):
        """Actions of the first lanes, [LANES, A]; zero for the others."""
        action = np.zeros((LANES, self.nav.spec.action_size), np.float32)
        action[: len(rows)] = np.reshape(rows, (-1, action.shape[1]))
        return jnp.asarray(action)

    def step_bodies(self, bodies, action):
        """One control step of the physics of any number of states."""
        state, out = self.start(), []
        for first in range(0, len(action), LANES):
            rows = np.minimum(np.arange(first, first + LANES), len(action) - 1)
            state, _ = self.step(
                state._replace(physics=jax.tree.map(lambda x, rows=rows: x[rows], bodies)), action[rows]
            )
            out.append(jax.tree.map(np.asarray, state.physics))
        return jax.tree.map(lambda *x: np.concatenate(x)[: len(action)], *out)


@pytest.fixture(scope="session")
def goal0():
    return Lanes("SafetyPointGoal0-v0")


@pytest.fixture(scope="session")
def goal1():
    return Lanes("SafetyPointGoal1-v0")


@pytest.fixture(scope="session")
def goal2():
    return Lanes("SafetyPointGoal2-v0")


@pytest.fixture(scope="session")
def lanes_of(goal0, goal1, goal2):
    return {env.nav.spec.id: env for env in (goal0, goal1, goal2)}


@pytest.fixture(scope="session")
def golden():
    """Folder of the recordings."""
    return Path(__file__).parent.parent / "golden" / "envs"


@pytest.fixture(scope="session")
def recording(golden):
    """Return a function from level to the arrays of its recording."""

    def read(level):
        with np.load(golden / f"SafetyPointGoal{level}-v0.npz") as archive:
            return {name: archive[name] for name in archive.files}

    return read


class _RecordingJax:
    """`jax`, remembering every call of a function that it jitted."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return getattr(jax, name)

    def jit(self, fun):
        compiled = jax.jit(fun)

        def call(*args):
            out = compiled(*args)
            self.calls.append(SimpleNamespace(fun=compiled, args=args, out=out))
            return out

        return call


@pytest.fixture(scope="session")
def mjx_replay(golden):
    """`parity.main` on Goal0 and Goal2 with engine "mjx", and its compiled physics step of Goal2.

    Compiling vases in MJX takes half a minute, so this is the only place where it happens.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(navigation, "jax", spy := _RecordingJax())
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            files = [str(golden / f"SafetyPointGoal{level}-v0.npz") for level in (0, 2)]
            status = parity.main([*files, "--engine", "mjx"])
    physics = [call for call in spy.calls if isinstance(call.out, PhysicsState)]
    return SimpleNamespace(status=status, printed=printed.getvalue(), physics=physics[-1])
