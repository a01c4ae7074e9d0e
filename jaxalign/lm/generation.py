"""Continuing prompts with a KV cache.

One prefill of all prompts, then a `while_loop` of one column per step that ends when every row has stopped. Prompts
are moved to the right edge, so that all responses begin at the same column.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from jaxalign.core.errors import UserError
from jaxalign.core.types import Network, PRNGKey
from jaxalign.lm.config import ModelConfig
from jaxalign.lm.sampling import Sampling, sample
from jaxalign.lm.transformer import Cache, Params, check_context, empty_cache, unstack, unstack_cache


class Generation(NamedTuple):
    """Prompts and their continuations; every response begins at column P.

    Attributes:
        tokens: prompts, left-padded whatever they were, then responses, right-padded.
        mask: where a token is (prompt, response and the token that ends it).
        logprobs: of the response's tokens under the model itself (temperature 1, whole vocabulary); 0 behind the end.
        length: tokens per response, the one that ends it included.
    """

    tokens: Int[Array, "B P+N"]
    mask: Bool[Array, "B P+N"]
    logprobs: Float[Array, "B N"]
    length: Int[Array, " B"]


class _State(NamedTuple):
    """What the next step needs: columns written so far, by row whether it has ended, and the cache."""

    step: Array
    tokens: Array
    logprobs: Array
    length: Array
    ended: Array
    cache: Cache


def generate(
    network: Network,
    config: ModelConfig,
    params: Params,
    prompts: Int[Array | np.ndarray, "B P"],
    prompt_mask: Bool[Array | np.ndarray, "B P"],
    key: PRNGKey,
    settings: Sampling,
) -> Generation:
    """Continues every prompt until it ends or has `settings.max_new_tokens` new tokens.

    Compiled once per network, settings and shape; may itself be called inside jit, on sharded arrays, or inside
    `shard_map` (give each shard its own key there, or equal rows of different shards draw alike).

    Args:
        network: as `transformer.network` makes it; parameters may be wrapped in any way that its `apply` knows.
        config: of that network.
        params: its parameters.
        prompts: token ids.
        prompt_mask: where they are; each row one run of at least one token, padding left or right of it or both.
        key: of the draws.
        settings: static.

    Raises:
        UserError: prompts and new tokens exceed the context, or a row of the mask is empty or has gaps (the latter only
            noticed outside jit).
    """
    check_context(config, prompts.shape[1] + settings.max_new_tokens)
    if not isinstance(prompt_mask, Tracer):
        check_mask(np.asarray(prompt_mask))
    return _generate(network, config, params, jnp.asarray(prompts), jnp.asarray(prompt_mask), key, settings)


def check_mask(mask: np.ndarray) -> None:
    """Raises UserError unless every row is one run of at least one token."""
    runs = mask[:, 0].astype(int) + np.sum(mask[:, 1:] & ~mask[:, :-1], axis=1)
    if not (runs == 1).all():
        row = int(np.argmax(runs != 1))
        what = "has no token" if runs[row] == 0 else "has gaps"
        raise UserError(f"Row {row} of prompt_mask {what}; each prompt is one run of at least one token.")


@functools.partial(jax.jit, static_argnums=(0, 1, 6))
def _generate(network, config, params, prompts, mask, key, settings: Sampling) -> Generation:
    B, P = prompts.shape
    N = settings.max_new_tokens
    prompts, mask = to_the_right(prompts, mask, settings.pad_id)
    count = mask.sum(axis=1, dtype=jnp.int32)
    positions = jnp.maximum(jnp.cumsum(mask, axis=1, dtype=jnp.int32) - 1, 0)
    cache = empty_cache(config, B, P + N)
    logits, cache = network.apply(params, prompts, positions, mask.astype(jnp.int32), cache, last=True)
    params, cache = unstack(params), unstack_cache(cache)  # once, not per step

    def choose(state: _State, logits: Array) -> _State:
        """Writes one column."""
        token = sample(jax.random.fold_in(key, state.step), logits, settings)
        logprob = jnp.take_along_axis(logits, token[:, None], axis=-1)[:, 0] - jax.nn.logsumexp(logits, axis=-1)
        token = jnp.where(state.ended, settings.pad_id, token)
        stopped = jnp.isin(token, jnp.array(settings.stops, jnp.int32))
        return state._replace(
            step=state.step + 1,
            tokens=lax.dynamic_update_slice(state.tokens, token[:, None], (0, state.step)),
            logprobs=lax.dynamic_update_slice(
                state.logprobs, jnp.where(state.ended, 0.0, logprob)[:, None], (0, state.step)
            ),
            length=state.length + ~state.ended,
            ended=state.ended | stopped,
        )

    def step(state: _State) -> _State:
        """Reads the newest column and writes the next."""
        newest = lax.dynamic_slice_in_dim(state.tokens, state.step - 1, 1, axis=1)
        place = (count + state.step - 1)[:, None]
        logits, cache = network.apply(params, newest, place, jnp.ones_like(newest), state.cache)
        return choose(state._replace(cache=cache), logits[:, 0])

    empty = _State(
        jnp.zeros((), jnp.int32),
        jnp.full((B, N), settings.pad_id, jnp.int32),
        jnp.zeros((B, N), jnp.float32),
        jnp.zeros(B, jnp.int32),
        jnp.zeros(B, bool),
        cache,
    )
    end = lax.while_loop(lambda s: (s.step < N) & ~s.ended.all(), step, choose(empty, logits[:, 0]))
    response = jnp.arange(N) < end.length[:, None]
    return Generation(
        jnp.concatenate([prompts, end.tokens], axis=1),
        jnp.concatenate([mask, response], axis=1),
        end.logprobs,
        end.length,
    )


def to_the_right(prompts: Array, mask: Array, pad_id: int) -> tuple[Array, Array]:
    """Rolls each row so that its last token stands in the last column; padding becomes `pad_id`."""
    columns = jnp.arange(mask.shape[1], dtype=jnp.int32)
    last = jnp.max(jnp.where(mask, columns, -1), axis=1, keepdims=True)
    source = (columns + last + 1) % mask.shape[1]
    mask = jnp.take_along_axis(mask, source, axis=1)
    return jnp.where(mask, jnp.take_along_axis(prompts, source, axis=1), pad_id).astype(jnp.int32), mask
