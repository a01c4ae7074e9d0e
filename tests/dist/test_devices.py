"""The same learning curve on 1, 2 and 8 devices."""

import jax
import numpy as np
import pytest
from probe_envs import constrained

import envs_mjx
from jaxalign import dist, saferl
from jaxalign.core.errors import UserError


def curve(name, env, num_devices, iterations=4, num_envs=16):
    mesh = dist.make_mesh(num_devices)
    config = saferl.OnPolicyConfig(num_envs=num_envs, rollout_length=40, hidden=(16,))
    learner = saferl.make(name, env, (1.0,), total_iterations=iterations, config=config, mesh=mesh)
    where = dist.shardings(jax.eval_shape(learner.init, jax.random.key(0)), mesh, saferl.SPLIT)
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    state = jax.jit(learner.init, out_shardings=where)(jax.device_put(jax.random.key(5), everywhere))
    step = jax.jit(learner.step, in_shardings=(where,), out_shardings=(where, None))
    infos = []
    for _ in range(iterations):
        state, info = step(state)
        infos.append(jax.device_get(info))
    return state, infos


@pytest.mark.parametrize("name", ["ppo_lag", "cpo"])
def test_devices_do_not_change_the_curve(name):
    env = constrained()
    one_state, one = curve(name, env, 1)
    for num_devices in (2, 8):
        state, many = curve(name, env, num_devices)
        assert len(state.rollout.obs.sharding.device_set) == num_devices
        assert state.rollout.obs.addressable_shards[0].data.shape[0] == 16 // num_devices
        for a, b in zip(one, many, strict=True):
            np.testing.assert_allclose(b.episode_return, a.episode_return, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(b.episode_cost, a.episode_cost, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(b.multiplier, a.multiplier, rtol=1e-3, atol=1e-6)
        for a, b in zip(jax.tree.leaves(one_state.policy), jax.tree.leaves(state.policy), strict=True):
            # a gradient multiplied by the number of devices would be off by far more
            np.testing.assert_allclose(np.asarray(b), np.asarray(a), rtol=5e-3, atol=5e-4)


def test_real_environment_on_several_devices():
    """Point's turn servo amplifies rounding about fourfold per step in closed loop: after the first update, whose
    parameters agree to rounding, single trajectories part, and curves agree only as far as averages do."""
    env = saferl.select_costs(envs_mjx.make("SafetyPointGoal0-v0"), ("cost",))
    _, one = curve("ppo_lag", env, 1, iterations=2)
    _, eight = curve("ppo_lag", env, 8, iterations=2)
    np.testing.assert_allclose(eight[0].episode_return, one[0].episode_return, rtol=1e-4)
    np.testing.assert_allclose(eight[0].extra["kl"], one[0].extra["kl"], rtol=1e-3)
    np.testing.assert_allclose(eight[1].episode_return, one[1].episode_return, rtol=0.05)


def test_device_counts_that_make_no_sense():
    with pytest.raises(UserError, match="9 devices were asked for, but JAX sees 8"):
        dist.make_mesh(9)
    with pytest.raises(UserError, match="num_envs is 12, which cannot be split over 8 devices"):
        curve("ppo", constrained(), 8, num_envs=12)
