"""Parameters and quick compilation for tests."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.lm.transformer import parameter_shapes


@pytest.fixture(scope="session")
def random_params():
    """A function of a config: parameters with every leaf random, norms and biases too; nothing is compiled."""

    def make(config, scale=1.0):
        rng = np.random.default_rng(0)

        def leaf(path, shape):
            name, noise = path[-1].key, rng.normal(size=shape.shape)
            if name.endswith("norm"):
                return 1.0 - config.norm_offset + 0.3 * noise
            if name.endswith("bias"):
                return 0.3 * noise
            return scale * noise / (shape.shape[-1] if name == "embed" else shape.shape[-2]) ** 0.5

        shapes = parameter_shapes(config)
        return jax.tree_util.tree_map_with_path(lambda p, x: jnp.asarray(leaf(p, x), x.dtype), shapes)

    return make


@pytest.fixture(scope="session")
def quick_jit():
    """`jax.jit` that compiles in half the time: the compiler's last passes are left out."""
    return functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
