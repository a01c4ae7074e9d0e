"""Start layouts have the recorded distribution and never break a keep-out; goals are redrawn by the same rule."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import ks_2samp, kstest, kurtosis

from envs_mjx import layout
from envs_mjx.layout import Placement

LEVELS = (0, 1, 2)
BATCHES = 40  # of 64 lanes
KEEPOUT = {"agent": 0.4, "goal": 0.305, "hazards": 0.18, "vases": 0.15}
HALF_EXTENT = (1.0, 1.5, 2.0)


@pytest.fixture(scope="module")
def starts(lanes_of):
    """Positions [S, n, 2] of each group in 2560 start layouts of each level, and the robot's yaw [S, 1, 1]."""

    def sample(env):
        drafts = [env.draft(seed) for seed in range(BATCHES)]
        groups = {
            "agent": [d.robot[:, None, :2] for d in drafts],
            "goal": [d.goal[:, None] for d in drafts],
            "hazards": [d.hazards for d in drafts],
            "vases": [d.boxes[..., :2] for d in drafts],
            "yaw": [d.robot[:, None, 2:] for d in drafts],
        }
        return {name: np.concatenate(x).astype(float) for name, x in groups.items()}

    return {level: sample(lanes_of[f"SafetyPointGoal{level}-v0"]) for level in LEVELS}


def statistics(groups):
    """One number per layout, by the names of the recorded statistics."""

    def to(points, target):
        return np.linalg.norm(points - groups[target], axis=2)

    out = {"agent |x|": np.abs(groups["agent"][:, 0, 0]), "agent-goal distance": to(groups["goal"], "agent")[:, 0]}
    for name, group in (("hazard", "hazards"), ("vase", "vases")):
        points = groups[group]
        if points.shape[1]:
            out[f"{name}: mean distance to agent"] = to(points, "agent").mean(axis=1)
            out[f"{name}: min distance to agent"] = to(points, "agent").min(axis=1)
            out[f"{name}: min distance to goal"] = to(points, "goal").min(axis=1)
            out[f"{name}: mean radius from origin"] = np.linalg.norm(points, axis=2).mean(axis=1)
    return out


def compare(samples, recorded, count):
    """z of the mean, z of the standard deviation's logarithm, share of samples beyond the recorded extremes."""
    mean, sd, low, high = recorded
    z_mean = (samples.mean() - mean) / np.hypot(samples.std() / np.sqrt(len(samples)), sd / np.sqrt(count))
    spread = np.sqrt((kurtosis(samples, fisher=False) - 1) / 4 * (1 / len(samples) + 1 / count))
    return z_mean, np.log(samples.std() / sd) / spread, np.mean(samples < low), np.mean(samples > high)


@pytest.mark.parametrize("level", LEVELS)
def test_start_layouts_have_the_recorded_distribution(level, starts, golden):
    recorded = json.loads((golden / "layout_stats.json").read_text())[f"SafetyPointGoal{level}-v0"]
    own = statistics(starts[level])
    assert set(own) == {name for name, value in recorded.items() if isinstance(value, list)}
    for name, samples in own.items():
        z_mean, z_spread, below, above = compare(samples, recorded[name], recorded["samples"])
        assert abs(z_mean) < 4, name
        assert abs(z_spread) < 4, name
        # of equal distributions, fewer than 1 in 60 lie beyond the extremes of 2000 others (chance 1e-8)
        assert max(below, above) < 1 / 60, name
        _, _, low, high = recorded[name]
        assert samples.min() < low + 0.1 * (high - low), name
        assert samples.max() > high - 0.25 * (high - low), name


def test_the_comparison_notices_a_wrong_layout(starts, golden):
    recorded = json.loads((golden / "layout_stats.json").read_text())["SafetyPointGoal1-v0"]
    groups = starts[1]
    changes = {
        "hazard: mean radius from origin": {"hazards": 0.97 * groups["hazards"]},
        "agent-goal distance": {"goal": np.roll(groups["goal"], 1, axis=0)},  # of another layout
    }
    for name, change in changes.items():
        z_mean, *_ = compare(statistics(groups | change)[name], recorded[name], recorded["samples"])
        assert abs(z_mean) > 4, name


@pytest.mark.parametrize("level", LEVELS)
def test_no_start_layout_breaks_a_keepout(level, starts):
    groups = {name: starts[level][name] for name in KEEPOUT}
    points = np.concatenate(list(groups.values()), axis=1)
    radius = np.concatenate([np.full(x.shape[1], KEEPOUT[name]) for name, x in groups.items()])
    assert_rule_holds(points, radius, HALF_EXTENT[level])
    assert np.abs(points).max() > 0.99 * (HALF_EXTENT[level] - radius.min())


def assert_rule_holds(points, radius, half_extent):
    gap = np.linalg.norm(points[:, :, None] - points[:, None], axis=3) - (radius[:, None] + radius)
    gap[:, np.arange(len(radius)), np.arange(len(radius))] = np.inf
    assert gap.min() > -1e-6
    assert gap.min() < 0.01  # the rule is felt
    assert (np.abs(points) <= (half_extent - radius)[:, None] + 1e-6).all()


def test_the_first_object_is_uniform(starts):
    for axis in (0, 1):
        assert kstest(starts[2]["agent"][:, 0, axis], "uniform", (-1.6, 3.2)).pvalue > 1e-4
    assert kstest(starts[2]["yaw"].ravel(), "uniform", (0, 2 * np.pi)).pvalue > 1e-4
    assert abs(np.corrcoef(starts[2]["agent"][:, 0].T)[0, 1]) < 4 / np.sqrt(64 * BATCHES)


@pytest.mark.parametrize("level", LEVELS)
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
