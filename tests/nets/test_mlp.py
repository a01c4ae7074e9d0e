"""Perceptrons: initial distribution and forward pass."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.nets import mlp

SIZES = (60, 64, 64, 64, 3)


def layers(params):
    """Kernels ``[in, out]`` and biases, input first."""
    return [(np.asarray(layer["kernel"]), np.asarray(layer["bias"])) for _, layer in sorted(params["layers"].items())]


def test_the_tree_holds_one_kernel_and_one_bias_per_layer():
    params = jax.jit(mlp(SIZES).init)(jax.random.key(0))
    shapes = [(kernel.shape, bias.shape) for kernel, bias in layers(params)]
    assert shapes == [((n, m), (m,)) for n, m in itertools.pairwise(SIZES)]
    leaves = jax.tree.leaves(params)
    assert len(leaves) == 2 * (len(SIZES) - 1)
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.float32)}


def test_weights_and_biases_start_uniform_within_one_over_the_root_of_fan_in():
    keys = jax.random.split(jax.random.key(0), 20)
    params = jax.jit(jax.vmap(mlp(SIZES).init))(keys)
    for (kernel, bias), fan_in in zip(layers(params), SIZES, strict=False):
        bound = fan_in**-0.5
        for x in (kernel, bias):
            scaled = x.ravel() / bound
            number = scaled.size
            # a float32 bound may round upwards
            assert np.abs(scaled).max() <= 1.0 + 1e-6
            # uniform on +-1: none beyond 1 - 28 / n has the chance (1 - 14 / n)^n = e^-14; then five standard errors
            assert scaled.max() > 1.0 - 28 / number
            assert scaled.min() < -1.0 + 28 / number
            assert abs(scaled.mean()) < 5 * np.sqrt(1 / 3 / number)
            assert abs(np.square(scaled).mean() - 1 / 3) < 5 * np.sqrt(4 / 45 / number)


def test_layers_and_keys_draw_independently():
    init = jax.jit(mlp(SIZES).init)
    one, other, again = (layers(init(jax.random.key(seed))) for seed in (0, 1, 0))
    for (kernel, bias), (kernel_2, bias_2), (kernel_3, bias_3) in zip(one, other, again, strict=True):
        assert not np.isin(kernel, kernel_2).all()
        assert not np.isin(bias, bias_2).all()
        np.testing.assert_array_equal(kernel, kernel_3)
        np.testing.assert_array_equal(bias, bias_3)
    correlation = np.corrcoef([one[1][0].ravel(), one[2][0].ravel(), one[1][0].T.ravel()])
    assert np.abs(correlation - np.eye(3)).max() < 0.1
    assert np.abs(np.corrcoef(one[0][1], one[1][1])[0, 1]) < 0.5


@pytest.mark.parametrize("sizes", [(5, 16, 16, 3), (4, 2), (3, 7, 1)])
@pytest.mark.parametrize(
    ("activation", "reference"), [(None, np.tanh), (jax.nn.relu, lambda x: np.maximum(x, 0.0))], ids=["tanh", "relu"]
)
def test_apply_is_the_forward_pass(sizes, activation, reference):
    net = mlp(sizes) if activation is None else mlp(sizes, activation)
    params, apply = jax.jit(net.init)(jax.random.key(1)), jax.jit(net.apply)
    *hidden, last = layers(params)
    for leading in [(), (6,), (2, 3)]:
        x = np.random.default_rng(0).normal(size=(*leading, sizes[0])).astype(np.float32)
        expected = x.astype(np.float64)
        for kernel, bias in hidden:
            expected = reference(expected @ kernel + bias)
        expected = expected @ last[0] + last[1]
        y = apply(params, jnp.asarray(x))
        assert y.shape == (*leading, sizes[-1])
        np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)


def test_parameters_are_a_plain_tree_that_can_be_stacked_and_differentiated():
    net = mlp((5, 16, 3))
    params = jax.jit(jax.vmap(net.init))(jax.random.split(jax.random.key(0), 4))
    x = jnp.ones((7, 5))
    y = jax.jit(jax.vmap(net.apply, (0, None)))(params, x)
    for i in range(4):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], params)
        np.testing.assert_allclose(y[i], net.apply(one, x), rtol=1e-6, atol=1e-6)
    gradient = jax.jit(jax.grad(lambda p: net.apply(p, x).sum()))(jax.tree.map(lambda leaf: leaf[0], params))
    np.testing.assert_allclose(gradient["layers"][1]["bias"], np.full(3, 7.0), rtol=1e-6)
