"""Estimators of the KL against its exact value, by summing over a vocabulary; and what their gradients are of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxalign.core.errors import UserError
from jaxalign.rlhf import kl

LOGITS, REFERENCE = (np.random.default_rng(i).normal(size=9) for i in range(2))
P, Q = (np.exp(x) / np.exp(x).sum() for x in (LOGITS, REFERENCE))


def test_exact_and_entropy():
    np.testing.assert_allclose(kl.exact(jnp.array(LOGITS), jnp.array(REFERENCE)), scipy.stats.entropy(P, Q), rtol=1e-5)
    np.testing.assert_allclose(kl.entropy(jnp.array(LOGITS)), scipy.stats.entropy(P), rtol=1e-5)


def test_which_estimators_are_unbiased():
    exact, log_ratio = scipy.stats.entropy(P, Q), jnp.array(np.log(P / Q))
    mean = {name: float(P @ np.asarray(f(log_ratio))) for name, f in kl.ESTIMATORS.items()}
    np.testing.assert_allclose([mean["k1"], mean["k3"]], exact, rtol=1e-5)
    assert abs(mean["k2"] - exact) > 0.05
    np.testing.assert_allclose(mean["k2"], P @ np.log(P / Q) ** 2 / 2, rtol=1e-5)
    assert (kl.k3(log_ratio) >= 0).all()
    spread = {name: float(P @ np.asarray(f(log_ratio) - mean[name]) ** 2) for name, f in kl.ESTIMATORS.items()}
    assert spread["k3"] < spread["k1"]


def expected(f, logits):
    """E over samples from p, whose probabilities are held fixed, of f at log p - log q."""
    log_p = jax.nn.log_softmax(logits)
    return jnp.sum(jnp.array(P) * f(log_p - jnp.log(jnp.array(Q)), log_p))


@pytest.mark.parametrize(
    ("loss", "towards"),
    [
        (lambda x, log_p: kl.k2(x), lambda logits: kl.exact(logits, jnp.log(jnp.array(Q)))),
        (lambda x, log_p: kl.k3(x), lambda logits: kl.exact(jnp.log(jnp.array(Q)), logits)),
        (
            lambda x, log_p: jax.lax.stop_gradient(kl.k1(x)) * log_p,
            lambda logits: kl.exact(logits, jnp.log(jnp.array(Q))),
        ),
    ],
    ids=["k2 in the loss", "k3 in the loss", "k1 in the reward"],
)
def test_gradients(loss, towards):
    of_estimate = jax.grad(lambda logits: expected(loss, logits))(jnp.array(LOGITS))
    np.testing.assert_allclose(of_estimate, jax.grad(towards)(jnp.array(LOGITS)), atol=1e-6)


def test_the_controller_by_hand():
    adapt = lambda kl_now: float(kl.adapt(jnp.float32(0.1), jnp.float32(kl_now), 6.0, 64, 640.0))
    np.testing.assert_allclose(
        [adapt(6.0), adapt(6.6), adapt(600.0), adapt(0.0)], [0.1, 0.101, 0.102, 0.098], rtol=1e-5
    )


def test_unknown_estimator():
    with pytest.raises(UserError, match="k1, k2, k3"):
        kl.estimator("k5")
