"""Rotary position embedding (Su et al. 2021, https://arxiv.org/abs/2104.09864), heads split into two halves."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxalign.lm.config import RopeScaling


def frequencies(head_dim: int, theta: float, scaling: RopeScaling | None = None) -> np.ndarray:
    """Radians per token of each pair, ``theta^(-2i / head_dim)``, stretched as `scaling` says; [head_dim / 2].

    Source of "llama3": the Llama 3.1 model card and `transformers`; frequencies whose wavelength lies between the two
    bounds are interpolated linearly in ``original_max_position / wavelength``.
    """
    plain = theta ** -(np.arange(0, head_dim, 2) / head_dim)
    if scaling is None:
        return plain.astype(np.float32)
    slow = plain / scaling.factor
    if scaling.kind == "linear":
        return slow.astype(np.float32)
    turns = scaling.original_max_position * plain / (2 * np.pi)
    keep = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    keep = np.clip(keep, 0.0, 1.0)
    return (keep * plain + (1.0 - keep) * slow).astype(np.float32)


def angles(positions: Int[Array, "B T"], radians_per_token: np.ndarray) -> tuple[Array, Array]:
    """Cosine and sine of position times frequency, each [B, T, 1, head_dim / 2] float32."""
    turned = positions[..., None, None].astype(jnp.float32) * radians_per_token
    return jnp.cos(turned), jnp.sin(turned)


def rotate(
    x: Float[Array, "B T heads width"], cos: Float[Array, "#B T 1 half"], sin: Float[Array, "#B T 1 half"]
) -> Float[Array, "B T heads width"]:
    """Turns the pair (x[i], x[i + width / 2]) by its angle; computed in float32."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)
