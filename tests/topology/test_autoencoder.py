"""RLHF as autoencoding: the decoder's optimum, the reward model against SciPy, convergence, and the error bound."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import logistic

from jaxalign.core.errors import UserError
from jaxalign.topology.autoencoder import (
    _PRIOR_PRECISION,
    World,
    autoencode,
    decode,
    encode,
    propagation_bound,
    reward_model,
)

WORLD = World(responses=12, beta=0.5, spread=1.0, noise=0.8)


@pytest.fixture(scope="module")
def outcome():
    return autoencode(WORLD, [100, 400, 1600, 6400], seeds=12)


def test_the_decoder_is_optimal():
    random = np.random.default_rng(0)
    reward, beta = random.normal(size=7), 0.6
    value = lambda p: p @ reward - beta * (p * np.log(p)).sum()
    best = decode(reward, beta)
    assert value(best) == pytest.approx(beta * logsumexp(reward / beta))
    assert all(value(random.dirichlet(np.ones(7))) < value(best) for _ in range(200))


def test_the_reward_model_is_the_mode_of_the_posterior():
    _, first, second, reported = jax.jit(encode, static_argnums=(0, 1))(WORLD, 60, jax.random.key(1))
    present = jnp.arange(60) < 40
    fitted, variance = jax.jit(lambda *data: reward_model(WORLD, *data))(first, second, reported, present)
    i, j, z = np.asarray(first)[:40], np.asarray(second)[:40], np.asarray(reported)[:40]

    def loss(reward):
        misfit = z - reward[i] + reward[j]
        return -logistic.logpdf(misfit, scale=WORLD.noise).sum() + 0.5 * _PRIOR_PRECISION * (reward**2).sum()

    best = minimize(loss, np.zeros(12), method="BFGS", options={"gtol": 1e-6}).x
    np.testing.assert_allclose(np.asarray(fitted), best - best.mean(), atol=2e-3)
    information = _PRIOR_PRECISION * np.eye(12)
    for a, b in zip(i, j):
        information[[a, b, a, b], [a, b, b, a]] += np.array([1, 1, -1, -1]) / (3 * WORLD.noise**2)
    covariance = np.linalg.inv(information)
    expected = (np.diag(covariance)[:, None] + np.diag(covariance) - 2 * covariance).max()
    assert float(variance) == pytest.approx(expected, rel=1e-3)


def test_a_comparison_reports_a_difference_of_rewards():
    human, first, second, reported = map(
        np.asarray, jax.jit(encode, static_argnums=(0, 1))(WORLD, 50_000, jax.random.key(2))
    )
    assert (first != second).all()
    noise = reported - human[first] + human[second]
    assert noise.mean() == pytest.approx(0, abs=0.03)
    assert noise.std() == pytest.approx(WORLD.noise * np.pi / 3**0.5, rel=0.02)
    assert human.mean() == pytest.approx(0, abs=1e-6)


def test_the_text_distribution_returns(outcome):
    """Theorem 3.1: with the conditional variance, the distance from p_H vanishes, at the rate of means."""
    distance = outcome.total_variation.mean(1)
    assert (np.diff(distance) < 0).all()
    assert (np.diff(outcome.variance.mean(1)) < 0).all()
    assert outcome.convergence.contains(-0.5)
    assert outcome.convergence.high - outcome.convergence.low < 0.3
    # Errors of r_RM are as large as its own variance says: their pairs, mean square over variance
    error = outcome.reward_model[-1] - outcome.human[-1]
    pairs = (error[:, :, None] - error[:, None, :]) ** 2
    assert 0.3 < pairs.mean() / outcome.variance[-1].mean() < 1.2


def test_the_error_bound_holds_for_every_response(outcome):
    assert (outcome.error <= outcome.bound[..., None]).all()
    assert outcome.total_variation.shape == (4, 12)


def test_the_error_bound_holds_for_any_rewards_and_is_not_vacuous():
    random = np.random.default_rng(3)
    human = random.normal(size=(4000, 6)) * random.uniform(0.05, 2, (4000, 1))
    model = human + random.normal(size=(4000, 6)) * random.uniform(0.001, 1, (4000, 1))
    for beta in (0.5, 2.0):
        share = np.abs(decode(model, beta) - decode(human, beta)).max(1) / propagation_bound(model, human, beta)
        assert share.max() <= 1
        assert share.max() > 0.5
    by_hand = propagation_bound(np.array([0.0, 1.0]), np.array([0.0, 0.5]), 1.0)
    z_model, z_human = 1 + np.e, 1 + np.e**0.5
    assert by_hand == pytest.approx(np.e**2 / z_model * 0.5 + np.e / (z_model * z_human) * (z_model - z_human))


@pytest.mark.parametrize("change", [{"responses": 1}, {"beta": 0.0}, {"spread": -1.0}, {"noise": float("inf")}])
def test_worlds_that_make_no_sense(change):
    name = next(iter(change))
    with pytest.raises(UserError, match="at least 2" if name == "responses" else name):
        World(**change)


def test_no_sizes_or_seeds():
    for sizes, seeds in (([], 2), ([0], 2), ([10], 0)):
        with pytest.raises(UserError, match="Sizes are"):
            autoencode(WORLD, sizes, seeds)
