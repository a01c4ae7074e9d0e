"""Transforms: nothing at strength zero, else the distribution that the docs state."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probe_envs import probe, two_costs
from scipy import stats

from envs_mjx import transforms
from envs_mjx.adapters import gymnasium as door
from jaxalign import saferl

LANES, STEPS = 2000, 6
SIGNIFICANCE = 1e-4  # of every statistical test: the keys are fixed, so it passes always or never


@functools.cache
def plain():
    """Reward is what reaches the actuators, the observation a constant drawn at the reset and a clock."""
    return probe("Plain-v0", lambda o, a: a[0], horizon=100, draw=lambda key: jax.random.uniform(key, (1,)))


@functools.cache
def noisy():
    return transforms.action_noise(plain(), 0.3)


@functools.cache
def windy():
    return transforms.disturbance(plain(), 0.4, 3.0)


@functools.cache
def compiled(env):
    def one(key, action):
        state, obs = env.reset(key)
        return obs, jax.lax.scan(lambda s, _: env.step(s, action[None]), state, None, STEPS)[1]

    return jax.jit(jax.vmap(one, in_axes=(0, None)))


def roll(env, action=0.0, seed=0):
    """First observations [B, O] and time steps [B, T] of many episodes under a constant action."""
    keys = jax.random.split(jax.random.key(seed), LANES)
    return jax.tree.map(np.asarray, compiled(env)(keys, jnp.float32(action)))


def assert_normal(sample, std):
    assert stats.kstest(sample.ravel() / std, "norm").pvalue > SIGNIFICANCE


def assert_uncorrelated(columns):
    """Pairs of the columns of [N, C], by Fisher's transformation of their correlation."""
    for x, y in itertools.combinations(columns.T, 2):
        assert abs(np.arctanh(np.corrcoef(x, y)[0, 1])) * np.sqrt(len(x) - 3) < stats.norm.isf(SIGNIFICANCE / 30)


def test_at_strength_zero_nothing_changes_bit_for_bit(goal0):
    env = goal0.nav.env
    # not those of `goal0`, which another file may have compiled without optimisation
    plain_reset, plain_step = jax.jit(jax.vmap(env.reset)), jax.jit(jax.vmap(env.step))
    env = transforms.action_noise(env, 0.0)
    env = transforms.actuator_gain(env, 1.0, 1.0)
    env = transforms.disturbance(env, 0.0, 0.5)
    env = transforms.observation_noise(env, 0.0)
    env = transforms.miscalibration(env, {"gyro": 0.0}, 0.0)
    keys = jax.random.split(jax.random.key(5), goal0.size)
    (state, obs), (other, other_obs) = jax.jit(jax.vmap(env.reset))(keys), plain_reset(keys)
    np.testing.assert_array_equal(obs, other_obs)
    step = jax.jit(jax.vmap(env.step))
    for action in np.random.default_rng(0).uniform(-1.5, 1.5, (25, goal0.size, 2)).astype(np.float32):
        (state, after), (other, want) = step(state, action), plain_step(other, action)
        for x, y in zip(jax.tree.leaves(after), jax.tree.leaves(want), strict=True):
            np.testing.assert_array_equal(x, y)
    env_id, inner = transforms.base(env.spec.id, state)
    assert env_id == "SafetyPointGoal0-v0"
    np.testing.assert_array_equal(inner.physics.qpos, other.physics.qpos)


def test_noise_of_actions():
    reward = roll(noisy(), 0.5)[1].reward
    assert_normal(reward - 0.5, 0.3)
    assert_uncorrelated(reward)
    clipped = roll(noisy(), 7.0)[1].reward  # added to the clipped action
    assert_normal(clipped - 1.0, 0.3)


def test_gain_of_actuators_stays_for_an_episode():
    env = transforms.actuator_gain(plain(), 0.6, 1.2)
    reward = roll(env, 0.5)[1].reward
    assert (reward == reward[:, :1]).all()
    assert stats.kstest(reward[:, 0] / 0.5, "uniform", (0.6, 0.6)).pvalue > SIGNIFICANCE
    saturated = roll(env, 3.0)[1].reward[:, 0]
    np.testing.assert_allclose(saturated, reward[:, 0] / 0.5, rtol=1e-6)


def test_gusts_have_their_spread_and_their_memory():
    """One step takes 1 s in the plain environment, so rho = exp(-1/3)."""
    wind = roll(windy())[1].reward
    rho = np.exp(-1 / 3)
    for t in range(STEPS):
        assert_normal(wind[:, t], 0.4)
    for k in range(1, STEPS):
        got = np.arctanh(np.corrcoef(wind[:, 0], wind[:, k])[0, 1])
        assert abs(got - np.arctanh(rho**k)) * np.sqrt(LANES - 3) < stats.norm.isf(SIGNIFICANCE)
    assert_uncorrelated(wind[:, 1:] - rho * wind[:, :-1])  # the innovations
    assert_normal(wind[:, 1:] - rho * wind[:, :-1], 0.4 * np.sqrt(1 - rho**2))


def test_noise_of_observations():
    first, after = roll(transforms.observation_noise(plain(), {"probe": 0.2}))
    exact, exact_after = roll(plain())
    noise = np.concatenate([(first - exact)[:, None], after.obs - exact_after.obs], axis=1)
    assert_normal(noise, 0.2)
    assert_uncorrelated(noise.reshape(LANES, -1))
    np.testing.assert_array_equal(after.reward, exact_after.reward)


def test_only_named_blocks_are_noisy():
    two = plain()._replace(spec=plain().spec._replace(obs_blocks=(("drawn", 1), ("clock", 1))))
    first, after = roll(transforms.observation_noise(two, {"clock": 0.2}))
    exact, exact_after = roll(plain())
    np.testing.assert_array_equal(first[:, 0], exact[:, 0])
    np.testing.assert_array_equal(after.obs[..., 0], exact_after.obs[..., 0])
    assert_normal(after.obs[..., 1] - exact_after.obs[..., 1], 0.2)


def test_miscalibration_stays_for_an_episode():
    exact = roll(plain())[1].obs
    offset = roll(transforms.miscalibration(plain(), bias=0.1))[1].obs - exact
    np.testing.assert_allclose(offset, np.broadcast_to(offset[:, :1], offset.shape), atol=1e-6)
    assert_normal(offset[:, 0], 0.1)
    assert_uncorrelated(offset[:, 0])
    ratio = roll(transforms.miscalibration(plain(), gain=0.25))[1].obs / exact
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1], ratio.shape), rtol=1e-5)
    assert stats.kstest(ratio[:, 0].ravel(), "uniform", (0.75, 0.5)).pvalue > SIGNIFICANCE


def test_transforms_do_not_share_or_shift_their_draws():
    """Twice the same noise has twice the variance, and the draws of one do not depend on another."""
    assert_normal(roll(transforms.action_noise(noisy(), 0.3))[1].reward, 0.3 * np.sqrt(2))
    both = transforms.action_noise(transforms.observation_noise(windy(), 0.1), 0.3)
    noise, wind = roll(noisy())[1].reward, roll(windy())[1].reward
    np.testing.assert_allclose(roll(both)[1].reward, np.clip(noise, -1, 1) + wind, atol=1e-6)  # innermost last
    assert_uncorrelated(np.stack([wind[:, 0], noise[:, 0]], axis=1))


def test_the_key_is_the_episode():
    first, again, other = (roll(windy(), seed=seed)[1].reward for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()


def test_layouts_are_drawn_once_and_then_fixed(goal0):
    env = transforms.layouts(goal0.nav.env, seed=8)
    keys = jax.random.split(jax.random.key(0), 3)
    _, obs = jax.jit(jax.vmap(env.reset))(keys)
    np.testing.assert_array_equal(obs, np.broadcast_to(obs[:1], obs.shape))
    pool = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(8), i))(jnp.zeros(goal0.size, jnp.int32))
    np.testing.assert_allclose(obs[0], goal0.reset(pool)[1][0], atol=1e-6)


def test_a_pool_of_layouts_is_used_evenly():
    env = transforms.layouts(plain(), seed=2, number=7)
    drawn = roll(env)[0][:, 0]
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(2), i))(jnp.arange(7))
    pool = jax.vmap(lambda key: jax.random.uniform(key, (1,))[0])(keys)
    members, counts = np.unique(drawn, return_counts=True)
    np.testing.assert_allclose(members, np.sort(pool), rtol=1e-6)
    assert stats.chisquare(counts).pvalue > SIGNIFICANCE
    noise = roll(transforms.observation_noise(env, 0.1))[0][:, 0] - drawn  # outside the pool, so not fixed by it
    assert len(np.unique(noise)) > LANES // 2


def test_ids_tell_what_was_done():
    env = transforms.layouts(plain(), seed=2, number=7)
    env = transforms.observation_noise(env, {"probe": 0.05})
    env = transforms.actuator_gain(env, 0.7, 1.1)
    want = "Plain-v0+layouts(seed=2,number=7)+observation_noise(std={probe:0.05})+actuator_gain(low=0.7,high=1.1)"
    assert env.spec == plain().spec._replace(id=want)


def test_a_learner_trains_on_them(one_device):
    env = transforms.action_noise(transforms.layouts(two_costs(), seed=0, number=4), 0.1)
    env = transforms.miscalibration(transforms.disturbance(env, 0.1, 2.0), 0.1)
    config = saferl.OnPolicyConfig(num_envs=4, rollout_length=40, hidden=(8,))
    learner = saferl.make("ppo_lag", env, (1.0, 1.0), total_iterations=2, config=config, mesh=one_device)
    state = jax.jit(learner.init)(jax.random.key(0))
    _, info = jax.jit(learner.step)(state)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(info))


def test_other_doors_take_them():
    env = door.Environment(noisy())
    env.reset(seed=0)
    assert env.step([0.5])[1] not in (0.5, env.step([0.5])[1])


def test_what_is_not_finite_is_left_for_the_environment_to_flag():
    assert np.isinf(roll(noisy(), np.inf)[1].reward).all()


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda env: transforms.action_noise(env, -0.1), "action_noise: std=-0.1; pass finite numbers"),
        (lambda env: transforms.action_noise(env, (0.1, 0.2)), r"std has shape \(2,\); Plain-v0 has 1 actuators"),
        (lambda env: transforms.actuator_gain(env, 1.2, 0.9), "low=1.2 is above high=0.9"),
        (lambda env: transforms.disturbance(env, 0.1, 0.0), "time_constant=0.0; pass a positive number"),
        (lambda env: transforms.disturbance(env, float("nan"), 1.0), "std=nan; pass finite numbers"),
        (lambda env: transforms.observation_noise(env, {"lidar": 0.1}), "observes no 'lidar'; choose among probe"),
        (lambda env: transforms.miscalibration(env, gain=float("inf")), "gain=inf; pass finite numbers"),
        (lambda env: transforms.layouts(env, 0, 0), "number=0; a pool holds at least one"),
        (lambda env: transforms.layouts(env, -1), "seed=-1 is out of range"),
        (lambda env: transforms.layouts(transforms.action_noise(env, 0.1), 0), "apply layouts first"),
    ],
)
def test_bad_input_is_refused(act, message):
    with pytest.raises(ValueError, match=message):
        act(plain())
