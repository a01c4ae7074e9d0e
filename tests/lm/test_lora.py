"""Adapters start at nothing, train alone, and merge into what they were."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_lm

from jaxalign.core.errors import UserError
from jaxalign.lm import lora, loss, packing, training
from jaxalign.lm.config import TINY
from jaxalign.lm.lora import LoraConfig, LowRank
from jaxalign.lm.packing import Example
from jaxalign.lm.transformer import network, unstack

MODEL = TINY["qwen2"]  # biases and grouped queries
CONFIG = LoraConfig(rank=3, alpha=6.0, matrices=("q", "v", "o", "down"))


def batch():
    random = np.random.default_rng(0)
    return packing.pad([Example.of(random.integers(0, 96, 3), random.integers(0, 96, 5)) for _ in range(4)])


@pytest.fixture(scope="module")
def model():
    net = network(MODEL)
    params = tiny_lm.params(MODEL)
    adapters = tiny_lm.jit(lambda: lora.init(CONFIG, params, jax.random.key(1)))()
    random = np.random.default_rng(2)
    grown = jax.tree.map(lambda x: x + 0.05 * random.normal(size=x.shape).astype(np.float32), adapters)
    return net, params, adapters, grown


def test_product_is_the_closed_form():
    random = np.random.default_rng(0)
    x, w, a, b = (random.normal(size=s).astype(np.float32) for s in [(5, 4), (4, 6), (4, 2), (2, 6)])
    matrix = LowRank(*map(jnp.asarray, (w, a, b)), 1.5)
    expected = x.astype(np.float64) @ (w + 1.5 * a.astype(np.float64) @ b)
    np.testing.assert_allclose(jnp.asarray(x) @ matrix, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(jnp.asarray(x) @ matrix.merged(), expected, rtol=1e-5, atol=1e-5)
    assert matrix.astype(jnp.bfloat16).merged().dtype == jnp.bfloat16


def test_fresh_adapters_change_nothing_and_merged_equals_unmerged(model):
    net, params, adapters, grown = model
    apply = tiny_lm.jit(net.apply)
    tokens = batch().tokens
    plain = apply(params, tokens)
    assert (apply(lora.attach(CONFIG, params, adapters), tokens) == plain).all()
    attached, merged = lora.attach(CONFIG, params, grown), lora.merge(CONFIG, params, grown)
    assert jax.tree.structure(merged) == jax.tree.structure(params)
    unmerged = apply(attached, tokens)
    assert np.abs(unmerged - plain).max() > 0.05
    np.testing.assert_allclose(apply(merged, tokens), unmerged, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(apply(unstack(attached), tokens), unmerged, rtol=1e-4, atol=1e-5)


def test_descent_on_the_adapters_alone(model):
    net, params, adapters, grown = model
    of = loss.cross_entropy(net)
    direct = tiny_lm.jit(training.accumulate(lora.adapted(CONFIG, of), 1))
    through = tiny_lm.jit(jax.grad(lambda x: of(lora.merge(CONFIG, params, x), (), batch())[0]))(grown)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), direct(grown, params, batch())[1], through
    )
    losses, now = [], jax.tree.map(np.asarray, adapters)
    for _ in range(60):
        (total, weight, _), gradient = direct(now, params, batch())
        losses.append(total / weight)
        now = jax.tree.map(lambda x, g, n=weight: x - 0.1 * np.asarray(g / n), now, gradient)
    assert losses[-1] < 0.5 * losses[0]


def test_what_is_trained_and_saved_are_the_adapters(model):
    net, params, adapters, _ = model
    trainer = training.make(lora.adapted(CONFIG, loss.cross_entropy(net)), training.TrainingConfig())
    state = jax.eval_shape(trainer.init, adapters)
    assert set(state.params["layers"]) == set(CONFIG.matrices)
    count = sum(x.size for x in jax.tree.leaves(state.params))
    width, queries, keys = MODEL.hidden_size, MODEL.num_heads * MODEL.head_dim, MODEL.num_kv_heads * MODEL.head_dim
    sides = (width + queries) + (width + keys) + (queries + width) + (MODEL.intermediate_size + width)
    assert count == MODEL.num_layers * CONFIG.rank * sides
    assert sum(x.size for x in jax.tree.leaves(state)) <= 3 * count + 8, "two moments, nothing of the base"
    after, _ = jax.eval_shape(trainer.step, state, batch(), params)
    assert jax.tree.structure(after) == jax.tree.structure(state)


def test_adapters_that_make_no_sense(model):
    with pytest.raises(UserError, match="rank of the adapters is 0"):
        LoraConfig(rank=0)
    with pytest.raises(UserError, match=r"\['embed'\] are not possible; choose from q, k"):
        LoraConfig(matrices=("q", "embed"))
    with pytest.raises(UserError, match="no matrix are not possible"):
        LoraConfig(matrices=())
    with pytest.raises(UserError, match="adapters for w, which these parameters lack"):
        lora.attach(CONFIG, model[1], {"layers": {"w": {}}})
