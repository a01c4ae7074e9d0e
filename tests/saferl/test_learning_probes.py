"""Probe environments with known answers: does it learn values, actions, and where the limit is?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probe_envs import constrained, probe

from jaxalign import saferl
from jaxalign.saferl import evaluation, onpolicy


def train(name, env, mesh, iterations, limit=(1e9,), **sizes):
    config = saferl.OnPolicyConfig(**{"num_envs": 64, "rollout_length": 40, "hidden": (16,)} | sizes)
    learner = saferl.make(name, env, limit, total_iterations=iterations, config=config, mesh=mesh)
    run = jax.jit(lambda key: jax.lax.scan(lambda s, _: learner.step(s), learner.init(key), None, length=iterations))
    state, info = run(jax.random.key(1))
    return config, state, info


def values(env, config, state, raw_obs):
    """Reward value, then cost values, of raw observations [N, O]."""
    critic = onpolicy._critics(env, config, 1 + len(env.spec.cost_names))
    return np.asarray(critic.apply(state.critic, onpolicy.normaliser(config)(state.statistics, raw_obs)))


def test_values_of_a_terminated_episode(one_device):
    """Reward 1 and cost 2 per step, terminated after 2 steps: V = 1 + 0.99, then 1."""
    env = probe("Ended", lambda o, a: jnp.ones(()), lambda o, a: 2 * jnp.ones(1), horizon=2)
    config, state, _ = train("ppo", env, one_device, 60, learning_rate=0.0)
    v = values(env, config, state, jnp.array([[0.0, 0.0], [0.0, 0.5]]))
    np.testing.assert_allclose(v[:, 0], [1.99, 1.0], atol=0.05)
    np.testing.assert_allclose(v[:, 1], [3.98, 2.0], atol=0.1)


def test_value_under_a_time_limit(one_device):
    """Reward 0.01 for ever, cut after every step: V = 0.01 / (1 - 0.99) = 1, a hundred times that of a terminated one."""
    env = probe("Cut", lambda o, a: 0.01 * jnp.ones(()), terminal=False, clock=0.0)
    config, state, _ = train("ppo", env, one_device, 800, learning_rate=0.0)
    np.testing.assert_allclose(values(env, config, state, jnp.zeros((1, 2)))[0, 0], 1.0, atol=0.1)


@pytest.mark.parametrize("name", ["ppo", "trpo"])
def test_action_that_depends_on_the_observation(name, one_device):
    """Reward -(a - o)^2 with o = +-0.5: the mean action must follow the observation."""
    env = probe(
        "Follow",
        lambda o, a: -jnp.square(a[0] - o[0]),
        draw=lambda key: jnp.where(jax.random.bernoulli(key), 0.5, -0.5)[None],
    )
    config, state, info = train(name, env, one_device, 200, learning_rate=3e-3, initial_log_std=-1.0)
    act = evaluation.actor(env, config, state, deterministic=True)
    obs = jnp.array([[0.5, 0.0], [-0.5, 0.0]])
    np.testing.assert_allclose(jax.vmap(act, (None, 0))(jax.random.key(0), obs)[:, 0], [0.5, -0.5], atol=0.1)
    assert info.episode_return[-1] > info.episode_return[0]


@pytest.mark.parametrize("name", ["ppo_lag", "trpo_lag", "cpo", "pcpo"])
def test_constrained_optimum(name, one_device):
    """Maximise E[a] with E[a^2] <= 0.25 per step: the cost is at its limit, and E[a] tends to 0.5 as the spread shrinks."""
    env, horizon, limit = constrained(), 4, 1.0
    _, _, info = train(name, env, one_device, 200, (limit,), initial_log_std=-1.5, learning_rate=3e-3)
    cost, reward = np.asarray(info.episode_cost[-30:, 0]), np.asarray(info.episode_return[-30:])
    assert cost.mean() < 1.1 * limit, "the limit must hold"
    assert reward.mean() > 0.8 * horizon * 0.5, "and not by giving up the reward"


def test_without_a_constraint_the_limit_is_exceeded(one_device):
    _, _, info = train("ppo", constrained(), one_device, 60, (1.0,), initial_log_std=-1.5, learning_rate=3e-3)
    assert info.episode_cost[-5:, 0].mean() > 3.0
