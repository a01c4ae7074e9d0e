"""Checks of a recorded navigation world.

Every state is put into our environment and its observation recomputed; every step's reward and costs are recomputed
from the recorded state it led to; and every step is simulated anew, one control step from its recorded pre-state and
action. Accelerometers are checked from the recorded accelerations, touch sensors from those of the engine.

Of the steps that touch only the floor all must agree for Point. For robots that the floor carries 99 % must: wheels
stand on it upright, a degenerate case of MuJoCo's cylinder and plane in which the number of contact points flips with
the last bit. So must 99 % where gremlins are, whose springs pull so hard after a push that it shows where the solver
stops (one step in 332 of a recording, 2e-4 in a quaternion). In the start pose all wheels stand so, and boxes lie on
the floor at a distance of +-1e-17 m, where the last bit decides whether they feel it; the first step of an episode is
therefore reported apart.

Differences in costs are forgiven only where the recorded state lies within 1e-6 of the indicator's edge. Steps in which
anything but the floor is touched are reported apart: how convex shapes meet changed in MuJoCo after version 2.3.3.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from envs_mjx import physics
from envs_mjx.collision import Convex, distance, tolerance
from envs_mjx.geometry import quat_to_mat
from envs_mjx.navigation import Navigation
from envs_mjx.parity.recording import Check, CorruptRecordingError, Data, Spread
from envs_mjx.parity.states import (
    Recorded,
    after_in_frame_before,
    columns,
    load,
    recorded_states,
    reward_memory,
    sight_memory,
)
from envs_mjx.tasks.circle import BOUNDARY as CIRCLE_BOUNDARY
from envs_mjx.tasks.goal import HAZARD_RADIUS as GOAL_HAZARD
from envs_mjx.tasks.goal import MOVING
from envs_mjx.tasks.push import HAZARD_RADIUS as PUSH_HAZARD
from envs_mjx.tasks.run import BOUNDARY as RUN_BOUNDARY

TOLERANCE = {"obs": 1e-5, "reward": 1e-5, "cost": 0.0, "goal_met": 0.0, "one-step qpos": 1e-4}
EDGE = 1e-6  # m or m/s


def replay(path: Path, nav: Navigation) -> list[Check | Spread]:
    """All checks of one recording.

    Raises:
        CorruptRecordingError: see `states.load`.
    """
    data = load(path, nav)
    recorded = recorded_states(data, nav)
    checks = (check_pose, check_observation, check_reward_and_cost, check_ending, check_physics)
    return [result for check in checks for result in check(data, nav, recorded)]


def check_pose(data: Data, nav: Navigation, recorded: Recorded) -> list[Check | Spread]:
    """Pose and velocity of robot and objects that the recorded coordinates imply, against the recorded ones."""
    world = jax.jit(jax.vmap(nav._untouched))(recorded.body, recorded.points)
    origin = np.concatenate([recorded.origin, np.zeros((len(recorded.origin), 1))], axis=1)
    pairs = {
        "agent position": (world.agent.pos, data["state_agent_pos"] - origin),
        "agent rotation": (world.agent.mat, data["state_agent_mat"]),
        "agent velocity": (world.agent.velocity, data["state_agent_vel"]),
    }
    for group in nav.physics.bodies.groups:
        theirs = data["state_obj_pos"][:, columns(group, data["obj_names"])]
        pairs[f"{group.name} position"] = world.pos[group.name], theirs - origin[:, None]
    return [
        Check(name, float(np.abs(np.asarray(ours) - theirs).max(initial=0.0)), TOLERANCE["obs"])
        for name, (ours, theirs) in pairs.items()
    ]


def check_observation(data: Data, nav: Navigation, recorded: Recorded) -> list[Check | Spread]:
    """Observation of every recorded state, block by block."""
    body = recorded.body
    if nav.agent.touch_sensors:  # forces are no function of coordinates alone
        body = jax.jit(jax.vmap(nav.physics.evaluate))(body, jnp.asarray(data["state_ctrl"], jnp.float32))
        body = body._replace(qacc=recorded.body.qacc)
    observe = jax.jit(jax.vmap(lambda body, points, memory: nav.observe(nav._untouched(body, points), memory)))
    obs = np.asarray(observe(body, recorded.points, sight_memory(data, nav)))
    error, end, checks = np.abs(obs - data["state_obs"]), 0, []
    for name, size in zip(data["obs_names"], data["obs_sizes"], strict=True):
        block = error[:, end : end + size]
        end += size
        if str(name).startswith("touch"):
            checks.append(_spread(f"obs {name} ({nav.spec.engine}), N", block.max(axis=1)))
        else:
            # large vectors are rounded more: the tolerance is relative beyond 10
            scale = np.maximum(1.0, np.abs(data["state_obs"][:, end - size : end]).max(axis=1, keepdims=True) / 10)
            checks.append(Check(f"obs {name}", float((block / scale).max(initial=0.0)), TOLERANCE["obs"]))
    return checks


def check_reward_and_cost(data: Data, nav: Navigation, recorded: Recorded) -> list[Check | Spread]:
    """Reward and cost indicators of every step, from the recorded state it led to."""
    names, terms = list(data["cost_names"]), data["step_cost_terms"]
    expected = {*nav.spec.cost_names, "cost_sum"}
    if set(names) != expected:
        raise CorruptRecordingError(f"{nav.spec.id}: cost_names are {sorted(names)}, the task has {sorted(expected)}.")
    to = data["step_s_to"]
    body, points = jax.tree.map(lambda x: x[to], (recorded.body, recorded.points))
    if "goal" in points:  # a reached goal was replaced only after the reward
        old_goal = data["step_goal_pos_reward"][:, None, :2] - recorded.origin[to][:, None]
        points["goal"] = jnp.asarray(old_goal, jnp.float32)

    def evaluate(body, points, memory):
        world = nav.world(body, points)
        return *nav.task.reward(memory, world), nav.task.costs(memory, world), world

    reward, met, raw, world = jax.jit(jax.vmap(evaluate))(body, points, reward_memory(data, nav, recorded))
    reward = np.clip(reward, -nav.task.reward_clip, nav.task.reward_clip)
    wrong_reward, tolerance = np.abs(reward - data["step_reward"]), _reward_tolerance(data, nav)
    checks: list[Check | Spread] = [
        Check("reward", float(wrong_reward.max()), tolerance),
        Check("goal_met", float(np.abs(met - data["step_goal_met"].astype(float)).max()), TOLERANCE["goal_met"]),
    ]
    cost, near_edge = np.asarray(raw) > 0, np.zeros(len(to), bool)
    for k, name in enumerate(nav.spec.cost_names):
        # a term that is absent is not charged
        wrong = cost[:, k] != (np.nan_to_num(terms[:, names.index(name)]) > 0)
        excused = wrong & (_edge_distance(nav, name, body, world, wrong) < EDGE)
        near_edge |= excused
        note = f"{excused.sum()} at the edge" if excused.any() else ""
        checks.append(Check(name, float((wrong & ~excused).any()), TOLERANCE["cost"], note))
    wrong = (cost.any(axis=1) != (data["step_cost"] > 0)) & ~near_edge
    return [*checks, Check("cost (indicator of the sum)", float(wrong.any()), TOLERANCE["cost"])]


def _reward_tolerance(data: Data, nav: Navigation) -> float:
    """1e-5, or what two coordinates rounded to float32 are worth where metres are rewarded 60-fold."""
    if not nav.task.name.startswith("Run"):
        return TOLERANCE["reward"]
    return max(TOLERANCE["reward"], 60.0 * float(np.spacing(np.float32(np.abs(data["state_agent_pos"][:, :2]).max()))))


def _edge_distance(nav: Navigation, name: str, body, world, wrong: np.ndarray) -> np.ndarray:
    """How far (m, m/s) the state of each step is from where an indicator flips; where it is not `wrong`, infinite."""
    rows, out = np.flatnonzero(wrong), np.full(len(wrong), np.inf)
    if not rows.size:
        return out
    body, world = jax.tree.map(lambda x: np.asarray(x[rows]), (body, world))
    if name == "cost_hazards":
        radius = PUSH_HAZARD if nav.task.name.startswith("Push") else GOAL_HAZARD
        apart = np.linalg.norm(world.pos["hazards"][..., :2] - world.agent.pos[:, None, :2], axis=2)
        out[rows] = np.abs(apart - radius).min(axis=1)
    elif name == "cost_vases_velocity":
        out[rows] = np.abs(np.linalg.norm(world.velocity["vases"], axis=2) - MOVING).min(axis=1)
    elif name == "cost_out_of_boundary":
        edge = RUN_BOUNDARY if nav.task.name.startswith("Run") else CIRCLE_BOUNDARY
        axes = 2 if nav.task.name == "Circle2" else 1
        out[rows] = np.abs(np.abs(world.agent.pos[:, :axes]) - edge).min(axis=1)
    else:
        group = name.removeprefix("cost_").removesuffix("_contact")
        out[rows] = jax.jit(jax.vmap(lambda body: _gap(nav, group, body)))(body)
    return out


def _gap(nav: Navigation, name: str, body) -> Array:
    """Least distance (m) between robot and the objects of a group; pairs that touch deeper than `EDGE` are left out."""
    group = next(group for group in nav.physics.bodies.groups if group.name == name)
    assert nav.shapes is not None
    pos, mat = nav.shapes.poses(body.qpos[: nav.agent.nq])
    poses = nav._poses(body)[nav.physics.bodies.slice(name)]

    def nearest(part, g, shape):
        whole = Convex(part.kind, part.size)
        slack = EDGE + tolerance(shape, whole)
        shrunk = Convex(part.kind, tuple(size - slack for size in part.size))

        def one(pose):
            axes = quat_to_mat(pose[3:])
            centre = pose[:3] + axes @ jnp.array(part.pos)
            gap, inner = (distance(shape, pos[g], mat[g], convex, centre, axes) for convex in (whole, shrunk))
            return jnp.where(inner > 0, gap, jnp.inf)

        return jax.vmap(one)(poses).min()

    return jnp.stack([nearest(part, *pair) for part in group.shapes for pair in enumerate(nav.shapes.shapes)]).min()


def check_ending(data: Data, nav: Navigation, recorded: Recorded) -> list[Check | Spread]:
    """Episodes end by their time limit, or by the death of the robot."""
    to = data["step_s_to"]
    truncated = data["state_step_in_episode"][to] >= nav.spec.horizon
    motion = jax.vmap(nav._untouched)(recorded.body, recorded.points).agent
    dead = ~np.asarray(jax.vmap(nav.agent.alive)(motion))[to]
    wrong = (truncated != data["step_truncated"]) | (dead != data["step_terminated"])
    return [Check("terminated, truncated", float(wrong.max()), TOLERANCE["cost"])]


def check_physics(data: Data, nav: Navigation, recorded: Recorded) -> list[Check | Spread]:
    """One control step from every recorded pre-state and action, where only the floor is touched and elsewhere."""
    start = data["step_s_from"]
    action, body = jnp.asarray(data["step_action"], jnp.float32), jax.tree.map(lambda x: x[start], recorded.body)
    after = jax.jit(jax.vmap(nav.physics.step))(body, action)
    error = np.abs(np.asarray(after.qpos) - after_in_frame_before(data, nav, recorded)).max(axis=1)
    touched = _touched(data)
    touched = touched[start] | touched[data["step_s_to"]]
    # a touch may begin and end between the two recorded states
    touched |= physics.touches_within_step(nav.agent, nav.task.objects, jax.tree.map(np.asarray, body), action)
    name, first = f"one-step qpos ({nav.spec.engine})", data["state_step_in_episode"][start] == 0
    first &= ~touched & (nav.agent.on_floor | (nav.physics.bodies.movable > 0))
    free = error[~touched & ~first]
    bulk = nav.agent.on_floor or bool(nav.physics.bodies.orbiting.any())  # see the module docstring
    limit = (np.percentile(free, 99) if bulk else free.max()) if free.size else 0.0
    which = ", 99 %" if bulk else ""
    note = f"{free.size} steps that touch only the floor"
    checks: list[Check | Spread] = [
        Check(f"{name}{which}", float(limit), TOLERANCE["one-step qpos"], note),
        _spread(f"{name}, floor", free),
    ]
    apart = {"contact": error[touched], "from the start pose": error[first]}
    return checks + [_spread(f"{name}, {what}", errors) for what, errors in apart.items() if errors.size]


def _spread(name: str, error: np.ndarray) -> Spread:
    median, high = np.percentile(error, [50, 99]) if error.size else (0.0, 0.0)
    return Spread(name, error.size, float(median), float(high), float(error.max(initial=0.0)))


def _touched(data: Data) -> np.ndarray:
    """Which recorded states [S] have a contact without the floor."""
    floor = np.flatnonzero(data["geom_names"] == "floor")
    of_interest = ~np.isin(data["contact_geom"], floor).any(axis=1)
    state = np.repeat(np.arange(len(data["contact_offset"]) - 1), np.diff(data["contact_offset"]))
    touched = np.zeros(len(data["state_qpos"]), bool)
    touched[state[of_interest]] = True
    return touched
