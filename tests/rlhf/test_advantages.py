"""Advantages against recursions in numpy and numbers by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.core.errors import UserError
from jaxalign.rlhf import advantages
from jaxalign.rlhf.updates import token_weights

MASK = np.array([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 0]], bool)


def test_gae_is_the_recursion():
    """Values and rewards behind the end must not matter."""
    random, gamma, lam = np.random.default_rng(0), 0.97, 0.9
    rewards, values = (random.normal(size=(3, 4, 2)).astype(np.float32) for _ in range(2))
    advantage, target = advantages.gae(gamma, lam)(jnp.array(rewards), jnp.array(values), jnp.array(MASK))
    expected = np.zeros_like(rewards)
    for b, length in enumerate(MASK.sum(axis=1)):
        following = np.zeros(2)
        for t in reversed(range(length)):
            after = values[b, t + 1] if t + 1 < length else 0.0
            following = rewards[b, t] + gamma * after - values[b, t] + gamma * lam * following
            expected[b, t] = following
    np.testing.assert_allclose(advantage, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(target, np.where(MASK[..., None], expected + values, 0), rtol=1e-4, atol=1e-6)


def test_group_and_leave_one_out_by_hand():
    """Returns 1, 3 to the first prompt, 2, 6 to the second; the token behind the end is not counted."""
    rewards = jnp.array([[0.5, 0.5], [3.0, 9.0], [2.0, 0.0], [2.5, 3.5]])[..., None]
    mask = jnp.array([[1, 1], [1, 0], [1, 1], [1, 1]], bool)
    expected = lambda *a: np.where(mask, np.array(a)[:, None], 0)
    of = lambda advantage: np.asarray(advantage(rewards, jnp.zeros_like(rewards), mask)[0][..., 0])
    np.testing.assert_allclose(of(advantages.leave_one_out(2)), expected(-2, 2, -4, 4))
    np.testing.assert_allclose(of(advantages.group_relative(2, standardise=False)), expected(-1, 1, -2, 2))
    np.testing.assert_allclose(of(advantages.group_relative(2)), expected(-1, 1, -1, 1), rtol=1e-5)
    four = advantages.leave_one_out(4)(rewards, rewards, mask)[0][:, 0, 0]
    np.testing.assert_allclose(four, [1 - 11 / 3, 3 - 3, 2 - 10 / 3, 6 - 2], rtol=1e-6)


@pytest.mark.parametrize("make", [advantages.leave_one_out, advantages.group_relative])
def test_a_group_of_one_is_refused(make):
    with pytest.raises(UserError, match="at least 2"):
        make(1)


def test_whitening_sees_the_mask_only():
    x = np.where(MASK, np.random.default_rng(1).normal(3, 5, MASK.shape), 1e6).astype(np.float32)
    inside = x[MASK]
    white = np.asarray(advantages.whiten(jnp.array(x), jnp.array(MASK)))
    np.testing.assert_allclose(white[MASK], (inside - inside.mean()) / inside.std(), rtol=1e-3, atol=1e-4)
    scaled = np.asarray(advantages.whiten(jnp.array(x), jnp.array(MASK), centre=False))
    np.testing.assert_allclose(scaled[MASK], inside / inside.std(), rtol=1e-3)
    assert (white[~MASK] == 0).all()
    assert (scaled[~MASK] == 0).all()


def test_token_weights_by_hand():
    weights = lambda average: np.asarray(token_weights(jnp.array(MASK), average))
    np.testing.assert_allclose(weights("tokens"), MASK / 8)
    np.testing.assert_allclose(weights("responses"), MASK / np.array([[12], [3], [9]]), rtol=1e-6)
    np.testing.assert_allclose(weights("sums"), MASK / 3, rtol=1e-6)
