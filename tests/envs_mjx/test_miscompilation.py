"""Compilers can be wrong: a guard against the one bug of this kind that hit us."""

import jax
import jax.numpy as jnp
import numpy as np


def test_batched_matrix_vector_products_are_right_in_every_row():
    """Guard jaxlib, whose version 0.10.2 gets 7,000 of these rows wrong on x86 (jax-ml/jax #39103)."""
    rng = np.random.default_rng(0)
    matrix, rows = rng.normal(size=(3, 3)).astype(np.float32), rng.normal(size=(40_000, 3)).astype(np.float32)
    device_matrix = jnp.asarray(matrix)
    out = np.asarray(jax.jit(jax.vmap(lambda r: jnp.sum((device_matrix @ r) ** 2)))(rows))
    expected = np.sum((rows.astype(np.float64) @ matrix.T.astype(np.float64)) ** 2, axis=1)
    wrong = ~np.isclose(out, expected, rtol=1e-5, atol=1e-6)
    assert wrong.sum() == 0, f"jaxlib {jax.lib.__version__} computes {wrong.sum()} of {len(rows)} rows wrong"
