"""Replays recorded Safety-Gymnasium transitions: ``python -m envs_mjx.parity FILE.npz...``.

A recording (named after its environment id) holds states and steps, see `load`. Every state is put into our
environment and its observation recomputed; every step's reward and costs are recomputed from the recorded state it led
to; and every step is simulated anew, one control step from its recorded pre-state and action. The largest absolute
differences are printed next to their tolerance. The exit status is 1 if any is exceeded, 2 if a file cannot be read.

Differences in costs are forgiven only where the recorded state lies within 1e-6 of the indicator's edge. Steps in which
a box is touched are reported apart, as median and 99th percentile: box collision changed in MuJoCo after version 2.3.3.
The recorded accelerometer is checked from the recorded accelerations.
"""

import argparse
import sys
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_mjx import physics, registry
from envs_mjx.geometry import box_distance
from envs_mjx.navigation import Navigation
from envs_mjx.physics import PhysicsState
from envs_mjx.tasks.goal import HAZARD_RADIUS, MOVING

TOLERANCE = {"obs": 1e-5, "reward": 1e-5, "cost": 0.0, "goal_met": 0.0, "one-step qpos": 1e-4}
EDGE = 1e-6  # m or m/s

_NEEDED = [
    "state_agent_pos",
    "state_agent_mat",
    "state_agent_vel",
    "state_step_in_episode",
    "step_terminated",
    "step_truncated",
    "state_qpos",
    "state_qvel",
    "state_qacc",
    "state_qacc_warmstart",
    "state_obj_pos",
    "state_goal_pos",
    "state_obs",
    "state_episode",
    "contact_offset",
    "contact_geom",
    "geom_names",
    "agent_geom_ids",
    "obj_names",
    "obs_names",
    "obs_sizes",
    "cost_names",
    "episode_agent_xy",
    "episode_agent_rot",
    "step_s_from",
    "step_s_to",
    "step_action",
    "step_reward",
    "step_cost",
    "step_cost_terms",
    "step_goal_met",
    "step_goal_pos_reward",
    "step_last_dist_goal",
]

# What numpy raises on an archive cut short, overwritten or of another kind (a bare .npy is no context manager)
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
)


class CorruptRecordingError(ValueError):
    """A recording that cannot be read or is inconsistent."""


class Check(NamedTuple):
    """One compared quantity: its largest error, and the tolerance (None: reported only)."""

    name: str
    error: float
    tolerance: float | None
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the error is within tolerance; NaN never is."""
        return self.tolerance is None or self.error <= self.tolerance


def load(path: Path, nav: Navigation) -> dict[str, np.ndarray]:
    """Reads a recording.

    Two tables: states (rows ``state_*``) and steps (rows ``step_*``) that lead from state ``step_s_from`` to
    ``step_s_to``; contacts of state ``s`` are rows ``contact_offset[s]:contact_offset[s + 1]`` of ``contact_geom``.
    Positions in m, velocities per s, float64.

    Raises:
        CorruptRecordingError: missing file, truncated archive, missing array, wrong shape, or a NaN where none may be.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            missing = [name for name in _NEEDED if name not in archive.files]
            if missing:
                raise CorruptRecordingError(f"{path}: array {missing[0]!r} is missing; record the file again.")
            data = {name: archive[name] for name in _NEEDED}
    except FileNotFoundError:
        raise CorruptRecordingError(f"{path}: no such file.") from None
    except CorruptRecordingError:
        raise
    except _UNREADABLE as error:
        raise CorruptRecordingError(f"{path}: not a readable .npz archive ({error}).") from None
    _check_consistent(path, data, nav)
    return data


def _check_consistent(path: Path, data: dict[str, np.ndarray], nav: Navigation) -> None:
    """Raises CorruptRecordingError unless lengths, widths, numbers and indices make sense."""
    states, steps = len(data["state_qpos"]), len(data["step_reward"])
    if not states or not steps:
        raise CorruptRecordingError(f"{path}: holds no transitions.")
    count, episodes = nav.task.boxes.number, np.size(data["episode_agent_rot"])
    shapes = {
        "state_qpos": (states, nav.agent.nq + 7 * count),
        **{f"state_{name}": (states, nav.agent.nv + 6 * count) for name in ("qvel", "qacc", "qacc_warmstart")},
        **{f"state_{name}": (states, 3) for name in ("goal_pos", "agent_pos", "agent_vel")},
        "state_agent_mat": (states, 3, 3),
        "state_obj_pos": (states, len(data["obj_names"]), 3),
        "state_obs": (states, nav.spec.obs_size),
        "step_action": (steps, nav.spec.action_size),
        "step_cost_terms": (steps, len(data["cost_names"])),
        "step_goal_pos_reward": (steps, 3),
        "contact_offset": (states + 1,),
        "episode_agent_xy": (episodes, 2),
        "episode_agent_rot": (episodes,),
        "obs_sizes": (len(data["obs_names"]),),
    }
    rows = {"state": (states,), "step": (steps,)}
    for name, array in data.items():
        expected = shapes.get(name, rows.get(name.split("_")[0], array.shape))
        if array.shape != expected:
            raise CorruptRecordingError(f"{path}: {name} has shape {array.shape}, {nav.spec.id} needs {expected}.")
        if not name.endswith("_names") and array.dtype.kind not in "fiub":
            raise CorruptRecordingError(f"{path}: {name} does not hold numbers.")
        if array.dtype.kind == "f" and name != "step_cost_terms" and not np.isfinite(array).all():
            raise CorruptRecordingError(f"{path}: {name} holds a value that is not finite.")
    if data["obs_sizes"].sum() != nav.spec.obs_size:
        raise CorruptRecordingError(f"{path}: obs_sizes do not add up to {nav.spec.obs_size}.")
    for name, limit in (("step_s_from", states), ("step_s_to", states), ("state_episode", episodes)):
        if data[name].min() < 0 or data[name].max() >= limit:
            raise CorruptRecordingError(f"{path}: {name} points outside the {limit} recorded rows.")


def _to_world(qpos, qvel, xy, yaw, data):
    """Point's recorded slide joints live in the start frame of its episode; ours in the world."""
    episode = data["state_episode"]
    c, s = np.cos(yaw[episode]), np.sin(yaw[episode])
    rotation = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)
    qpos, qvel = qpos.copy(), qvel.copy()
    qpos[:, :2] = xy[episode] + np.einsum("sij,sj->si", rotation, qpos[:, :2])
    qpos[:, 2] += yaw[episode]
    qvel[:, :2] = np.einsum("sij,sj->si", rotation, qvel[:, :2])
    return qpos, qvel


def recorded_states(data: dict[str, np.ndarray], nav: Navigation) -> tuple[PhysicsState, dict[str, jax.Array]]:
    """The recording's states [S] as ours: physics and ghost positions.

    The origin is moved to the robot before rounding to float32: worlds are translation-invariant, and so the comparison
    shows errors of formulas and engines, not the rounding of recorded coordinates (which alone turns the bearing of an
    object at distance d by up to 1e-7 m / d).
    """
    xy, yaw, nv = data["episode_agent_xy"], data["episode_agent_rot"], nav.agent.nv
    qpos, qvel = _to_world(data["state_qpos"], data["state_qvel"], xy, yaw, data)
    _, qacc = _to_world(data["state_qpos"], data["state_qacc"], xy, yaw, data)
    _, warmstart = _to_world(data["state_qpos"], data["state_qacc_warmstart"], xy, yaw, data)
    origin = qpos[:, :2].copy()
    qpos[:, :2] -= origin
    qpos[:, nav.agent.nq :].reshape(len(qpos), -1, 7)[:, :, :2] -= origin[:, None]
    names = data["obj_names"]
    hazards = np.flatnonzero(np.char.startswith(names, "hazard"))
    points = {"goal": data["state_goal_pos"][:, None, :2], "hazards": data["state_obj_pos"][:, hazards, :2]}
    points = {name: xy - origin[:, None] for name, xy in points.items()}
    body = PhysicsState(*(jnp.asarray(x, jnp.float32) for x in (qpos, qvel, qacc[:, :nv], warmstart)))
    return body, {name: jnp.asarray(x, jnp.float32) for name, x in points.items()}


def _after_in_frame_before(data, nav: Navigation) -> np.ndarray:
    """Recorded qpos [T] after each step, its origin where the robot was before the step."""
    xy, yaw, nq = data["episode_agent_xy"], data["episode_agent_rot"], nav.agent.nq
    qpos, _ = _to_world(data["state_qpos"], data["state_qvel"], xy, yaw, data)
    after, origin = qpos[data["step_s_to"]], qpos[data["step_s_from"], :2]
    after[:, :2] -= origin
    after[:, nq:].reshape(len(after), -1, 7)[:, :, :2] -= origin[:, None]
    return after


def check_observation(data, nav: Navigation) -> list[Check]:
    """Observation of every recorded state, block by block."""
    body, points = recorded_states(data, nav)
    obs = np.asarray(jax.jit(jax.vmap(lambda b, p: nav.observe(nav.world(b, p))))(body, points))
    ends = np.cumsum(data["obs_sizes"])
    blocks = zip(data["obs_names"], ends - data["obs_sizes"], ends, strict=True)
    error = np.abs(obs - data["state_obs"])
    return [Check(f"obs {name}", float(error[:, start:end].max()), TOLERANCE["obs"]) for name, start, end in blocks]


def check_pose(data, nav: Navigation) -> list[Check]:
    """Pose and velocity of robot and boxes that the recorded coordinates imply, against the recorded ones."""
    body, points = recorded_states(data, nav)
    world = jax.jit(jax.vmap(nav.world))(body, points)
    origin = np.concatenate([data["state_agent_pos"][:, :2], np.zeros((len(data["state_qpos"]), 1))], axis=1)
    boxes = data["state_obj_pos"][:, np.char.startswith(data["obj_names"], "vase")]
    pairs = {
        "agent position": (world.agent.pos, data["state_agent_pos"] - origin),
        "agent rotation": (world.agent.mat, data["state_agent_mat"]),
        "agent velocity": (world.agent.velocity, data["state_agent_vel"]),
        "vase position": (world.box_pos, boxes - origin[:, None]),
    }
    return [
        Check(name, float(np.abs(np.asarray(ours) - theirs).max(initial=0.0)), TOLERANCE["obs"])
        for name, (ours, theirs) in pairs.items()
    ]


def check_ending(data, nav: Navigation) -> list[Check]:
    """Episodes of these tasks end by their time limit alone."""
    truncated = data["state_step_in_episode"][data["step_s_to"]] >= nav.spec.horizon
    wrong = (truncated != data["step_truncated"]) | data["step_terminated"]
    return [Check("terminated, truncated", float(wrong.max()), TOLERANCE["cost"])]


def check_reward_and_cost(data, nav: Navigation) -> list[Check]:
    """Reward and cost indicators of every step, from the recorded state it led to."""
    body, points = recorded_states(data, nav)
    to = data["step_s_to"]
    body, points = jax.tree.map(lambda x: x[to], (body, points))
    old_goal = points["goal"] + (data["step_goal_pos_reward"] - data["state_goal_pos"][to])[:, None, :2]
    points["goal"] = old_goal.astype(jnp.float32)  # a reached goal was replaced only after the reward
    last = jnp.asarray(data["step_last_dist_goal"], jnp.float32)

    def evaluate(body, points, last):
        world = nav.world(body, points)
        return *nav.task.reward(last, world), nav.costs(world), _edge_distance(nav, world)

    reward, met, raw, edge = map(np.asarray, jax.jit(jax.vmap(evaluate))(body, points, last))
    cost = (raw > 0).astype(float)
    names, recorded = list(data["cost_names"]), data["step_cost_terms"]
    expected = {*nav.spec.cost_names, "cost_sum"}
    if set(names) != expected:
        raise CorruptRecordingError(f"{nav.spec.id}: cost_names are {sorted(names)}, the task has {sorted(expected)}.")
    checks = [
        Check("reward", float(np.abs(reward - data["step_reward"]).max()), TOLERANCE["reward"]),
        Check("goal_met", float(np.abs(met.astype(float) - data["step_goal_met"]).max()), TOLERANCE["goal_met"]),
    ]
    for k, name in enumerate(nav.spec.cost_names):
        wrong = np.abs(cost[:, k] - recorded[:, names.index(name)])
        excused = (wrong > 0) & (edge[:, k] < EDGE)
        note = f"{excused.sum()} at the edge" if excused.any() else ""
        checks.append(Check(name, float(np.where(excused, 0.0, wrong).max()), TOLERANCE["cost"], note))
    near_edge = (edge < EDGE).any(axis=1)
    total = np.where(near_edge, 0.0, np.abs(cost.any(axis=1) - data["step_cost"]))
    return [*checks, Check("cost (indicator of the sum)", float(total.max()), TOLERANCE["cost"])]


def _edge_distance(nav: Navigation, world):
    """How far [K] the state is from where each indicator flips (m, m/s)."""
    robot = world.agent.pos
    hazards = jnp.linalg.norm(world.points["hazards"] - robot[:2], axis=1)
    distances = {"cost_hazards": jnp.abs(hazards - HAZARD_RADIUS)}
    speed = jnp.linalg.norm(world.box_velocity, axis=1)
    distances["cost_vases_velocity"] = jnp.abs(speed - MOVING)
    half, radius = jnp.full(3, nav.task.box.half), nav.agent.shapes[0].size[0]
    gap = jax.vmap(box_distance, (None, 0, 0, None))(robot, world.box_pos, world.box_mat, half)
    distances["cost_vases_contact"] = jnp.abs(gap - radius)
    edges = [jnp.min(distances[name], initial=jnp.inf) for name in nav.spec.cost_names]
    return jnp.stack(edges) if edges else jnp.zeros(0)


def check_physics(data, nav: Navigation) -> list[Check]:
    """One control step from every recorded pre-state and action, with and without box contact."""
    body, _ = recorded_states(data, nav)
    start, to = data["step_s_from"], data["step_s_to"]
    action = jnp.asarray(data["step_action"], jnp.float32)
    after = jax.jit(jax.vmap(nav.physics.step))(jax.tree.map(lambda x: x[start], body), action)
    error = np.abs(np.asarray(after.qpos) - _after_in_frame_before(data, nav)).max(axis=1)
    touched = _box_contact(data)
    touched = touched[start] | touched[to]
    if nav.task.boxes.number:  # a touch may begin and end between the two recorded states
        before = jax.tree.map(lambda x: np.asarray(x)[start], body)
        touched |= physics.touches_within_step(
            nav.agent, nav.task.box, nav.task.boxes.number, before, data["step_action"]
        )
    name = f"one-step qpos ({nav.spec.engine})"
    free = error[~touched]
    checks = [
        Check(name, float(free.max(initial=0.0)), TOLERANCE["one-step qpos"], f"{free.size} steps, no box contact")
    ]
    if touched.any():
        median, high = np.percentile(error[touched], [50, 99])
        note = f"{touched.sum()} steps; median {median:.1e}, 99 % {high:.1e}"
        checks.append(Check(f"{name}, box contact", float(error[touched].max()), None, note))
    return checks


def _box_contact(data) -> np.ndarray:
    """Which recorded states [S] have a contact between a box and anything but the floor."""
    names, agent = data["geom_names"], data["agent_geom_ids"]
    pair = data["contact_geom"]
    floor = np.flatnonzero(names == "floor")
    of_interest = ~np.isin(pair, floor).any(axis=1) & ~np.isin(pair, agent).all(axis=1)
    state = np.repeat(np.arange(len(data["contact_offset"]) - 1), np.diff(data["contact_offset"]))
    touched = np.zeros(len(data["state_qpos"]), bool)
    touched[state[of_interest]] = True
    return touched


def replay(path: Path, engine: str) -> list[Check]:
    """All checks of one recording.

    Raises:
        CorruptRecordingError: see `load`.
        ValueError: the file name does not begin with a known environment id.
    """
    env_id = next((name for name in registry.ids() if path.name.startswith(name)), path.name.removesuffix(".npz"))
    nav = registry.navigation(env_id, engine)
    data = load(path, nav)
    checks = (check_pose, check_observation, check_reward_and_cost, check_ending, check_physics)
    return [result for check in checks for result in check(data, nav)]


def _report(path: Path, engine: str) -> bool:
    checks = replay(path, engine)
    print(path.name)
    for check in checks:
        verdict = "" if check.tolerance is None else "ok" if check.passed else "FAILED"
        limit = "" if check.tolerance is None else f"{check.tolerance:.0e}"
        print(f"  {check.name:34s} {check.error:10.2e} {limit:>8s} {verdict:6s} {check.note}".rstrip())
    return all(check.passed for check in checks)


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m envs_mjx.parity", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.npz", help="recordings, named after their id")
    parser.add_argument("--engine", default="mjx", help="physics engine of the one-step check (default: mjx)")
    args = parser.parse_args(argv)
    print(f"  {'largest absolute error of':34s} {'':>10s} {'allowed':>8s}")
    try:
        passed = [_report(path, args.engine) for path in args.files]
    except ValueError as error:
        print(f"parity: {error}", file=sys.stderr)
        return 2
    print(f"{sum(passed)} of {len(passed)} recordings agree")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
