"""Multi-layer perceptrons."""

import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from jaxalign.core.types import Network

# torch's default for linear layers, kaiming_uniform(a = sqrt 5): weights and biases uniform on +-1 / sqrt(fan_in)
_WEIGHTS = nnx.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")


class _MLP(nnx.Module):
    def __init__(self, sizes: Sequence[int], activation: Callable[[Array], Array], rngs: nnx.Rngs):
        def bias_init(fan_in: int):
            bound = fan_in**-0.5
            return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)

        self.layers = nnx.List(
            nnx.Linear(n, m, kernel_init=_WEIGHTS, bias_init=bias_init(n), rngs=rngs)
            for n, m in itertools.pairwise(sizes)
        )
        self.activation = activation

    def __call__(self, x):
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)


def mlp(sizes: Sequence[int], activation: Callable[[Array], Array] = jnp.tanh) -> Network:
    """A perceptron with layer widths `sizes`, input first, and `activation` between layers.

    Weights and biases start uniform on +-1 / sqrt(fan_in), as in OmniSafe (torch's default).
    """

    def build(key) -> _MLP:
        return _MLP(sizes, activation, nnx.Rngs(key))

    graph = nnx.split(nnx.eval_shape(lambda: build(jax.random.key(0))))[0]

    def init(key):
        return nnx.to_pure_dict(nnx.split(build(key))[1])

    def apply(params, x):
        return nnx.merge(graph, nnx.State(params))(x)

    return Network(init, apply)
