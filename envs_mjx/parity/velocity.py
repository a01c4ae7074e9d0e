"""Replays recorded transitions of the velocity environments.

Three comparisons: the observation of every recorded state that determines it; reward, cost, speed and end of every
step from what is recorded of it; and every step simulated anew, from its recorded pre-state and action. A recorded
state is placed with its root at the origin before it is rounded to float32, as `physics.robot_alone` keeps it.

What Humanoid senses after a step is stale, so it cannot be recomputed from the recorded state: it is compared after the
simulated step, and in states that an episode starts with or that were set by hand (kinds 0 and 1), where it is not.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from envs_mjx.parity.recording import Check, CorruptRecordingError, Data, Spread, check_arrays, read
from envs_mjx.physics import SENSES, RobotState
from envs_mjx.velocity import Velocity

FORMULA = 1e-5  # of observations, reward (1 per step) and velocity (m/s), from recorded states
MOTION = 1e-4  # of a simulated step without contact, m and rad
EDGE = 1e-6  # m/s: how near to the threshold a cost may differ
STARTED, SET = 0, 1  # kinds of states

_NEEDED = (
    "state_qpos",
    "state_qvel",
    "state_qacc",
    "state_obs",
    "state_kind",
    "state_step_in_episode",
    "contact_offset",
    "step_s_from",
    "step_s_to",
    "step_action",
    "step_reward",
    "step_cost",
    "step_terminated",
    "step_truncated",
    "step_x_velocity",
    "step_y_velocity",
    "step_pos_before",
    "step_pos_after",
)


def replay(path: Path, builder: Velocity) -> list[Check | Spread]:
    """Compares a recording with the environment of `builder`.

    Args:
        path: recording, named after its environment.
        builder: see `registry.builder`.

    Raises:
        CorruptRecordingError: the file cannot be read or is inconsistent.
    """
    data = load(path, builder)
    return [*check_observation(data, builder), *check_outcome(data, builder), *check_motion(data, builder)]


def load(path: Path, builder: Velocity) -> Data:
    """Reads a recording: states (rows ``state_*``) and steps from state ``step_s_from`` to ``step_s_to``, float64.

    Contacts of state ``s`` are numbers ``contact_offset[s]`` to ``contact_offset[s + 1]``; ``step_pos_*`` is the point
    (m) whose displacement over the step gives its velocity.

    Raises:
        CorruptRecordingError: missing file or array, truncated archive, wrong shape, or a NaN.
    """
    data = read(path, _NEEDED)
    states, steps = len(data["state_qpos"]), np.size(data["step_reward"])
    if not states or not steps:
        raise CorruptRecordingError(f"{path}: holds no transitions.")
    model, spec = builder.physics.setup.robot, builder.spec
    widths = {"qpos": model.nq, "qvel": model.nv, "qacc": model.nv, "obs": spec.obs_size}
    shapes = {name: {"state": (states,), "step": (steps,)}.get(name.split("_")[0], ()) for name in _NEEDED}
    shapes |= {f"state_{name}": (states, width) for name, width in widths.items()}
    shapes |= {"step_action": (steps, spec.action_size), "contact_offset": (states + 1,)}
    check_arrays(path, data, shapes | {f"step_pos_{when}": (steps, 2) for when in ("before", "after")})
    for name in ("step_s_from", "step_s_to"):
        if data[name].min() < 0 or data[name].max() >= states:
            raise CorruptRecordingError(f"{path}: {name} points outside the {states} recorded rows.")
    return data


def recorded_states(data: Data, builder: Velocity) -> RobotState:
    """The recorded states [S], their root at the origin; the point whose speed counts is not among them."""
    setup = builder.physics.setup
    qpos, origin = data["state_qpos"].copy(), np.zeros((len(data["state_qpos"]), 2))
    origin[:, : setup.planar] = qpos[:, : setup.planar]
    qpos[:, : setup.planar] = 0.0
    warmstart = np.where(data["state_kind"][:, None] > SET, data["state_qacc"], 0.0)
    parts = (qpos, data["state_qvel"], warmstart, np.zeros_like(origin), origin)
    return RobotState(*(jnp.asarray(x, jnp.float32) for x in parts))


def check_observation(data: Data, builder: Velocity) -> list[Check]:
    """Observation block by block: of every state, except senses, which are those of states just set."""
    body = recorded_states(data, builder)

    def observe(body):
        _, senses = builder.physics.init(body.qpos, body.qvel)
        return builder.observe(body, senses)

    error = np.abs(np.asarray(jax.jit(jax.vmap(observe))(body)) - data["state_obs"])
    checks, kind, start = [], data["state_kind"], 0
    for name, size in builder.spec.obs_blocks:
        rows = kind == STARTED if name in SENSES else kind >= STARTED
        if name in ("cinert", "cvel"):  # depend on nothing but the state
            rows = kind <= SET
        worst = error[rows, start : start + size].max(initial=0.0)
        checks.append(Check(f"obs {name}", float(worst), FORMULA, f"{rows.sum()} states"))
        start += size
    return checks


def check_outcome(data: Data, builder: Velocity) -> list[Check]:
    """Velocity, reward, cost and end of every step from the recorded displacement, action and state after it."""
    body = jax.tree.map(lambda x: x[data["step_s_to"]], recorded_states(data, builder))
    moved = jnp.asarray(data["step_pos_after"] - data["step_pos_before"], jnp.float32)  # difference in float64
    action = jnp.asarray(data["step_action"], jnp.float32)
    outcome = jax.jit(jax.vmap(builder.judge))(moved, body.qpos, body.qvel, action)
    velocity, speed, reward, cost, fell = map(np.asarray, outcome)
    recorded = np.stack([data["step_x_velocity"], data["step_y_velocity"]], axis=1)
    wrong = np.abs(cost - data["step_cost"])
    excused = (wrong > 0) & (np.abs(speed - builder.threshold) < EDGE)
    truncated = data["state_step_in_episode"][data["step_s_to"]] >= builder.spec.horizon
    ended = (fell != data["step_terminated"]) | (truncated != data["step_truncated"])
    return [
        Check("velocity", float(np.abs(velocity - recorded).max()), FORMULA),
        Check("reward", float(np.abs(reward - data["step_reward"]).max()), FORMULA),
        Check(
            "cost_velocity",
            float(np.where(excused, 0.0, wrong).max()),
            0.0,
            f"{excused.sum()} at the edge" if excused.any() else "",
        ),
        Check("terminated, truncated", float(ended.max()), 0.0),
    ]


def check_motion(data: Data, builder: Velocity) -> list[Check | Spread]:
    """One control step from every recorded pre-state and action, with and without contact."""
    start, to = data["step_s_from"], data["step_s_to"]
    every = recorded_states(data, builder)
    body = jax.tree.map(lambda x: x[start], every)
    planar = builder.physics.setup.planar
    origin = np.zeros((len(start), 2))
    origin[:, :planar] = data["state_qpos"][start, :planar]
    body = body._replace(
        point=jnp.asarray(data["step_pos_before"] - origin, jnp.float32), origin=jnp.zeros_like(origin)
    )
    step = jax.jit(jax.vmap(builder.physics.step))
    after, moved, senses = jax.tree.map(np.asarray, step(body, jnp.asarray(data["step_action"], jnp.float32)))

    qpos = np.array(after.qpos, float)
    qpos[:, :planar] += after.origin[:, :planar]
    expected = data["state_qpos"][to].copy()
    expected[:, :planar] -= origin[:, :planar]
    touching = np.diff(data["contact_offset"]) > 0
    touched = touching[start] | touching[to]
    error = np.abs(qpos - expected).max(axis=1)
    label = f"one-step qpos ({builder.spec.engine})"
    free = error[~touched].max(initial=0.0)
    point = np.abs(moved - (data["step_pos_after"] - data["step_pos_before"])).max(axis=1)
    return [
        Check(f"{label}, no contact", float(free), MOTION, f"{(~touched).sum()} steps"),
        Check("one-step displacement, no contact", float(point[~touched].max(initial=0.0)), MOTION),
        *_spread(f"{label}, no contact", error, ~touched),
        *_spread(f"{label}, contact", error, touched),
        *_check_senses(data, builder, senses, touched),
    ]


def _check_senses(data: Data, builder: Velocity, senses: Float[np.ndarray, "T S"], touched) -> list[Check | Spread]:
    """Stale senses after a simulated step, relative to the largest recorded value of each block."""
    sizes = builder.physics.setup.sense_sizes
    recorded = data["state_obs"][data["step_s_to"], builder.spec.obs_size - sum(sizes) :]
    found, first = [], 0
    for name, size in zip(SENSES[: len(sizes)], sizes, strict=True):
        block = slice(first, first + size)
        error = np.abs(senses[:, block] - recorded[:, block]).max(axis=1) / np.abs(recorded[:, block]).max()
        note = f"of the largest, {(~touched).sum()} steps"
        found.append(Check(f"one-step {name}, no contact", float(error[~touched].max(initial=0.0)), MOTION, note))
        found += _spread(f"one-step {name}, contact", error, touched)
        first += size
    return found


def _spread(name: str, error: Float[np.ndarray, " T"], rows: Bool[Array, " T"] | np.ndarray) -> list[Spread]:
    """Spread of the errors of some steps, if there are any."""
    chosen = error[rows]
    if not chosen.size:
        return []
    median, high = np.percentile(chosen, [50, 99])
    return [Spread(name, chosen.size, float(median), float(high), float(chosen.max()))]
