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
    """Reward 0.01 for ever, cut after every step: V = 0.01 / (1 - 0.99) = 1, a hundred times a terminated one's."""
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
    config, state, info = train(name, env, one_device, 200, learning_rate=3e-3)
    act = evaluation.actor(env, config, state, deterministic=True)
    obs = jnp.array([[0.5, 0.0], [-0.5, 0.0]])
    np.testing.assert_allclose(jax.vmap(act, (None, 0))(jax.random.key(0), obs)[:, 0], [0.5, -0.5], atol=0.1)
    assert info.episode_return[-1] > info.episode_return[0]


@pytest.mark.parametrize("name", ["cpo", "pcpo"])
def test_constrained_optimum(name, one_device):
    """Maximise E[sum a] with E[sum a] <= 3: the return must rise to the limit and stay there."""
    _, _, info = train(name, constrained(), one_device, 120, (3.0,), initial_log_std=-1.0)
    assert abs(info.episode_cost[0, 0]) < 1.5, "it starts well below the limit"
    assert info.episode_cost[-50:, 0].mean() == pytest.approx(3.0, abs=0.3)


@pytest.mark.parametrize("name", ["ppo_lag", "trpo_lag"])
def test_multiplier_circles_the_saddle_point(name, one_device):
    """Gradient descent-ascent on a bilinear saddle point circles it: averaged over time the cost is at the limit."""
    _, _, info = train(name, constrained(), one_device, 200, (3.0,), initial_log_std=-1.0)
    cost, multiplier = np.asarray(info.episode_cost[10:, 0]), np.asarray(info.multiplier[10:, 0])
    assert cost.mean() == pytest.approx(3.0, abs=0.5)
    assert cost.max() > 4.0 > 2.0 > cost.min(), "the cost is pulled back from both sides"
    assert multiplier.max() > 1.0
    assert multiplier.min() < 0.1


def test_without_a_constraint_the_limit_is_exceeded(one_device):
    _, _, info = train("ppo", constrained(), one_device, 60, (3.0,), initial_log_std=-1.0)
    assert info.episode_cost[-5:, 0].mean() > 4.5
