"""Recorded states of the navigation worlds as ours.

Two tables: states (rows ``state_*``) and steps (rows ``step_*``) that lead from state ``step_s_from`` to ``step_s_to``;
contacts of state ``s`` are rows ``contact_offset[s]:contact_offset[s + 1]`` of ``contact_geom``. Positions in m,
velocities per s, float64.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from envs_mjx.navigation import Navigation
from envs_mjx.objects import Objects
from envs_mjx.parity.recording import CorruptRecordingError, Data, check_arrays, read
from envs_mjx.physics import PhysicsState
from envs_mjx.tasks.button import Memory

STATE = ("qpos", "qvel", "qacc", "qacc_warmstart", "ctrl", "time", "agent_pos", "agent_mat", "agent_vel", "obj_pos")
STATE += ("obj_quat", "goal_pos", "obs", "episode", "step_in_episode", "timer")
STEP = ("s_from", "s_to", "action", "reward", "cost", "cost_terms", "terminated", "truncated", "goal_met")
STEP += ("goal_pos_reward", "last_dist_goal", "last_dist_box", "last_box_goal", "timer_cost")
NEEDED = (
    *(f"state_{name}" for name in STATE),
    *(f"step_{name}" for name in STEP),
    *("contact_offset", "contact_geom", "geom_names", "agent_geom_ids", "obj_names", "body_names", "obs_names"),
    *("obs_sizes", "cost_names", "episode_agent_xy", "episode_agent_rot", "episode_body_pos", "episode_body_quat"),
)
MAY_BE_NAN = ("step_cost_terms", "state_goal_pos", "step_goal_pos_reward")
MAY_BE_NAN += ("step_last_dist_goal", "step_last_dist_box", "step_last_box_goal")
SINGULAR = {"hazards": "hazard", "vases": "vase", "pillars": "pillar", "buttons": "button", "gremlins": "gremlin"}


class Recorded(NamedTuple):
    """Recorded states [S] as ours, and the point (m) that was made the origin of each."""

    body: PhysicsState
    points: dict[str, Array]
    origin: np.ndarray


def load(path: Path, nav: Navigation) -> Data:
    """Reads a recording and refuses one that does not fit its environment.

    Raises:
        CorruptRecordingError: missing file, truncated archive, missing array, wrong shape, a NaN where none may be, or
            other objects than the task's.
    """
    data = read(path, NEEDED)
    states, steps = len(data["state_qpos"]), len(data["step_reward"])
    if not states or not steps:
        raise CorruptRecordingError(f"{path}: holds no transitions.")
    bodies, episodes, count = nav.physics.bodies.movable, np.size(data["episode_agent_rot"]), len(data["obj_names"])
    shapes = {
        **{f"state_{name}": (states, *np.shape(data[f"state_{name}"])[1:]) for name in STATE},
        **{f"step_{name}": (steps, *np.shape(data[f"step_{name}"])[1:]) for name in STEP},
        "state_qpos": (states, nav.agent.nq + 7 * bodies),
        **{f"state_{name}": (states, nav.agent.nv + 6 * bodies) for name in ("qvel", "qacc", "qacc_warmstart")},
        **{f"state_{name}": (states, 3) for name in ("goal_pos", "agent_pos", "agent_vel")},
        **{f"state_{name}": (states,) for name in ("time", "episode", "step_in_episode", "timer")},
        "state_agent_mat": (states, 3, 3),
        "state_obj_pos": (states, count, 3),
        "state_obj_quat": (states, count, 4),
        "state_obs": (states, nav.spec.obs_size),
        "state_ctrl": (states, nav.spec.action_size),
        "step_action": (steps, nav.spec.action_size),
        "step_cost_terms": (steps, len(data["cost_names"])),
        "step_goal_pos_reward": (steps, 3),
        **{f"step_{name}": (steps,) for name in ("reward", "cost", "terminated", "truncated", "goal_met")},
        **{f"step_{name}": (steps,) for name in ("s_from", "s_to", "timer_cost", *LAST)},
        "contact_offset": (states + 1,),
        "episode_agent_xy": (episodes, 2),
        "episode_agent_rot": (episodes,),
        "episode_body_pos": (episodes, len(data["body_names"]), 3),
        "episode_body_quat": (episodes, len(data["body_names"]), 4),
        "obs_sizes": (len(data["obs_names"]),),
    }
    check_arrays(path, data, shapes, MAY_BE_NAN)
    if data["obs_sizes"].sum() != nav.spec.obs_size:
        raise CorruptRecordingError(f"{path}: obs_sizes do not add up to {nav.spec.obs_size}.")
    for name, limit in (("step_s_from", states), ("step_s_to", states), ("state_episode", episodes)):
        if data[name].min() < 0 or data[name].max() >= limit:
            raise CorruptRecordingError(f"{path}: {name} points outside the {limit} recorded rows.")
    for group in nav.task.objects:
        found = len(columns(group, data["obj_names"]))
        if found != group.number:
            raise CorruptRecordingError(f"{path}: holds {found} {group.name}, {nav.spec.id} has {group.number}.")
    return data


LAST = ("last_dist_goal", "last_dist_box", "last_box_goal")


def columns(group: Objects, names: np.ndarray) -> np.ndarray:
    """Numbers of the recorded objects that belong to a group."""
    if group.name.startswith("sigwalls"):
        first = 2 if group.name == "sigwalls_across" else 0
        return np.flatnonzero(np.char.startswith(names, "sigwall"))[first : first + group.number]
    stem = SINGULAR.get(group.name, group.name)
    return np.flatnonzero(np.char.startswith(names, stem) & ~np.char.endswith(names, "mocap"))


def to_world(data: Data, nav: Navigation, name: str) -> np.ndarray:
    """A copy of ``state_<name>`` in the world frame: the slide joints of the recorded Point live in its start frame."""
    out = data[f"state_{name}"].astype(float)
    if nav.agent.name != "Point":
        return out
    episode = data["state_episode"]
    yaw = data["episode_agent_rot"][episode]
    c, s = np.cos(yaw), np.sin(yaw)
    out[:, :2] = np.stack([c * out[:, 0] - s * out[:, 1], s * out[:, 0] + c * out[:, 1]], axis=1)
    if name == "qpos":
        out[:, :2] += data["episode_agent_xy"][episode]
        out[:, 2] += yaw
    return out


def moved(qpos: np.ndarray, nav: Navigation, origin: np.ndarray) -> np.ndarray:
    """Coordinates [S, Q] with another origin [S, 2] (m)."""
    qpos = qpos.copy()
    qpos[:, :2] -= origin
    qpos[:, nav.agent.nq :].reshape(len(qpos), nav.physics.bodies.movable, 7)[:, :, :2] -= origin[:, None]
    return qpos


def recorded_states(data: Data, nav: Navigation) -> Recorded:
    """The recording's states [S] as ours.

    Where a task has no fixed place the origin is moved to the robot before rounding to float32: the world is then
    translation-invariant, and so the comparison shows errors of formulas and engines, not the rounding of recorded
    coordinates (which alone turns the bearing of an object at distance d by up to 1e-7 m / d).
    """
    qpos = to_world(data, nav, "qpos")
    origin = qpos[:, :2].copy() if not any(group.at for group in nav.task.objects) else np.zeros_like(qpos[:, :2])
    names, episode = data["obj_names"], data["state_episode"]
    body_row = {name: i for i, name in enumerate(data["body_names"])}
    home = [np.zeros((len(qpos), 0, 7))]
    for group in nav.physics.bodies.groups:
        which = columns(group, names)
        pose = np.concatenate([data["state_obj_pos"][:, which], data["state_obj_quat"][:, which]], axis=2)
        if group.kind == "orbiting":
            rows = [body_row[name] for name in names[which]]
            start = data["episode_body_pos"][:, rows], data["episode_body_quat"][:, rows]
            pose = np.concatenate(start, axis=2)[episode]
        home.append(pose)
    home = np.concatenate(home, axis=1)
    home[..., :2] -= origin[:, None]
    points = {
        group.name: (_centres(group, data) - origin[:, None]).astype(np.float32)
        for group in nav.task.objects
        if group.kind == "ghost"
    }
    steps = np.rint(data["state_time"] / nav.spec.control_dt)
    numbers = dict(
        qpos=moved(qpos, nav, origin),
        qvel=to_world(data, nav, "qvel"),
        qacc=to_world(data, nav, "qacc")[:, : nav.agent.nv],
        warmstart=to_world(data, nav, "qacc_warmstart"),
        touch=np.zeros((len(qpos), nav.agent.touch_sensors)),
        home=home,
    )
    numbers = {name: jnp.asarray(x, jnp.float32) for name, x in numbers.items()}
    body = PhysicsState(**numbers, steps=jnp.asarray(steps, jnp.int32))
    return Recorded(body, {name: jnp.asarray(x) for name, x in points.items()}, origin)


def _centres(group: Objects, data: Data) -> np.ndarray:
    """Planar centres [S, n, 2] of a group of ghosts; the goal is where it is now."""
    if group.name == "goal":
        return data["state_goal_pos"][:, None, :2]
    return data["state_obj_pos"][:, columns(group, data["obj_names"]), :2]


def after_in_frame_before(data: Data, nav: Navigation, recorded: Recorded) -> np.ndarray:
    """Recorded qpos [T] after each step, its origin that of the state before the step."""
    qpos = to_world(data, nav, "qpos")[data["step_s_to"]]
    return moved(qpos, nav, recorded.origin[data["step_s_from"]])


def reward_memory(data: Data, nav: Navigation, recorded: Recorded) -> Any:
    """What each task remembers for the reward and cost of every step, [T]."""
    task, last = nav.task.name.rstrip("012"), {name: np.float32(data[f"step_{name}"]) for name in LAST}
    if task == "Goal":
        return jnp.asarray(last["last_dist_goal"])
    if task == "Push":
        return jnp.stack([jnp.asarray(last["last_dist_box"]), jnp.asarray(last["last_box_goal"])], axis=1)
    if task == "Button":
        return Memory(jnp.asarray(last["last_dist_goal"]), jnp.asarray(data["step_timer_cost"], jnp.int32))
    if task == "Run":
        before = data["state_agent_pos"][data["step_s_from"], :2] - recorded.origin[data["step_s_to"]]
        return jnp.asarray(before, jnp.float32)
    return ()


def sight_memory(data: Data, nav: Navigation) -> Any:
    """What each task remembers for the observation of every state, [S]."""
    if nav.task.name.startswith("Button"):
        return Memory(jnp.zeros(len(data["state_timer"])), jnp.asarray(data["state_timer"], jnp.int32))
    return ()
