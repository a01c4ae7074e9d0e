"""Brax's door, with Brax's own wrappers and learner; known answers come from a counting environment."""

import functools
import importlib.util
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probe_envs import probe

GOAL0 = "SafetyPointGoal0-v0"


@pytest.fixture(scope="module")
def brax():
    """The door and Brax behind it; imported here, so that the other tests are collected without the package."""
    if importlib.util.find_spec("brax") is None:
        pytest.skip('pip install -e ".[brax]"')
    door = importlib.import_module("envs_mjx.adapters.brax")
    return SimpleNamespace(
        Environment=door.Environment, training=importlib.import_module("brax.envs.wrappers.training")
    )


def counting(horizon=3):
    """Reward is the action, cost twice the action; ends only by the time limit."""
    return probe("Counter-v0", lambda o, a: a[0], lambda o, a: 2 * a, horizon, terminal=False)


def mortal():
    """Dies of an action above a half."""
    base = counting(100)

    def step(state, action):
        state, after = base.step(state, action)
        return state, after._replace(terminated=action[0] > 0.5)

    return base._replace(step=step)


def roll(env, actions):
    """States after a reset and after each action, of as many lanes as actions has columns, [T, B]."""
    first = jax.jit(env.reset)(jax.random.split(jax.random.PRNGKey(0), actions.shape[1]))

    def step(state, action):
        state = env.step(state, action)
        return state, state

    return first, jax.jit(lambda state: jax.lax.scan(step, state, actions[..., None]))(first)[1]


def test_is_the_functional_environment(brax, goal0):
    """The same keys, here old-style as Brax passes them, are the same episodes."""
    env = brax.Environment(GOAL0, engine="mujoco")
    assert (env.observation_size, env.action_size, env.dt, env.backend) == (28, 2, 0.02, "mujoco")
    keys = jax.random.split(jax.random.key(3), goal0.size)
    lanes = brax.training.VmapWrapper(env)
    step = jax.jit(lanes.step)
    # not those of `goal0`, which another file may have compiled without optimisation
    plain_reset, plain_step = (jax.jit(jax.vmap(f)) for f in (goal0.nav.env.reset, goal0.nav.env.step))
    door, (state, obs) = jax.jit(lanes.reset)(jax.random.key_data(keys)), plain_reset(keys)
    np.testing.assert_allclose(door.obs, obs, atol=1e-6)
    for action in np.random.default_rng(0).uniform(-1, 1, (20, goal0.size, 2)).astype(np.float32):
        state, after = plain_step(state, action)
        before, door = door, step(door, action)
        assert jax.tree.structure(before) == jax.tree.structure(door)
        np.testing.assert_allclose(door.obs, after.obs, atol=1e-5)
        np.testing.assert_allclose(door.reward, after.reward, atol=1e-6)
        np.testing.assert_array_equal(door.info["cost"], after.info["cost"])
        assert not door.done.any()
    np.testing.assert_array_equal(door.pipeline_state.time, 20)


@pytest.mark.parametrize("horizon", [3, 100])
def test_a_time_limit_is_a_truncation_whoever_else_has_one(brax, horizon):
    """With horizon 3 the environment's own limit falls into the same step."""
    env = brax.training.wrap(brax.Environment(counting(horizon)), episode_length=3)
    _, after = roll(env, jnp.full((7, 2), 0.25))
    for lane in (0, 1):
        np.testing.assert_array_equal(after.done[:, lane], [0, 0, 1, 0, 0, 1, 0])
        np.testing.assert_array_equal(after.info["truncation"][:, lane], [0, 0, 1, 0, 0, 1, 0])
        np.testing.assert_array_equal(after.info["steps"][:, lane], [1, 2, 3, 1, 2, 3, 1])
        np.testing.assert_array_equal(after.pipeline_state.time[:, lane], [1, 2, 0, 1, 2, 0, 1])
        np.testing.assert_allclose(after.obs[:, lane, 1], np.array([1, 2, 0, 1, 2, 0, 1]) / horizon, rtol=1e-6)


def test_a_death_is_no_truncation(brax):
    env = brax.training.wrap(brax.Environment(mortal()), episode_length=3)
    _, after = roll(env, jnp.array([[0.1, 0.9], [0.1, 0.1], [0.9, 0.1], [0.1, 0.1]]))
    np.testing.assert_array_equal(after.done, [[0, 1], [0, 0], [1, 0], [0, 1]])
    np.testing.assert_array_equal(after.info["truncation"], [[0, 0], [0, 0], [0, 0], [0, 1]])


def test_a_failed_simulation_ends_the_episode(brax):
    base = counting(100)

    def step(state, action):
        state, after = base.step(state, action)
        failed = action[0] > 0.5
        return state, after._replace(truncated=failed, info=after.info | {"diverged": failed})

    _, after = roll(brax.training.wrap(brax.Environment(base._replace(step=step)), 9), jnp.array([[0.1], [0.9], [0.1]]))
    np.testing.assert_array_equal(after.done[:, 0], [0, 1, 0])
    np.testing.assert_array_equal(after.metrics["diverged"][:, 0], [0, 1, 0])


def test_costs_are_summed_by_brax_wherever_it_sums(brax):
    env = brax.training.EvalWrapper(brax.training.wrap(brax.Environment(counting()), episode_length=3))
    actions = jnp.array([[0.25, 0.5], [0.25, 0.5], [0.5, 0.5], [1.0, 1.0]])
    first, after = roll(env, actions)
    assert {"cost", "cost0"} <= first.metrics.keys()
    np.testing.assert_allclose(after.info["cost"], 2 * actions)
    np.testing.assert_allclose(after.info["eval_metrics"].episode_metrics["cost"][-1], [2.0, 3.0])  # first episodes
    np.testing.assert_allclose(after.info["episode_metrics"]["cost0"][2], [2.0, 3.0])
    np.testing.assert_allclose(after.info["eval_metrics"].episode_metrics["reward"][-1], [1.0, 1.5])


def test_brax_ppo_learns_through_the_door(brax, monkeypatch):
    """Reward is the action: a few updates raise it. Brax 0.14.2 calls what JAX no longer has, see the door's docs."""
    from brax.training.agents.ppo import networks, train

    def replicated(tree, devices):
        return jax.tree.map(lambda x: jnp.stack([x] * len(devices)), tree)

    if not hasattr(jax, "device_put_replicated"):
        monkeypatch.setattr(jax, "device_put_replicated", replicated, raising=False)
    rewards = []
    small = functools.partial(networks.make_ppo_networks, policy_hidden_layer_sizes=(8,), value_hidden_layer_sizes=(8,))
    env = brax.Environment(counting(8))
    train.train(
        env, num_timesteps=8192, episode_length=env.spec.horizon, num_envs=64, unroll_length=8, batch_size=64,
        num_minibatches=1, num_updates_per_batch=4, learning_rate=0.03, num_evals=2, num_eval_envs=64,
        network_factory=small, max_devices_per_host=1,
        progress_fn=lambda _, metrics: rewards.append((metrics["eval/episode_reward"], metrics["eval/episode_cost"])),
    )  # fmt: skip
    (before, _), (after, cost) = rewards
    assert after > before + 2
    np.testing.assert_allclose(cost, 2 * after, rtol=1e-5)


def test_bad_input_is_refused(brax):
    with pytest.raises(ValueError, match="Unknown environment id 'SafetyPointGoal0'"):
        brax.Environment("SafetyPointGoal0")
    with pytest.raises(ValueError, match="too late for a ready environment"):
        brax.Environment(counting(), engine="mjx")


def test_without_brax_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "brax.envs.base", None)
    monkeypatch.delitem(sys.modules, "envs_mjx.adapters.brax", raising=False)
    with pytest.raises(ImportError, match=r'pip install "jaxalign\[brax\]"'):
        __import__("envs_mjx.adapters.brax")
