"""The environment contract, rewards, costs and the physics of Point."""

import json
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs_mjx
from envs_mjx import layout, registry
from envs_mjx.agents import POINT
from envs_mjx.sensors import BodyMotion
from envs_mjx.tasks import World, goal

NEAR, FAR = 1e-4, 50.0
COSTS = {0: (), 1: ("cost_hazards",), 2: ("cost_hazards", "cost_vases_contact", "cost_vases_velocity")}


# --- contract


POINT_GOAL = tuple(f"SafetyPointGoal{level}-v0" for level in (0, 1, 2))


def test_specifications(recording):
    for level, size in enumerate((28, 60, 60)):
        spec = envs_mjx.make(POINT_GOAL[level], "mujoco").spec
        data = recording(level)
        assert list(spec.obs_blocks) == [*zip(map(str, data["obs_names"]), map(int, data["obs_sizes"]), strict=True)]
        assert spec.obs_size == size
        assert spec.cost_names == COSTS[level]
        assert (spec.horizon, spec.control_dt) == (1000, pytest.approx(0.02))
        assert (spec.action_low, spec.action_high, spec.action_size) == ((-1.0, -1.0), (1.0, 1.0), 2)


def test_make_chooses_an_engine_for_the_platform():
    engine = "mujoco" if jax.default_backend() == "cpu" else "mjx"
    assert envs_mjx.make("SafetyPointGoal0-v0").spec.engine == engine


def assert_same(a, b, rounding=0.0):
    """Equal, but for real numbers that may differ by `rounding` times the largest of their array."""
    data = lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
    for x, y in zip(*(map(data, jax.tree.leaves(tree)) for tree in (a, b)), strict=True):
        if jnp.issubdtype(x.dtype, jnp.floating):
            np.testing.assert_allclose(x, y, rtol=0, atol=rounding * np.max(np.abs(x), initial=0))
        else:
            np.testing.assert_array_equal(x, y)


def actions(env, steps, seed=0):
    return jax.random.uniform(jax.random.key(seed), (steps, env.size, 2), minval=-1.0, maxval=1.0)


def test_same_key_same_episode(goal1):
    def episode(seed):
        state, out = goal1.start(seed), []
        for action in actions(goal1, 5):
            state, timestep = goal1.step(state, action)
            out.append((state, timestep))
        return out

    first = episode(0)
    assert_same(first, episode(0))
    assert not np.array_equal(first[0][1].obs, episode(1)[0][1].obs)


def test_lanes_do_not_influence_each_other(goal1):
    """Whatever their order; an optimised program rounds differently where a lane's place in a vector changes."""
    draft = goal1.draft()
    draft.robot[::2, :2] = draft.boxes[::2, 0, :2] - [0.24, 0]  # half of the lanes need contacts
    draft.robot[::2, 2] = 0
    draft.robot[1::4, :2] = draft.goal[1::4]  # a quarter a new goal
    state, action = draft.state(), actions(goal1, 1)[0]
    order = np.random.default_rng(0).permutation(goal1.size)
    straight, shuffled = goal1.step(state, action), goal1.step(jax.tree.map(lambda x: x[order], state), action[order])
    assert straight[1].info["goal_met"].sum() >= 16
    assert_same(jax.tree.map(lambda x: x[order], straight), shuffled, rounding=1e-4)


def test_compiled_equals_not_compiled(goal0):
    draft = goal0.draft()
    draft.robot[0, :2] = draft.goal[0] - [0.301 + 0.02, 0]  # reaches its goal in the second step
    draft.robot[0, 2], draft.robot_velocity[0, 0] = 0, 1.0
    state, met = draft.state(), []
    for action in actions(goal0, 2):
        alone = goal0.nav.env.step(jax.tree.map(lambda x: x[0], state), action[0])
        state, timestep = goal0.step(state, action)
        first = jax.tree.map(lambda x: x[0], (state, timestep))
        assert jax.tree.structure(first) == jax.tree.structure(alone)
        for one, other in zip(first, alone, strict=True):
            values = [x._replace(key=None) if hasattr(x, "key") else x for x in (one, other)]
            for x, y in zip(*map(jax.tree.leaves, values), strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-5, atol=2e-5)
        met.append(bool(alone[1].info["goal_met"]))
    assert met == [False, True]


def test_truncated_exactly_at_the_horizon_and_never_reset(goal1):
    draft = goal1.draft()
    draft.time[:] = 997
    draft.time[32:] = 0
    state = draft.state()
    for time in (998, 999, 1000, 1001):
        before = state
        state, timestep = goal1.step(state, goal1.act())
        assert (np.asarray(state.time) == [time] * 32 + [time - 997] * 32).all()
        assert (np.asarray(timestep.truncated) == [time >= 1000] * 32 + [False] * 32).all()
        assert not timestep.terminated.any()
        np.testing.assert_array_equal(before.points["hazards"], state.points["hazards"])
        np.testing.assert_allclose(before.physics.qpos, state.physics.qpos, atol=1e-5)
        np.testing.assert_array_equal(jax.random.key_data(before.key), jax.random.key_data(state.key))


def test_observation_is_that_of_the_returned_state(goal1):
    draft = goal1.draft()
    draft.robot[:32, :2] = draft.goal[:32]
    draft.robot_velocity[:] = np.random.default_rng(0).normal(size=(goal1.size, 3))
    state, timestep = goal1.step(draft.state(), goal1.act())
    nav = goal1.nav
    expected = jax.jit(jax.vmap(lambda s: nav.observe(nav.world(s.physics, s.points), s.memory)))(state)
    assert timestep.info["goal_met"][:32].all()
    np.testing.assert_allclose(timestep.obs, expected, atol=1e-5)


# --- rewards


def at_goals(env, distance, seed=0):
    """Robots at a distance from their goals, on the side away from the vase."""
    draft = env.draft(seed)
    away = draft.goal - draft.boxes[:, 0, :2]
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    draft.robot[:, :2] = draft.goal + np.reshape(distance, (-1, 1)) * away
    return draft


def test_reaching_a_goal_pays_one_and_draws_a_new_one(goal1):
    draft = at_goals(goal1, 0.25)
    draft.memory = np.full(goal1.size, 0.27)
    before = draft.state()
    state, timestep = goal1.step(before, goal1.act())
    assert timestep.info["goal_met"].all()
    np.testing.assert_allclose(timestep.reward, 1.02, atol=1e-6)
    assert not (timestep.terminated | timestep.truncated).any()

    after = goal1.edit(state)
    keepouts = ((after.robot[:, None, :2], 0.4), (after.hazards, 0.18), (after.boxes[..., :2], 0.15))
    for points, keepout in keepouts:
        gap = np.linalg.norm(points - after.goal[:, None], axis=2) - (keepout + 0.305)
        assert gap.min() > -1e-6
    assert np.abs(after.goal).max() <= 1.195 + 1e-6
    np.testing.assert_array_equal(after.hazards, draft.hazards)
    assert len(np.unique(after.goal[:, 0])) == goal1.size

    state, timestep = goal1.step(state, goal1.act())  # the change of goal is not rewarded
    np.testing.assert_allclose(timestep.reward, 0.0, atol=1e-6)
    assert not timestep.info["goal_met"].any()
    np.testing.assert_array_equal(goal1.edit(state).goal, after.goal)


def test_goals_of_an_episode_differ(goal1):
    state, goals = at_goals(goal1, 0.1).state(), []
    for _ in range(3):
        state, timestep = goal1.step(state, goal1.act())
        assert timestep.info["goal_met"].all()
        draft = goal1.edit(state)
        goals.append(draft.goal.copy())
        draft.robot[:, :2] = draft.goal
        state = draft.state()
    first, second, third = np.array(goals)
    for one, next_one in ((first, second), (second, third)):
        assert np.linalg.norm(one - next_one, axis=1).min() > 0.7  # the robot stood on the old one
    assert np.linalg.norm(first - third, axis=1).min() > 0


def test_goal_is_reached_at_its_radius(goal1):
    distance = np.where(np.arange(goal1.size) % 2, 0.3 + NEAR, 0.3 - NEAR)
    draft = at_goals(goal1, distance)
    state, timestep = goal1.step(draft.state(), goal1.act())
    inside = distance < 0.3
    np.testing.assert_array_equal(timestep.info["goal_met"], inside)
    np.testing.assert_allclose(timestep.reward, inside, atol=1e-6)
    np.testing.assert_array_equal(goal1.edit(state).goal[~inside], draft.goal[~inside])


def test_reward_is_the_progress_towards_the_goal(goal1):
    draft = at_goals(goal1, 0.8)
    heading = draft.goal - draft.robot[:, :2]
    draft.robot[:, 2] = np.arctan2(heading[:, 1], heading[:, 0]) + np.where(np.arange(goal1.size) < 32, 0, np.pi)
    draft.robot_velocity[:, :2] = 1.5 * np.column_stack([np.cos(draft.robot[:, 2]), np.sin(draft.robot[:, 2])])
    _, timestep = goal1.step(draft.state(), goal1.act(*[[1.0, 0.0]] * goal1.size))
    np.testing.assert_allclose(timestep.reward, [0.03] * 32 + [-0.03] * 32, atol=1e-5)  # 1.5 m/s for 20 ms


def test_reward_is_clipped(goal1):
    draft = goal1.draft()
    draft.memory = np.linspace(-100, 100, goal1.size)
    distance = np.linalg.norm(draft.robot[:, :2] - draft.goal, axis=1)
    _, timestep = goal1.step(draft.state(), goal1.act())
    np.testing.assert_allclose(timestep.reward, np.clip(draft.memory - distance, -10, 10), atol=1e-5)
    assert not timestep.info["diverged"].any()


def test_no_place_for_a_new_goal_terminates(goal0, monkeypatch):
    draft = goal0.draft()  # before the change: the reset is compiled once for all tests
    monkeypatch.setattr(layout, "REDRAWS", 0)
    draft.robot[0, :2] = draft.goal[0]
    near, far = (jax.tree.map(lambda x, i=i: x[i], draft.state()) for i in (0, 1))
    _, timestep = goal0.nav.env.step(near, jnp.zeros(2))
    assert (bool(timestep.terminated), bool(timestep.truncated)) == (True, False)
    assert timestep.info["goal_met"]
    _, timestep = goal0.nav.env.step(far, jnp.zeros(2))
    assert not timestep.terminated


# --- costs


def empty(env, seed=0):
    """Robots at the origin, everything else out of sight."""
    draft = env.draft(seed)
    draft.robot[:] = 0
    draft.goal[:] = [0, 1.5]
    draft.hazards[:] = FAR + np.arange(draft.hazards.shape[1])[:, None]
    draft.boxes[..., :2] = FAR + np.arange(draft.boxes.shape[1])[:, None]
    draft.boxes[..., 3:] = [1, 0, 0, 0]
    return draft


def test_costs_are_indicators(goal2):
    draft, expected = empty(goal2), np.zeros((goal2.size, 3))
    cases = {
        "nothing near": (0, 0, 0),
        "in a hazard": (1, 0, 0),
        "in three hazards": (1, 0, 0),
        "just inside": (1, 0, 0),
        "just outside": (0, 0, 0),
        "touching a vase": (0, 1, 1),
        "a vase moves far away": (0, 0, 1),
        "a vase creeps": (0, 0, 0),
        "a vase rests beside": (0, 0, 0),
        "everything at once": (1, 1, 1),
        "arrow in a vase, body not": (0, 1, 1),
    }
    lane = {name: i for i, name in enumerate(cases)}
    expected[: len(cases)] = list(cases.values())
    draft.hazards[lane["in a hazard"], 3] = [0.05, 0.0]
    draft.hazards[lane["in three hazards"], :3] = [[0.05, 0.0], [0.0, 0.1], [0.0, 0.0]]
    draft.hazards[lane["just inside"], 0] = [0.0, 0.2 - NEAR]
    draft.hazards[lane["just outside"], 0] = [0.0, 0.2 + NEAR]
    draft.boxes[lane["touching a vase"], 4, :2] = [-0.199, 0.0]
    draft.box_velocity[lane["a vase moves far away"], 9, 0] = 1.0
    draft.box_velocity[lane["a vase creeps"], 9, 0] = 5e-6
    draft.boxes[lane["a vase rests beside"], 0, :2] = [-0.202, 0.0]
    draft.hazards[lane["everything at once"], 0] = [0.0, 0.1]
    draft.boxes[lane["everything at once"], 0, :2] = [-0.199, 0.0]
    draft.boxes[lane["arrow in a vase, body not"], 0, :2] = [0.249, 0.0]

    _, timestep = goal2.step(draft.state(), goal2.act())
    for name, i in lane.items():
        assert tuple(timestep.cost[i]) == cases[name], name
    np.testing.assert_array_equal(timestep.cost, expected)
    np.testing.assert_array_equal(timestep.info["cost"], expected.max(axis=1))


def test_raw_costs():
    zero, still = jnp.zeros(3), jnp.zeros((4, 3))
    agent = BodyMotion(jnp.array([1.0, 1.0, 0.1]), jnp.eye(3), zero, zero, zero, zero)
    hazards = jnp.array([[1.0, 1.15, 0.02], [1.12, 0.91, 0.02], [1.0, 0.79, 0.02], [5.0, 5.0, 0.02]])
    world = World(agent, {"hazards": hazards, "vases": still}, {"vases": still}, {}, jnp.zeros(0), {})
    costs = goal(POINT, 2).costs
    raw = jax.jit(lambda v, touching: costs((), world._replace(velocity={"vases": v}, touching={"vases": touching})))
    touching = jnp.array([True, False, True, False])
    velocity = jnp.array([[0.03, 0.04, 0.0], [0.0, 0.0, 1.1e-4], [0.9e-4, 0.0, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(raw(velocity, touching), [0.05 + 0.05, 2.0, 0.05 + 1.1e-4], atol=1e-6)
    assert raw(velocity.at[:2].set(0), touching)[2] == 0.0  # slower than what counts as moving
    np.testing.assert_array_equal(raw(velocity, jnp.zeros(4, bool))[1], 0)
    assert goal(POINT, 1).costs((), world._replace(pos={"hazards": hazards[2:]})) == 0.0


def test_cost_of_hazards_reads_the_centre_of_the_robot(goal1):
    draft = empty(goal1)
    angle, distance = np.linspace(0, 2 * np.pi, goal1.size), np.linspace(0.15, 0.25, goal1.size)
    draft.hazards[:, 5] = distance[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    draft.robot[:, 2] = np.linspace(0, 7, goal1.size)
    _, timestep = goal1.step(draft.state(), goal1.act())
    np.testing.assert_array_equal(timestep.cost[:, 0], distance < 0.2)
    np.testing.assert_array_equal(timestep.info["cost"], distance < 0.2)


def test_pushing_a_vase_costs(goal2):
    draft = empty(goal2)
    heading = np.linspace(0, 2 * np.pi, goal2.size)
    ahead = np.column_stack([np.cos(heading), np.sin(heading)])
    draft.robot[:, 2] = heading
    draft.boxes[:, 3, :2] = 0.6 * ahead
    draft.boxes[:, 3, 3], draft.boxes[:, 3, 6] = np.cos(heading / 2), np.sin(heading / 2)
    state, action, costs = draft.state(), goal2.act(*[[1.0, 0.0]] * goal2.size), []
    for _ in range(50):
        state, timestep = goal2.step(state, action)
        costs.append(np.asarray(timestep.cost))
    costs, moved = np.array(costs), goal2.edit(state).boxes[:, 3, :2] - draft.boxes[:, 3, :2]
    first = (costs[:, :, 1] > 0).argmax(axis=0)
    # 0.35 m under 2.9 m/s^2, damped: about half a second. Contact and movement begin together.
    assert ((first > 20) & (first < 35)).all()
    for lane, begin in enumerate(first):
        assert not costs[:begin, lane].any()
        assert tuple(costs[begin, lane]) == (0, 1, 1)
    assert (costs[..., 2].sum(axis=0) >= costs[..., 1].sum(axis=0)).all()
    assert (np.sum(moved * ahead, axis=1) > 0.1).all()
    assert np.linalg.norm(goal2.edit(state).boxes[:, :3, :2] - draft.boxes[:, :3, :2]) == 0


# --- failures


def assert_failed(timestep, state, before, lanes):
    lanes = np.asarray(lanes)
    np.testing.assert_array_equal(timestep.reward[lanes], -10.0)
    np.testing.assert_array_equal(timestep.info["cost"][lanes], 1.0)
    assert timestep.truncated[lanes].all()
    assert timestep.info["diverged"][lanes].all()
    assert not timestep.terminated[lanes].any()
    assert not timestep.info["goal_met"][lanes].any()
    np.testing.assert_array_equal(state.time[lanes], before.time[lanes] + 1)
    for x in jax.tree.leaves((state._replace(key=None), timestep)):
        assert np.isfinite(x).all()
    np.testing.assert_array_equal(state.physics.qpos[lanes], before.physics.qpos[lanes])
    others = np.setdiff1d(np.arange(len(timestep.reward)), lanes)
    assert not timestep.info["diverged"][others].any()
    assert not timestep.truncated[others].any()


def test_actions_that_are_not_finite(goal1, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draft = goal1.draft()
    draft.robot[2, :2] = draft.goal[2]  # even at a goal
    before = draft.state()
    bad = [[np.nan, 0], [0, np.nan], [np.nan, np.nan], [np.inf, 0], [0, -np.inf]]
    state, timestep = goal1.step(before, goal1.act(*bad, [1, 1]))
    assert_failed(timestep, state, before, [0, 1, 2, 3, 4])
    state, timestep = goal1.step(state, goal1.act())  # nothing is left of it
    assert not timestep.info["diverged"].any()


def test_simulation_that_diverges(goal0):
    draft = goal0.draft()
    draft.robot_velocity[0, 2] = 3e38
    draft.robot_velocity[1] = 3e38
    before = draft.state()
    state, timestep = goal0.step(before, goal0.act())
    assert_failed(timestep, state, before, [0, 1])


def test_no_speed_makes_a_state_that_is_not_finite(goal0):
    draft = goal0.draft()
    draft.robot[:32, 2] = 0
    draft.robot_velocity[:, 0] = np.tile(np.logspace(0, 38, 32), 2)
    state = draft.state()
    for _ in range(3):
        state, timestep = goal0.step(state, goal0.act())
        for x in jax.tree.leaves((state._replace(key=None), timestep)):
            assert np.isfinite(x).all()
        assert (timestep.truncated == timestep.info["diverged"]).all()
    slow = draft.robot_velocity[:, 0] < 100
    assert not timestep.info["diverged"][slow].any()


def near_vases(env):
    draft = empty(env)
    draft.robot[:, :2] += [1.0, 1.0]
    draft.boxes[:, 0, :2] = [1.26, 1.0]
    return draft


def test_simulation_that_diverges_among_vases(goal1, tmp_path, monkeypatch):
    """MuJoCo would reset such a simulation silently, robot to the origin and vases to where the model was built."""
    monkeypatch.chdir(tmp_path)
    draft = near_vases(goal1)
    draft.robot_velocity[0, 0] = 1e12
    draft.box_velocity[1, 0, 2] = 1e12
    before = draft.state()
    state, timestep = goal1.step(before, goal1.act())
    assert_failed(timestep, state, before, [0, 1])


def test_action_that_is_not_finite_among_vases(goal1, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    before = near_vases(goal1).state()
    state, timestep = goal1.step(before, goal1.act([np.nan, np.nan], [np.inf, 0]))
    assert_failed(timestep, state, before, [0, 1])
    assert capfd.readouterr() == ("", "")
    assert os.listdir(tmp_path) == []  # MuJoCo's log


@pytest.mark.parametrize("shape", [(3,), (1,), (0,)])
def test_action_of_wrong_shape_is_refused(goal0, shape):
    state = jax.tree.map(lambda x: x[0], goal0.start())
    message = r"^SafetyPointGoal0-v0: .*shape \(2,\), got \(.*vmap\(env\.step\)\.$"
    with pytest.raises(ValueError, match=message) as error:
        goal0.nav.env.step(state, jnp.zeros(shape))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("env_id", "near"),
    [
        ("SafetyPointGoal3-v0", "SafetyPointGoal"),
        ("SafetyPointGoal1-v1", "SafetyPointGoal1-v0"),
        ("SafetyPointGoal2", "SafetyPointGoal2-v0"),
        ("safetypointgoal0-v0", "SafetyPointGoal0-v0"),
    ],
)
def test_unknown_id_names_the_nearest(env_id, near):
    for make in (envs_mjx.make, registry.navigation):
        with pytest.raises(ValueError, match=f"^Unknown environment id '{env_id}'. Did you mean '{near}") as error:
            make(env_id)
        assert "\n" not in str(error.value)


def test_unknown_id_far_from_all_lists_them():
    known = ", ".join(envs_mjx.ids())
    with pytest.raises(ValueError, match=re.escape(f"Unknown environment id 'x'. Known ids: {known}.")):
        envs_mjx.make("x")


def test_unknown_engine_lists_the_known():
    with pytest.raises(ValueError, match=r"^Unknown physics engine 'warp9'; choose one of: mjx, mujoco\.$"):
        envs_mjx.make("SafetyPointGoal0-v0", "warp9")


# --- physics of Point

MASS, DRAG, STEP = 0.005188790204786391, 0.01, 0.002  # kg, N s/m, s
DRIVES = {
    "full": (1.0, 0.0),
    "saturated": (0.05, 0.0),
    "beyond its bound": (7.0, 0.0),
    "backwards": (-1.0, 0.0),
    "linear": (0.02, 0.0),
    "both": (1.0, 1.0),
    "both saturated": (0.05, 1.0),
    "both beyond": (9.0, 3.0),
    **{f"turn {rate}": (0.0, rate) for rate in (0.02, 0.1, 0.4, 0.9, 1.0, -0.4, -1.0)},
    "heading": (1.0, 0.0),
}


@pytest.fixture(scope="module")
def driven(goal0):
    """Positions and velocities of 10 s of constant actions."""
    draft = empty(goal0)
    lanes = {name: i for i, name in enumerate(DRIVES)}
    draft.robot[lanes["heading"], 2] = 2.0
    state, action = draft.state(), goal0.act(*DRIVES.values())
    poses, velocities = [draft.robot], [draft.robot_velocity]
    for _ in range(500):
        state, _ = goal0.step(state, action)
        poses.append(np.asarray(state.physics.qpos))
        velocities.append(np.asarray(state.physics.qvel))
    poses, velocities = np.array(poses), np.array(velocities)
    return {name: (poses[:, i], velocities[:, i]) for name, i in lanes.items()}


@pytest.mark.parametrize(("drive", "force"), [("full", 0.015), ("backwards", -0.015), ("linear", 0.006)])
def test_thrust_against_drag(driven, drive, force):
    """Semi-implicit Euler with implicit damping: m (v' - v) / h = F - d v', ten times per step."""
    substeps = np.arange(1, 5001)
    speed = np.concatenate([[0], force / DRAG * (1 - (MASS / (MASS + STEP * DRAG)) ** substeps)])
    place = np.cumsum(speed) * STEP
    pose, velocity = driven[drive]
    np.testing.assert_allclose(velocity[:, 0], speed[::10], atol=3e-5)
    np.testing.assert_allclose(pose[:100, 0], place[::10][:100], atol=5e-6)
    assert velocity[-1, 0] == pytest.approx(force / DRAG, abs=3e-5)  # 1.5 m/s at full thrust
    assert not np.any(pose[:, 1:])


def test_thrust_saturates_at_a_twentieth(driven):
    for one, other in (("full", "saturated"), ("full", "beyond its bound"), ("both", "both saturated")):
        np.testing.assert_array_equal(driven[one], driven[other])
    np.testing.assert_array_equal(driven["both"], driven["both beyond"])
    assert driven["linear"][0][-1, 0] < 0.5 * driven["full"][0][-1, 0]


def test_thrust_acts_along_the_heading(driven):
    turned, straight = driven["heading"][0][:100], driven["full"][0][:100]
    # rounding starts the chatter of the turn servo, which then moves the heading by up to its stroke of 1e-3 rad
    np.testing.assert_allclose(turned[:, :2], straight[:, :1] * [np.cos(2), np.sin(2)], atol=5e-3)
    np.testing.assert_allclose(turned[:, 2], 2.0, atol=5e-3)


@pytest.mark.parametrize(
    ("turn", "rate"),
    [(0.02, 0.0), (0.1, 0.033), (0.4, 0.997), (0.9, 2.813), (1.0, 2.999), (-0.4, -0.997), (-1.0, -2.999)],
)
def test_yaw_rate_of_the_chattering_servo(driven, turn, rate):
    """Means of the original, measured; a smooth servo would turn at turn / 0.3 - drag, e.g. 1.3 rad/s for 0.4."""
    yaw = driven[f"turn {turn}"][0][:, 2]
    assert (yaw[-1] - yaw[100]) / 8.0 == pytest.approx(rate, abs=0.004)


def test_turn_servo_chatters_between_substeps(driven):
    rate = driven["turn 0.02"][1][100:, 2]
    assert np.abs(np.abs(rate) - 0.476).max() < 0.01


@pytest.fixture(scope="module")
def random_policy(goal1):
    """64 episodes of 1000 steps of uniform random actions."""
    state = goal1.start(7)
    start = goal1.edit(state).robot[:, :2]
    steps, distance = [], 0.0
    for i, action in enumerate(actions(goal1, 1000, seed=1)):
        state, timestep = goal1.step(state, action)
        steps.append(jax.tree.map(np.asarray, timestep._replace(obs=())))
        if i % 10 == 0:
            distance = np.maximum(distance, np.linalg.norm(goal1.edit(state).robot[:, :2] - start, axis=1))
    return jax.tree.map(lambda *x: np.stack(x), *steps), distance


def test_random_policy_has_the_recorded_returns_and_costs(random_policy, golden):
    recorded = json.loads((golden / "random_policy_stats.json").read_text())["SafetyPointGoal1-v0"]
    steps, distance = random_policy
    own = {
        "return mean,sem": steps.reward.sum(axis=0),
        "cost mean,sem": steps.info["cost"].sum(axis=0),
        "max distance from start": distance,
    }
    for name, samples in own.items():
        mean, error = recorded[name]
        z = (samples.mean() - mean) / np.hypot(error, samples.std(ddof=1) / np.sqrt(len(samples)))
        assert abs(z) < 4, (name, samples.mean(), mean)
    assert own["cost mean,sem"].mean() > 5


def test_flags_and_costs_of_whole_episodes(random_policy):
    steps, _ = random_policy
    np.testing.assert_array_equal(steps.truncated, (np.arange(1, 1001) == 1000)[:, None] & np.ones(64, bool))
    assert not steps.terminated.any()
    assert not steps.info["diverged"].any()
    assert set(np.unique(steps.cost)) == {0.0, 1.0}
    np.testing.assert_array_equal(steps.info["cost"], steps.cost[..., 0])
