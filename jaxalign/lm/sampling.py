"""How the next token is drawn from logits."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jaxalign.core.errors import UserError
from jaxalign.core.types import PRNGKey


@dataclass(frozen=True)
class Sampling:
    """How to continue prompts; static under jit.

    Attributes:
        max_new_tokens: N, at most so many.
        temperature: logits are divided by it; 0: the most probable token (greedy).
        top_k: only the k most probable tokens; 0: all.
        top_p: only the most probable tokens whose joint probability reaches p; 1: all.
        eos_id: token, or tokens, that end a response (and belong to it); None: none does.
        pad_id: fills columns without a token.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    eos_id: int | tuple[int, ...] | None = None
    pad_id: int = 0

    def __post_init__(self):
        if self.eos_id is not None:  # hashable, whatever the tokenizer gave
            ends = np.asarray(self.eos_id, int)
            object.__setattr__(self, "eos_id", int(ends) if ends.ndim == 0 else tuple(ends.tolist()))
        if self.max_new_tokens < 1:
            raise UserError(f"max_new_tokens is {self.max_new_tokens}; ask for at least 1.")
        if self.temperature < 0:
            raise UserError(f"temperature is {self.temperature}; choose 0 (greedy) or more.")
        if self.top_k < 0:
            raise UserError(f"top_k is {self.top_k}; choose 0 (all tokens) or more.")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p is {self.top_p}; choose a probability above 0, at most 1.")

    @property
    def stops(self) -> tuple[int, ...]:
        """The tokens that end a response."""
        if self.eos_id is None:
            return ()
        return self.eos_id if isinstance(self.eos_id, tuple) else (self.eos_id,)


def sample(key: PRNGKey, logits: Float[Array, "B V"], settings: Sampling) -> Int[Array, " B"]:
    """One token per row."""
    if settings.temperature == 0:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    return draw(key, restrict(logits / settings.temperature, settings.top_k, settings.top_p))


def restrict(logits: Float[Array, "B V"], top_k: int = 0, top_p: float = 1.0) -> Float[Array, "B V"]:
    """Logits with -inf at the tokens outside the `top_k` most probable and, of the rest, outside the nucleus `top_p`.

    Tokens that tie with the least probable one inside are inside. Source of the nucleus: Holtzman et al. 2020,
    https://arxiv.org/abs/1904.09751.
    """
    if 0 < top_k < logits.shape[-1]:
        probabilities = jax.nn.softmax(logits, axis=-1)
        least = _least_inside(probabilities, jnp.ones_like(probabilities), jnp.float32(top_k))
        logits = jnp.where(probabilities >= least, logits, -jnp.inf)
    if top_p < 1:
        probabilities = jax.nn.softmax(logits, axis=-1)
        least = _least_inside(probabilities, probabilities, jnp.float32(top_p))
        logits = jnp.where(probabilities >= least, logits, -jnp.inf)
    return logits


def _least_inside(values: Float[Array, "B V"], weights: Float[Array, "B V"], target: Array) -> Float[Array, "B 1"]:
    """The largest t >= 0 such that the weights of {values >= t} sum to `target` or more; 0 if none does.

    By bisection on the bits of t, which are ordered as non-negative floats are: exact, and many times faster than
    sorting a vocabulary.
    """

    def halve(i, found):
        trial = found | (1 << (30 - i))
        enough = jnp.sum(jnp.where(values >= _float(trial), weights, 0.0), axis=-1, keepdims=True) >= target
        return jnp.where(enough, trial, found)

    return _float(lax.fori_loop(0, 31, halve, jnp.zeros((values.shape[0], 1), jnp.int32)))


def _float(bits: Int[Array, "B 1"]) -> Float[Array, "B 1"]:
    return lax.bitcast_convert_type(bits, jnp.float32)


def draw(key: PRNGKey, logits: Float[Array, "B V"]) -> Int[Array, " B"]:
    """A token per row with probability softmax(logits): first a block of the vocabulary, then a token in the block.

    The same distribution as one categorical draw, from about 2 sqrt(V) random numbers in place of V.
    """
    width = math.isqrt(logits.shape[-1] - 1) + 1
    blocks = -(-logits.shape[-1] // width)
    padding = ((0, 0), (0, blocks * width - logits.shape[-1]))
    grid = jnp.pad(logits, padding, constant_values=-jnp.inf).reshape(-1, blocks, width)
    block_key, token_key = jax.random.split(key)
    block = jax.random.categorical(block_key, jax.nn.logsumexp(grid, axis=-1))
    inside = jnp.take_along_axis(grid, block[:, None, None], axis=1)[:, 0]
    return (block * width + jax.random.categorical(token_key, inside)).astype(jnp.int32)
