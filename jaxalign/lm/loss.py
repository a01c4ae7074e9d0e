"""Next-token cross-entropy."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxalign.core.errors import UserError
from jaxalign.core.types import Network
from jaxalign.lm.packing import Batch


def token_log_probs(logits: Float[Array, "B T V"], tokens: Int[Array, "B T"]) -> Float[Array, "B T"]:
    """Log p(token_t | tokens before it) in float32, 0 at t = 0; `logits` at t - 1 predict the token at t."""
    logits = logits[:, :-1].astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, tokens[:, 1:, None], axis=-1)[..., 0]
    return jnp.pad(chosen - jax.nn.logsumexp(logits, axis=-1), ((0, 0), (1, 0)))


def targets(batch: Batch) -> Bool[Array, "B T"]:
    """Tokens that count in the loss: marked `learn`, not padding, and preceded by a token of their own sequence."""
    segments, learn = jnp.asarray(batch.segment_ids), jnp.asarray(batch.learn)
    before = jnp.pad(segments[:, :-1], ((0, 0), (1, 0)))
    return learn & (segments == before) & (segments != 0)


def cross_entropy(
    network: Network, pieces: int = 1, unembed: Callable[[Any, Array], Array] | None = None
) -> Callable[[Any, Any, Batch], tuple[Array, Array, dict[str, Array]]]:
    """The loss of a language model in the form that `training` takes: sums over the batch, and what to divide them by.

        sum over targets of -log p(token | before),  number of targets,  {"accuracy": number of targets predicted right}

    Packed and unpacked batches of the same sequences give the same sums. Logits need B T V numbers and as many again
    for their gradient; in pieces of the T columns, each recomputed in the backward pass, only a part of that at a time.

    Args:
        network: of `lm.transformer`.
        pieces: how many; T must be a multiple.
        unembed: ``(params, states [B, T, D]) -> logits [B, T, V]``, needed for more than one piece.

    Raises:
        UserError: pieces without `unembed`; when called, a length that cannot be cut.
    """
    if pieces < 1 or (pieces > 1 and unembed is None):
        raise UserError(f"pieces is {pieces}; choose at least 1, and give `unembed` for more than 1.")

    def loss(params, frozen, batch: Batch):
        del frozen
        tokens, counted = jnp.asarray(batch.tokens), targets(batch)
        inputs = (tokens, jnp.asarray(batch.positions), jnp.asarray(batch.segment_ids))
        following = jnp.roll(tokens, -1, axis=1), jnp.roll(counted, -1, axis=1).at[:, -1].set(False)
        if unembed is None or pieces == 1:
            total, right = _sums(network.apply(params, *inputs), *following)
        else:
            states = network.apply(params, *inputs, hidden=True)
            total, right = _in_pieces(functools.partial(unembed, params), pieces, states, *following)
        return total, counted.sum().astype(jnp.float32), {"accuracy": right}

    return loss


def _sums(logits: Array, following: Array, counted: Array) -> tuple[Array, Array]:
    """Negative log-likelihood of the following tokens that count, and how many of them no other token equals."""
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, following[..., None], axis=-1)[..., 0]
    total = jnp.sum(jnp.where(counted, jax.nn.logsumexp(logits, axis=-1) - chosen, 0.0))
    first = jnp.sum(logits >= chosen[..., None], axis=-1) == 1  # an argmax takes a CPU several times as long
    return total, jnp.sum(counted & first).astype(jnp.float32)


def _in_pieces(read: Callable[[Array], Array], pieces: int, *columns: Array) -> tuple[Array, Array]:
    """`_sums` over the columns of states, following tokens and what counts, a piece at a time."""
    length = columns[0].shape[1]
    if length % pieces:
        raise UserError(f"{length} columns cannot be cut in {pieces} pieces; choose a divisor.")

    @jax.checkpoint
    def add(sums, piece):
        states, following, counted = piece
        return jax.tree.map(jnp.add, sums, _sums(read(states), following, counted)), None

    cut = [x.reshape(x.shape[0], pieces, length // pieces, *x.shape[2:]).swapaxes(0, 1) for x in columns]
    return jax.lax.scan(add, (jnp.zeros(()), jnp.zeros(())), tuple(cut))[0]
