"""Measures of models whose distributions are known exactly, and summaries against another library."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from tiny_lm import jit

from jaxalign.core.errors import UserError
from jaxalign.core.types import Network
from jaxalign.elasticity import dialects, measures
from jaxalign.elasticity.dialects import FIRST_WORD, GIVEN, NAMES

BIGRAMS = Network(lambda key: None, lambda params, tokens: jnp.asarray(params)[tokens])
"""A model that is a table: logits of the next token after each token."""


@pytest.fixture(scope="module")
def world():
    return dialects.make()


@pytest.fixture(scope="module")
def probe(world):
    draw = jit(lambda key, weights: dialects.draw(world, key, weights, 200, 12))
    return np.stack([draw(jax.random.key(i), w) for i, w in enumerate(np.eye(len(NAMES), dtype=np.float32))])


def speaker(world, dialect):
    """The table of a dialect."""
    table = np.full((40, 40), -30.0, np.float32)
    table[FIRST_WORD:, FIRST_WORD:] = world.log_transitions[dialect]
    return table


def test_a_model_that_speaks_a_dialect(world, probe):
    """It spends the entropy on its own; divergences are those between rows of the tables."""

    @jit
    def observe(model, *references):
        flat = jnp.asarray(probe.reshape(-1, probe.shape[-1]))
        logs = [measures.log_probs(BIGRAMS, x, flat).reshape(*probe.shape[:2], -1, 40) for x in references]
        return measures.observe(BIGRAMS, world, model, jnp.asarray(probe), (logs[0], logs[1]), jnp.asarray(probe[0]))

    seen = observe(*(speaker(world, d) for d in (0, 1, 2)))
    table = np.exp(np.asarray(world.log_transitions, float))
    after = np.asarray(probe[:3, :, GIVEN - 1 : -1]).ravel() - FIRST_WORD
    divergence = lambda a, b: stats.entropy(table[a], table[b], axis=-1)[after].mean()
    np.testing.assert_allclose(seen.kl, divergence(0, 1), rtol=1e-4)
    np.testing.assert_allclose(seen.kl_reverse, divergence(1, 0), rtol=1e-4)
    np.testing.assert_allclose(seen.moved, divergence(0, 2), rtol=1e-4)
    words = np.asarray(probe) - FIRST_WORD
    bits = [-np.log2(table[0][x[:, GIVEN - 1 : -1], x[:, GIVEN:]]).mean() for x in words]
    np.testing.assert_allclose(seen.bits, bits, rtol=1e-4)
    np.testing.assert_allclose(seen.bits[0], dialects.entropy(world)[0] / np.log(2), rtol=0.05)
    assert seen.bits[1:].min() > seen.bits[0] + 1.0
    assert seen.score > 0.95
    assert seen.margin > 1.0


def test_rebound_of_a_curve():
    points, kl, floor = [0.0, 10.0, 20.0, 30.0], [0.8, 0.5, 0.2, 0.4], [0.0, 0.05, 0.1, 0.3]
    found = measures.rebound(points, kl, floor)
    np.testing.assert_allclose(found, [0.8, 0.25, 0.5, 0.125, 0.125, 10 + 10 / 3])


def test_half_is_never_reached_or_reached_at_once():
    assert measures.rebound([0.0, 10.0], [1.0, 0.6], [0.0, 0.0]).n_half == float("inf")
    assert measures.first_below(np.array([0, 10]), np.array([1.0, 1.0]), 1.0) == 0.0


@pytest.mark.parametrize(
    ("curves", "sentence"),
    [
        (([0.0, 1.0], [1.0, 0.5], [0.0]), r"shapes \(2,\), \(2,\), \(1,\)"),
        (([], [], []), "shapes"),
        (([0.0, 1.0], [0.0, 0.5], [0.0, 0.0]), "align the model first"),
    ],
)
def test_curves_that_make_no_sense(curves, sentence):
    with pytest.raises(UserError, match=sentence):
        measures.rebound(*curves)


def test_interval_is_the_percentile_bootstrap():
    values = np.random.default_rng(0).gamma(2.0, size=30)
    peer = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=1).confidence_interval
    found = measures.interval(values)
    assert found.value == values.mean()
    np.testing.assert_allclose(found[1:], peer, atol=0.05 * (peer.high - peer.low))
    assert measures.interval(values) == found


def test_interval_of_what_never_happens():
    found = measures.interval([10.0, np.inf, 20.0, np.inf, 30.0], np.median)
    assert found == (30.0, 10.0, np.inf)
    assert str(found) == "30 [10, never]"


def test_interval_of_one_seed_and_of_none():
    found = measures.interval([2.0])
    assert found.value == 2.0
    assert np.isnan(found[1:]).all()
    assert str(found) == "2"
    with pytest.raises(UserError, match="no seed"):
        measures.interval([])
