"""Agents and tasks in motion: how they live and die, what changes with time, and what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs_mjx
from envs_mjx import objects, registry
from envs_mjx.agents import CAR, POINT
from envs_mjx.navigation import Navigation
from envs_mjx.sensors import BodyMotion
from envs_mjx.tasks import World as Snapshot
from envs_mjx.tasks import circle, goal, push, run

LANES = 32


class World:
    """An environment with engine "mujoco", compiled for `LANES` lanes."""

    def __init__(self, env_id):
        self.nav = registry.navigation(env_id, "mujoco")
        self.reset, self.step = jax.jit(jax.vmap(self.nav.env.reset)), jax.jit(jax.vmap(self.nav.env.step))
        self.still = jnp.zeros((LANES, self.nav.spec.action_size))

    def start(self, seed=0):
        return self.reset(jax.random.split(jax.random.key(seed), LANES))

    def random_policy(self, steps, seed=0):
        """Whole episodes: positions of the robot [T + 1, N, 2], and time steps [T, N]."""
        low, high = (jnp.array(x) for x in (self.nav.spec.action_low, self.nav.spec.action_high))
        state, places, out = self.start(seed)[0], [], []
        for key in jax.random.split(jax.random.key(seed), steps):
            places.append(np.asarray(state.physics.qpos[:, :2]))
            state, step = self.step(state, jax.random.uniform(key, self.still.shape, minval=low, maxval=high))
            out.append(jax.tree.map(np.asarray, step._replace(obs=())))
        places.append(np.asarray(state.physics.qpos[:, :2]))
        return np.array(places), jax.tree.map(lambda *x: np.stack(x), *out)

    def block(self, obs, name):
        """A block of the observation, [N, n]."""
        names, sizes = zip(*self.nav.spec.obs_blocks, strict=True)
        begin = sum(sizes[: names.index(name)])
        return np.asarray(obs[:, begin : begin + sizes[names.index(name)]])


@pytest.fixture(scope="module")
def car():
    return World("SafetyCarCircle1-v0")


# --- statistics of the original


@pytest.mark.parametrize("env_id", ["SafetyPointCircle1-v0", "SafetyCarCircle1-v0"])
def test_random_policy_has_the_recorded_returns_and_costs(env_id, car, golden):
    recorded = json.loads((golden / "random_policy_stats.json").read_text())[env_id]
    places, steps = (car if "Car" in env_id else World(env_id)).random_policy(500)
    own = {
        "return mean,sem": steps.reward.sum(axis=0),
        "cost mean,sem": steps.info["cost"].sum(axis=0),
        "max distance from start": np.linalg.norm(places - places[0], axis=2).max(axis=0),
    }
    for name, samples in own.items():
        mean, error = recorded[name]
        z = (samples.mean() - mean) / np.hypot(error, samples.std(ddof=1) / np.sqrt(len(samples)))
        assert abs(z) < 4, (name, samples.mean(), mean)
    assert own["max distance from start"].mean() > 0.5
    np.testing.assert_array_equal(steps.truncated, (np.arange(1, 501) == 500)[:, None] & np.ones(LANES, bool))
    assert not steps.terminated.any()
    assert not steps.info["diverged"].any()


def test_the_later_ant_survives_random_actions():
    """Six of the original overturned after 13 to 63 steps, median 26; six of the later one never within 400."""
    deaths = {}
    for version in ("v0", "v1"):
        _, steps = World(f"SafetyAntRun0-{version}").random_policy(64)
        assert not (steps.truncated | steps.info["diverged"]).any()
        deaths[version] = np.where(steps.terminated.any(axis=0), steps.terminated.argmax(axis=0) + 1, np.inf)
    assert 15 < np.median(deaths["v0"]) < 40
    assert deaths["v0"].min() > 5
    assert np.isfinite(deaths["v0"]).mean() > 0.9
    assert np.isinf(deaths["v1"]).mean() > 0.8


# --- formulas of the tasks, of made-up worlds


def around(points, velocity=(0.0, 0.0, 0.0), **groups):
    """Snapshots of a robot at each of `points` [n, 2], with groups of objects at places [m, 3], at rest."""
    pos = np.column_stack([points, np.full(len(points), 0.1)])
    rows = lambda x: jnp.broadcast_to(jnp.asarray(x, jnp.float32), (len(points), *np.shape(x)))
    zero = rows(np.zeros(3))
    agent = BodyMotion(jnp.asarray(pos, jnp.float32), rows(np.eye(3)), rows(velocity), zero, zero, zero)
    return Snapshot(agent, {name: rows(x) for name, x in groups.items()}, {}, {}, rows(np.zeros(0)), {})


def violated(task, world):
    return np.asarray(jax.vmap(lambda world: task.costs((), world))(world)) > 0


def test_hazards_of_push_are_wider_than_those_of_goal():
    distance = np.array([0.0, 0.199, 0.201, 0.299, 0.301, 5.0])
    points = np.column_stack([1.0 + 0.6 * distance, -0.8 * distance])
    world = around(points, hazards=[[1.0, 0.0, 0.02], [-9.0, 0.0, 0.02]])
    np.testing.assert_array_equal(violated(goal(POINT, 1), world)[:, 0], distance < 0.2)
    np.testing.assert_array_equal(violated(push(POINT, 1), world)[:, 0], distance < 0.3)


def test_boundaries():
    """A strip in Circle1 and Run0, a square in Circle2."""
    points = np.array(
        [[x, y] for x in (-1.126, -1.124, -0.501, -0.499, 0.0, 0.499, 0.501, 1.124, 1.126) for y in (-1.13, 0, 1.13)]
    )
    x, y = np.abs(points).T
    world = around(points)
    np.testing.assert_array_equal(violated(circle(POINT, 1), world)[:, 0], x > 1.125)
    np.testing.assert_array_equal(violated(circle(POINT, 2), world)[:, 0], (x > 1.125) | (y > 1.125))
    np.testing.assert_array_equal(violated(run(POINT, 0), world)[:, 0], x > 0.5)


def test_reward_of_push_measures_in_space_and_forgets_a_first_distance_of_zero():
    world = around([[0.0, 0.0]], push_box=[[0.3, 0.4, 0.2]], goal=[[0.3, 0.2, 0.16]])
    row = jax.tree.map(lambda x: x[0], world)
    to_box, to_goal = np.sqrt(0.25 + 0.01), np.hypot(0.2, 0.04)
    reward, reached = push(POINT, 0).reward(jnp.array([0.6, 0.5]), row)
    assert reached
    assert float(reward) == pytest.approx(0.6 - to_box + 0.5 - to_goal + 1, abs=1e-6)
    reward, _ = push(POINT, 0).reward(jnp.array([0.0, 0.5]), row)
    assert float(reward) == pytest.approx(0.5 - to_goal + 1, abs=1e-6)
    reward, reached = push(POINT, 0).reward(
        jnp.array([0.6, 0.5]), row._replace(pos=row.pos | {"goal": row.pos["goal"] + 0.3})
    )
    assert not reached


def test_reward_of_run_is_sixty_per_metre_even_where_float32_ends():
    """The potential is 6e4, of which float32 resolves 4e-3; the step of 1 cm is worth 0.6."""
    before = np.float32([0.3, 16.5])
    row = jax.tree.map(lambda x: x[0], around([[0.31, 16.49]]))
    reward, _ = run(POINT, 0).reward(jnp.asarray(before), row)
    target = np.array([0.0, -1000.0])
    exact = 60 * (np.linalg.norm(before - target) - np.linalg.norm(np.float64(row.agent.pos[:2]) - target))
    assert float(reward) == pytest.approx(exact, abs=2e-5)


def test_reward_of_circle():
    """0.1 v_tangential / (1 + |R - 1.5|), counter-clockwise."""
    world = around([[1.2, 0.0], [0.0, 1.5], [-2.0, 0.0]], velocity=(0.5, 0.8, 9.0))
    reward, _ = jax.vmap(lambda world: circle(POINT, 0).reward((), world))(world)
    np.testing.assert_allclose(reward, [0.08 / 1.3, -0.05, -0.08 / 1.5], atol=1e-7)


# --- failures of robots that the floor carries


def assert_flagged(before, state, step, number):
    bad = np.arange(LANES) < number
    np.testing.assert_array_equal(step.info["diverged"], bad)
    np.testing.assert_array_equal(step.truncated, bad)
    np.testing.assert_array_equal(step.reward[:number], -10.0)
    np.testing.assert_array_equal(step.info["cost"][:number], 1.0)
    assert not step.terminated.any()
    np.testing.assert_array_equal(state.physics.qpos[:number], before.physics.qpos[:number])
    for x in jax.tree.leaves((state._replace(key=None), step)):
        assert np.isfinite(x).all()


def test_actions_that_are_no_numbers(car, tmp_path, monkeypatch, capfd):
    """They are flagged, the state stays what it was, and neither the lanes beside nor the next step notice."""
    monkeypatch.chdir(tmp_path)
    before, _ = car.start()
    state, step = car.step(before, car.still.at[0, 0].set(jnp.nan).at[1].set(jnp.inf).at[2, 1].set(jnp.nan))
    assert_flagged(before, state, step, 3)
    healthy, _ = car.step(before, car.still)
    np.testing.assert_array_equal(state.physics.qpos[3:], healthy.physics.qpos[3:])
    _, step = car.step(state, car.still)
    assert not step.info["diverged"].any()
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []  # MuJoCo's log


def test_simulation_that_diverges(car, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before, _ = car.start()
    velocity = before.physics.qvel.at[0, 0].set(1e12).at[1, 7].set(3e38)
    before = before._replace(physics=before.physics._replace(qvel=velocity))
    state, step = car.step(before, car.still)
    assert_flagged(before, state, step, 2)
    healthy, _ = car.step(car.start()[0], car.still)
    np.testing.assert_array_equal(state.physics.qpos[2:], healthy.physics.qpos[2:])


# --- buttons and gremlins


@pytest.fixture(scope="module")
def buttons():
    return World("SafetyPointButton1-v0")


def beside(world, state, which):
    """The robots 5 mm inside the button `which` [N], on the side away from the goal, their backs to it, at rest."""
    bodies = world.nav.physics.bodies
    spot = np.asarray(state.physics.home[:, bodies.slice("buttons"), :2])[np.arange(LANES), which]
    away = spot - np.asarray(state.points["goal"])[:, 0]
    away = np.where(np.linalg.norm(away, axis=1, keepdims=True) < 1e-3, [-1.0, 0.0], away)
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    pose = np.column_stack([spot + 0.195 * away, np.arctan2(away[:, 1], away[:, 0])])
    physics = state.physics._replace(
        qpos=state.physics.qpos.at[:, :3].set(pose), qvel=state.physics.qvel.at[:, :3].set(0.0)
    )
    return state._replace(physics=physics)


def goal_button(world, state):
    spots = np.asarray(state.physics.home[:, world.nav.physics.bodies.slice("buttons"), :2])
    return np.linalg.norm(spots - np.asarray(state.points["goal"]), axis=2).argmin(axis=1)


def test_buttons_are_out_of_service_for_ten_steps(buttons):
    """After a reset, and after each press: unseen in observations 0 to 9, wrong ones free of cost in steps 1 to 10."""
    state, obs = buttons.start(1)
    for count in (1, 2):
        wrong = (goal_button(buttons, state) + count) % 4
        seen, costs = [buttons.block(obs, "buttons_lidar").max(axis=1) > 0], []
        for _ in range(12):
            state, step = buttons.step(beside(buttons, state, wrong), buttons.still)
            seen.append(buttons.block(step.obs, "buttons_lidar").max(axis=1) > 0)
            costs.append(np.asarray(step.cost[:, 0]) > 0)
            assert not step.info["goal_met"].any()
        np.testing.assert_array_equal(np.any(seen, axis=1), [False] * 10 + [True] * 3)
        np.testing.assert_array_equal(np.all(seen, axis=1), [False] * 10 + [True] * 3)
        np.testing.assert_array_equal(np.all(costs, axis=1), [False] * 10 + [True] * 2)
        np.testing.assert_array_equal(np.any(costs, axis=1), [False] * 10 + [True] * 2)
        state, step = buttons.step(beside(buttons, state, goal_button(buttons, state)), buttons.still)
        assert step.info["goal_met"].all()
        obs = step.obs


def test_a_pressed_goal_moves_to_any_button(buttons):
    state, _ = buttons.start(2)
    before, nexts = goal_button(buttons, state), []
    for _ in range(8):
        last = goal_button(buttons, state)
        state, step = buttons.step(beside(buttons, state, last), buttons.still)
        assert step.info["goal_met"].all()
        assert (buttons.block(step.obs, "buttons_lidar") == 0).all()
        nexts.append((goal_button(buttons, state) - last) % 4)
        spots = np.asarray(state.physics.home[:, buttons.nav.physics.bodies.slice("buttons"), :2])
        assert np.linalg.norm(spots - np.asarray(state.points["goal"]), axis=2).min(axis=1).max() < 1e-6
    share = np.bincount(np.ravel(nexts), minlength=4) / np.size(nexts)
    assert np.abs(share - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / np.size(nexts))
    assert len(np.unique(before)) == 4


def test_pressing_pays_one(buttons):
    state = buttons.start(3)[0]
    state = beside(buttons, state, goal_button(buttons, state))
    state = state._replace(memory=state.memory._replace(distance=jnp.full(LANES, 0.2, jnp.float32)))
    after, step = buttons.step(state, buttons.still)
    moved = np.asarray(after.physics.qpos[:, :2]) - np.asarray(state.points["goal"][:, 0])
    np.testing.assert_allclose(step.reward, 1.2 - np.linalg.norm(moved, axis=1), atol=1e-5)


def test_undisturbed_gremlins_circle_behind_their_targets(buttons):
    """After a second: at home + 0.34887 (sin, cos)(t - 0.08983 s), 0.09956 m up, fitted to recordings."""
    state = buttons.start(4)[0]
    far = state.physics.qpos.at[:, :2].set(50.0)
    state = state._replace(physics=state.physics._replace(qpos=far))
    bodies = buttons.nav.physics.bodies
    for step in range(1, 81):
        state, _ = buttons.step(state, buttons.still)
        if step > 55:
            phase = 0.02 * step - 0.08983
            expected = 0.34887 * np.sin(phase), 0.34887 * np.cos(phase), 0.09956
            place = np.asarray(state.physics.qpos[:, 3:]).reshape(LANES, bodies.movable, 7)[..., :3]
            offset = place - np.asarray(state.physics.home[:, : bodies.movable, :3])
            np.testing.assert_allclose(offset, np.broadcast_to(expected, offset.shape), atol=2e-5)


def test_touching_a_gremlin_costs_and_deflects_it(buttons):
    state, _ = buttons.start(5)
    gremlin = state.physics.home[:, 0, :2]
    pose = jnp.concatenate([gremlin - jnp.array([0.15, 0.0]), jnp.zeros((LANES, 1))], axis=1)
    state = state._replace(physics=state.physics._replace(qpos=state.physics.qpos.at[:, :3].set(pose)))
    after, step = buttons.step(state, buttons.still)
    undisturbed, _ = buttons.step(buttons.start(5)[0], buttons.still)
    names = buttons.nav.spec.cost_names
    assert (np.asarray(step.cost)[:, names.index("cost_gremlins")] == 1).mean() > 0.9
    apart = np.linalg.norm(np.asarray(after.physics.qpos - undisturbed.physics.qpos)[:, 3:5], axis=1)
    assert np.median(apart) > 1e-3


# --- refusals


def hazards(*args):
    """Level 1 of Goal with other hazards."""
    task = goal(POINT, 1)
    return task._replace(objects=(task.objects[0], objects.hazards(*args), task.objects[2]))


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (hazards(-2, 1.5), r"hazards: number -2 and keepout 0\.18 must not be negative\."),
        (hazards(80, 1.5), r"agent, goal, hazards, vases cannot fit: .* use fewer objects, .*\."),
        (hazards(1, 0.1), r"hazards: an area of 0\.1 m is too small for a keepout of 0\.18 m; enlarge .*\."),
        (goal(POINT, 0)._replace(lidars=("pillars",)), "Goal0: no group of objects is called 'pillars'; .* goal\\."),
        (goal(POINT, 0)._replace(touches=("vases",)), "Goal0: no group of objects is called 'vases'; .* goal\\."),
        (goal(POINT, 0)._replace(objects=(), lidars=()), "Goal0: a new goal needs a group of objects called 'goal'\\."),
        (
            goal(POINT, 0)._replace(objects=2 * goal(POINT, 0).objects),
            "Goal0: two groups of objects share a name .*\\.",
        ),
    ],
)
def test_impossible_tasks_are_refused_in_one_sentence(task, message):
    with pytest.raises(ValueError, match=f"^{message}$") as error:
        Navigation("Impossible", POINT, task, "mujoco")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("env_id", "near"),
    [
        ("SafetyCarGoal3-v0", "SafetyCarGoal"),
        ("SafetyAntRun1-v1", "SafetyAntRun0-v1"),
        ("SafetyDogoRun0-v0", "SafetyDoggoRun0-v0"),
    ],
)
def test_unknown_id_names_the_nearest(env_id, near):
    with pytest.raises(ValueError, match=f"^Unknown environment id '{env_id}'. Did you mean '{near}") as error:
        envs_mjx.make(env_id)
    assert "\n" not in str(error.value)


def test_vision_ids_say_where_they_are_made():
    with pytest.raises(
        ValueError, match=r"^SafetyPointGoal1Vision-v0: .*envs_mjx\.vision\.make\('SafetyPointGoal1Vision-v0'\)\.$"
    ):
        envs_mjx.make("SafetyPointGoal1Vision-v0")


def test_boxes_suit_the_robots():
    """The push box of a Car is smaller and lighter."""
    boxes = [next(g for g in push(agent, 0).objects if g.name == "push_box") for agent in (POINT, CAR)]
    assert [box.shapes[0].size[0] for box in boxes] == [0.2, 0.125]
    assert [box.keepout for box in boxes] == [0.2, 0.125]
    assert [box.density for box in boxes] == [0.001, 0.0005]
