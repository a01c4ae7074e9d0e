"""A tiny transformer for tests, its parameters drawn by NumPy (compiling `init` takes longer than what follows)."""

import functools

import jax
import numpy as np

from jaxalign.lm.config import ModelConfig
from jaxalign.lm.transformer import parameter_shapes

MODEL = ModelConfig(
    vocab_size=24, hidden_size=16, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, intermediate_size=24
)

# Half the time to compile, and the programs run for milliseconds
QUICK = {"xla_backend_optimization_level": 0}
jit = functools.partial(jax.jit, compiler_options=QUICK)


def params(config=MODEL, seed=0):
    """Matrices of variance 1 / fan-in, everything else normal around 1 (norms) or 0."""
    random = np.random.default_rng(seed)

    def draw(path, x):
        name = path[-1].key
        scale = 0.5 if name == "embed" else 0.1 if x.ndim < 3 and name != "unembed" else x.shape[-2] ** -0.5
        return (float("norm" in name) + scale * random.normal(size=x.shape)).astype(np.float32)

    return jax.tree.map(jax.numpy.asarray, jax.tree_util.tree_map_with_path(draw, parameter_shapes(config)))
