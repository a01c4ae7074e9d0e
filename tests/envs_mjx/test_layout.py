"""Start layouts have the recorded distribution and never break a keep-out; goals are redrawn by the same rule."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import ks_2samp, kstest, kurtosis

from envs_mjx import layout, registry
from envs_mjx.layout import Placement

BATCHES = {"Button1": 10}  # of 64 lanes
GOAL_KEEPOUTS = {"agent": 0.4, "goal": 0.305, "hazards": 0.18, "vases": 0.15}
PUSH_KEEPOUTS = {"agent": 0.4, "goal": 0.4, "hazards": 0.4, "pillars": 0.3, "push_box": 0.2}
BUTTON_KEEPOUTS = {"agent": 0.4, "buttons": 0.2, "hazards": 0.18, "gremlins": 0.4}  # the goal is moved onto a button
WORLDS = {  # half-width of the area (m), keep-outs (m), numbers of objects besides robot and goal
    "Goal0": (1.0, GOAL_KEEPOUTS, {}),
    "Goal1": (1.5, GOAL_KEEPOUTS, {"hazards": 8, "vases": 1}),
    "Goal2": (2.0, GOAL_KEEPOUTS, {"hazards": 10, "vases": 10}),
    "Push1": (1.5, PUSH_KEEPOUTS, {"hazards": 2, "pillars": 1, "push_box": 1}),
    "Button0": (1.0, BUTTON_KEEPOUTS, {"buttons": 4}),
    "Button1": (1.5, BUTTON_KEEPOUTS, {"buttons": 4, "hazards": 4, "gremlins": 4}),
}
STEMS = {"hazards": "hazard", "vases": "vase", "pillars": "pillar", "buttons": "button", "gremlins": "gremlin"}


def places(nav, state):
    """Positions [S, n, 2] of each group at the start, and the robot's yaw [S, 1, 1]."""
    pose, groups = np.asarray(state.physics.home), {name: np.asarray(x) for name, x in state.points.items()}
    groups |= {group.name: pose[:, nav.physics.bodies.slice(group.name), :2] for group in nav.physics.bodies.groups}
    robot = np.asarray(state.physics.qpos[:, None])
    return groups | {"agent": robot[..., :2], "yaw": robot[..., 2:3]}


@pytest.fixture(scope="module")
def starts(lanes_of):
    """Many start layouts of each world by `places`."""

    def sample(name):
        env_id, known = f"SafetyPoint{name}-v0", lanes_of
        nav = known[env_id].nav if env_id in known else registry.navigation(env_id, "mujoco")
        reset = known[env_id].reset if env_id in known else jax.jit(jax.vmap(nav.reset))
        keys = (jax.random.split(jax.random.key(seed), 64) for seed in range(BATCHES.get(name, 40)))
        batches = [places(nav, reset(key)[0]) for key in keys]
        return {group: np.concatenate([b[group] for b in batches]).astype(float) for group in batches[0]}

    return {name: sample(name) for name in WORLDS}


def statistics(groups):
    """One number per layout, by the names of the recorded statistics."""

    def to(points, target):
        return np.linalg.norm(points - groups[target], axis=2)

    out = {"agent |x|": np.abs(groups["agent"][:, 0, 0]), "agent-goal distance": to(groups["goal"], "agent")[:, 0]}
    for group, name in STEMS.items():
        points = groups.get(group, np.zeros((1, 0, 2)))
        if points.shape[1]:
            out[f"{name}: mean distance to agent"] = to(points, "agent").mean(axis=1)
            out[f"{name}: min distance to agent"] = to(points, "agent").min(axis=1)
            out[f"{name}: min distance to goal"] = to(points, "goal").min(axis=1)
            out[f"{name}: mean radius from origin"] = np.linalg.norm(points, axis=2).mean(axis=1)
    if "push_box" in groups:
        out["box-agent distance"] = to(groups["push_box"], "agent")[:, 0]
        out["box-goal distance"] = to(groups["push_box"], "goal")[:, 0]
    return out


def compare(samples, recorded, count):
    """z of the mean, z of the standard deviation's logarithm, share of samples beyond the recorded extremes."""
    mean, sd, low, high = recorded
    z_mean = (samples.mean() - mean) / np.hypot(samples.std() / np.sqrt(len(samples)), sd / np.sqrt(count))
    spread = np.sqrt((kurtosis(samples, fisher=False) - 1) / 4 * (1 / len(samples) + 1 / count))
    return z_mean, np.log(samples.std() / sd) / spread, np.mean(samples < low), np.mean(samples > high)


@pytest.mark.parametrize("name", WORLDS)
def test_start_layouts_have_the_recorded_distribution(name, starts, golden):
    recorded = json.loads((golden / "layout_stats.json").read_text())[f"SafetyPoint{name}-v0"]
    own = statistics(starts[name])
    assert set(own) == {key for key, value in recorded.items() if isinstance(value, list)}
    for key, samples in own.items():
        mean, sd, low, high = recorded[key]
        if sd == 0:  # the goal lies on a button
            np.testing.assert_allclose(samples, mean, atol=1e-6)
            continue
        z_mean, z_spread, below, above = compare(samples, recorded[key], recorded["samples"])
        assert abs(z_mean) < 4, key
        assert abs(z_spread) < 4, key
        # of equal distributions, a share of 33 / n beyond the extremes of n others has a chance of exp(-33)
        assert max(below, above) < 33 / recorded["samples"], key
        assert samples.min() < low + 0.1 * (high - low), key
        assert samples.max() > high - 0.25 * (high - low), key


def test_the_comparison_notices_a_wrong_layout(starts, golden):
    recorded = json.loads((golden / "layout_stats.json").read_text())["SafetyPointGoal1-v0"]
    groups = starts["Goal1"]
    changes = {
        "hazard: mean radius from origin": {"hazards": 0.97 * groups["hazards"]},
        "agent-goal distance": {"goal": np.roll(groups["goal"], 1, axis=0)},  # of another layout
    }
    for name, change in changes.items():
        z_mean, *_ = compare(statistics(groups | change)[name], recorded[name], recorded["samples"])
        assert abs(z_mean) > 4, name


@pytest.mark.parametrize("name", WORLDS)
def test_no_start_layout_breaks_a_keepout(name, starts):
    half_extent, keepouts, numbers = WORLDS[name]
    keepouts = {group: radius for group, radius in keepouts.items() if group in starts[name]}
    groups = {group: starts[name][group] for group in keepouts}
    assert {group: x.shape[1] for group, x in groups.items() if x.shape[1]} == {
        group: {"agent": 1, "goal": 1, **numbers}[group] for group in keepouts if group in {"agent", "goal", *numbers}
    }
    points = np.concatenate(list(groups.values()), axis=1)
    radius = np.concatenate([np.full(x.shape[1], keepouts[group]) for group, x in groups.items()])
    assert_rule_holds(points, radius, half_extent)
    assert np.abs(points).max() > 0.99 * (half_extent - radius.min())


def test_a_goal_lies_on_any_of_the_buttons(starts):
    for name in ("Button0", "Button1"):
        apart = np.linalg.norm(starts[name]["buttons"] - starts[name]["goal"], axis=2)
        assert apart.min(axis=1).max() < 1e-6
        share = np.bincount(apart.argmin(axis=1), minlength=4) / len(apart)
        assert np.abs(share - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / len(apart))


def assert_rule_holds(points, radius, half_extent):
    gap = np.linalg.norm(points[:, :, None] - points[:, None], axis=3) - (radius[:, None] + radius)
    gap[:, np.arange(len(radius)), np.arange(len(radius))] = np.inf
    assert gap.min() > -1e-6
    assert gap.min() < 0.01  # the rule is felt
    assert (np.abs(points) <= (half_extent - radius)[:, None] + 1e-6).all()


def test_the_first_object_is_uniform(starts):
    for axis in (0, 1):
        assert kstest(starts["Goal2"]["agent"][:, 0, axis], "uniform", (-1.6, 3.2)).pvalue > 1e-4
    assert kstest(starts["Goal2"]["yaw"].ravel(), "uniform", (0, 2 * np.pi)).pvalue > 1e-4
    assert abs(np.corrcoef(starts["Goal2"]["agent"][:, 0].T)[0, 1]) < 4 / np.sqrt(64 * 40)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_robot_starts_at_rest_without_cost(level, lanes_of):
    env = lanes_of[f"SafetyPointGoal{level}-v0"]
    for seed in (3, 4):
        state = env.start(seed)
        assert not np.any(state.physics.qvel)
        assert not np.any(env.step(state, env.act())[1].cost)


TIGHT = (  # Button1 of the original, whose layouts succeed once in 47 attempts
    Placement("agent", 1, 0.4, 1.5),
    Placement("buttons", 4, 0.2, 1.5),
    Placement("goal", 1, 0.4, 1.5),
    Placement("hazards", 4, 0.18, 1.5),
    Placement("gremlins", 4, 0.4, 1.5),
)


def test_tight_layouts_start_over_until_they_fit(monkeypatch):
    keys = jax.random.split(jax.random.key(0), 48)
    points, ok = jax.jit(jax.vmap(lambda key: layout.sample(key, TIGHT)))(keys)
    assert ok.all()
    radius = np.repeat([p.keepout for p in TIGHT], [p.number for p in TIGHT])
    assert_rule_holds(np.asarray(points, float), radius, 1.5)
    assert len(np.unique(np.asarray(points)[:, 0, 0])) == 48
    monkeypatch.setattr(layout, "RESTARTS", 1)
    _, ok = jax.jit(jax.vmap(lambda key: layout.sample(key, TIGHT)))(keys)
    assert ok.sum() < 10  # 1 in 47 of them


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        (Placement("vases", -1, 0.1, 1.0), r"vases: number -1 and keepout 0\.1 must not be negative\."),
        (Placement("vases", 3, -0.1, 1.0), r"vases: number 3 and keepout -0\.1 must not be negative\."),
        (Placement("vases", 1, 0.6, 0.5), r"vases: an area of 0\.5 m is too small for a keepout of 0\.6 m; .*\."),
        (Placement("walls", 3, 0.0, 0.0, ((0.0, 0.0),)), r"walls: 1 fixed places for 3 objects; give one each\."),
        (
            Placement("vases", 40, 0.2, 1.0),
            r"agent, vases cannot fit: .* 5\.5 m\^2 of 4\.0 m\^2; use fewer objects.*\.",
        ),
    ],
)
def test_what_cannot_be_placed_is_refused_in_one_sentence(placement, message):
    with pytest.raises(ValueError, match=f"^{message}$") as error:
        layout.check((Placement("agent", 1, 0.4, 1.0), placement))
    assert "\n" not in str(error.value)


def test_fixed_places_and_rectangles():
    """Walls lie where they are told, in order; a start on a segment is on it."""
    walls = Placement("walls", 2, 0.0, 0.0, ((0.5, 0.0), (-0.5, 3.0)))
    agent = Placement("agent", 1, 0.0, (-0.2, 16.5, 0.2, 16.5))
    layout.check((agent, walls))
    points, ok = jax.jit(jax.vmap(lambda key: layout.sample(key, (agent, walls))))(
        jax.random.split(jax.random.key(0), 500)
    )
    assert ok.all()
    np.testing.assert_array_equal(points[:, 1:], np.broadcast_to([[0.5, 0.0], [-0.5, 3.0]], (500, 2, 2)))
    np.testing.assert_array_equal(points[:, 0, 1], 16.5)
    assert kstest(np.asarray(points[:, 0, 0]), "uniform", (-0.2, 0.4)).pvalue > 1e-4


def test_impossible_layout_is_flagged(monkeypatch):
    monkeypatch.setattr(layout, "RESTARTS", 3)
    _, ok = jax.jit(lambda key: layout.sample(key, (Placement("giants", 3, 0.6, 1.0),)))(jax.random.key(0))
    assert not ok


GOAL = Placement("goal", 1, 0.305, 1.5)
OTHERS = np.array([[0.9, -0.7], [-0.4, 0.2], [0.3, 0.6], [-1.1, -1.0], [0.5, -0.2], [5.0, 5.0]])
OTHERS_KEEPOUT = np.array([0.4, 0.18, 0.18, 0.18, 0.15, 0.15])


def rejection_sample(count, half_extent, keepout):
    rng = np.random.default_rng(0)
    draws = rng.uniform(keepout - half_extent, half_extent - keepout, (count, 2))
    free = np.linalg.norm(draws[:, None] - OTHERS, axis=2) >= keepout + OTHERS_KEEPOUT
    return draws[free.all(axis=1)]


def ks_pvalues(a, b):
    angle = lambda x: np.arctan2(x[:, 1] + 0.1, x[:, 0] - 0.2)
    return [ks_2samp(x, y).pvalue for x, y in ((a[:, 0], b[:, 0]), (a[:, 1], b[:, 1]), (angle(a), angle(b)))]


def test_goals_are_redrawn_by_rejection():
    redraw = jax.jit(jax.vmap(lambda key: layout.redraw(key, GOAL, jnp.asarray(OTHERS), jnp.asarray(OTHERS_KEEPOUT))))
    points, ok = redraw(jax.random.split(jax.random.key(0), 8000))
    points = np.asarray(points, float)
    assert ok.all()
    assert min(ks_pvalues(points, rejection_sample(60_000, 1.5, 0.305))) > 1e-4
    for wrong in ((1.5, 0.2), (1.45, 0.305)):
        assert min(ks_pvalues(points, rejection_sample(60_000, *wrong))) < 1e-4
    gap = np.linalg.norm(points[:, None] - OTHERS, axis=2) - OTHERS_KEEPOUT - 0.305
    assert -1e-6 < gap.min() < 0.01


def test_redraw_without_a_free_place_is_flagged(monkeypatch):
    monkeypatch.setattr(layout, "REDRAWS", 300)
    # one place in 2000 is free: seldom found in 300 draws, nearly always in 10,000
    narrow = jnp.array([[0.0, 0.0]]), jnp.array([1.195 * 2**0.5 - 0.305 - 0.038])
    keys = jax.random.split(jax.random.key(1), 64)
    _, ok = jax.jit(jax.vmap(lambda key: layout.redraw(key, GOAL, *narrow)))(keys)
    assert 0 < ok.sum() < 32
    monkeypatch.setattr(layout, "REDRAWS", 10_000)
    points, ok = jax.jit(jax.vmap(lambda key: layout.redraw(key, GOAL, *narrow)))(keys)
    assert ok.sum() > 60
    assert (np.linalg.norm(points[ok], axis=1) > 1.195 * 2**0.5 - 0.039).all()
