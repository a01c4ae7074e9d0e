"""The exported policy acts as the learner's; episodes are summed whole; samples are compared as the textbook says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probe_envs import constrained
from scipy import stats

from jaxalign.core.statistics import RunningStatistics
from jaxalign.saferl import OnPolicyConfig, evaluation
from jaxalign.saferl.onpolicy import OnPolicyState, gaussian_policy

ENV = constrained()
RANDOM = np.random.default_rng(0)
OBS = (RANDOM.normal(size=(500, 2)) * [3.0, 0.2] + [1.0, -4.0]).astype(np.float32)


def trained(config):
    """A learner's state as far as an actor needs it, with statistics of other observations than those it is shown."""
    params = gaussian_policy(ENV, config).init(jax.random.key(1)) | {"log_std": jnp.array([-0.7])}
    statistics = RunningStatistics.empty(2).update(jnp.asarray(OBS[:50] * 0.5 + 1.0))
    rest = dict.fromkeys(set(OnPolicyState._fields) - {"policy", "statistics"})
    return OnPolicyState(policy=params, statistics=statistics, **rest)


@pytest.mark.parametrize("normalise", [True, False])
def test_exported_policy_acts_as_the_learner(sim_to_sim, tmp_path, normalise):
    config = OnPolicyConfig(hidden=(16, 8, 4), normalise_obs=normalise)
    state = trained(config)
    mean = jax.vmap(evaluation.actor(ENV, config, state, deterministic=True), (None, 0))(jax.random.key(0), OBS)
    sim_to_sim.policy.save(tmp_path / "policy.npz", sim_to_sim.export.export(state, normalise))
    exported = sim_to_sim.policy.load(tmp_path / "policy.npz")
    np.testing.assert_allclose(exported.mean(OBS), mean, rtol=1e-4, atol=1e-5)
    draws = exported.sample(np.repeat(OBS[:1], 20_000, 0), np.random.RandomState(0)) - exported.mean(OBS[0])
    np.testing.assert_allclose(draws.std(), np.exp(-0.7), rtol=0.02)
    np.testing.assert_allclose(draws.mean(), 0.0, atol=0.015)


def test_other_files_are_no_policy(sim_to_sim, tmp_path):
    np.savez(tmp_path / "other.npz", obs=OBS)
    with pytest.raises(ValueError, match="holds obs but no policy"):
        sim_to_sim.policy.load(tmp_path / "other.npz")


class Original:
    """The interface of Safety-Gymnasium around a sequence of observations; the reward is the action."""

    def reset(self, seed):
        self.seed, self.time = seed, 0
        return OBS[seed], {}

    def step(self, action):
        self.time += 1
        over = self.time == 4
        return OBS[self.seed + self.time], float(action[0]), self.time % 2, over and self.seed == 7, over, {}


def test_an_episode_of_the_peer_is_summed_whole(sim_to_sim):
    config = OnPolicyConfig(hidden=(8,))
    policy = sim_to_sim.export.export(trained(config), True)._replace(log_std=np.array([-np.inf], np.float32))
    for seed in (3, 7):
        row = sim_to_sim.peer.episode(Original(), policy, seed)
        np.testing.assert_allclose(row.pop("return"), policy.mean(OBS[seed : seed + 4]).sum(), rtol=1e-5)
        assert row == {"seed": seed, "cost": 2.0, "length": 4}


def test_episodes_of_an_interrupted_evaluation_are_kept(sim_to_sim, tmp_path):
    path = tmp_path / "peer.jsonl"
    assert sim_to_sim.peer.read(path) == {}
    path.write_text('{"seed": 4, "cost": 1.0}\n{"seed": 5, "co')
    assert sim_to_sim.peer.read(path) == {4: {"seed": 4, "cost": 1.0}}


def test_comparison_is_welchs(sim_to_sim):
    a, b = RANDOM.normal(1.0, 2.0, 30), RANDOM.normal(0.0, 5.0, 100)
    row = sim_to_sim.comparison.compare(a, b)
    test = stats.ttest_ind(a, b, equal_var=False)
    np.testing.assert_allclose(row.p, test.pvalue)
    bounds = row.difference[0] - row.difference[1], row.difference[0] + row.difference[1]
    np.testing.assert_allclose(bounds, test.confidence_interval(0.95))
    np.testing.assert_allclose([row.ours[0], row.peer[0]], [a.mean(), b.mean()])


def test_constant_samples_are_compared_exactly(sim_to_sim):
    compare = sim_to_sim.comparison.compare
    assert compare([0.0, 0.0], [0.0, 0.0])[2:] == ((0.0, 0.0), 1.0)
    assert compare([1.0, 1.0], [0.0, 0.0])[2:] == ((1.0, 0.0), 0.0)
