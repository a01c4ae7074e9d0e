"""Episodes are summed whole; samples are compared as the textbook says."""

import numpy as np
from scipy import stats

from jaxalign.saferl.numpy_policy import Policy

RANDOM = np.random.default_rng(0)
OBS = (RANDOM.normal(size=(500, 2)) * [3.0, 0.2] + [1.0, -4.0]).astype(np.float32)


def linear_policy():
    """A policy without hidden layer or spread."""
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    weights, shift = (np.array([[0.3], [-0.2]], np.float32),), np.zeros(2, np.float32)
    return Policy("gaussian", shift, np.ones(2), np.inf, weights, (zero,), zero - np.inf, -one, one)


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
    policy = linear_policy()
    for seed in (3, 7):
        row = sim_to_sim.peer.episode(Original(), policy, seed)
        np.testing.assert_allclose(row.pop("return"), policy.action(OBS[seed : seed + 4]).sum(), rtol=1e-5)
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
