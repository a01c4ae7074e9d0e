"""Branches and loops that cost only what the lanes taking them cost.

Under ``jax.vmap`` a ``lax.cond`` becomes a ``select``: every lane pays for both branches. That is ruinous when the
branch is a rigid-body contact solve that one lane in twenty needs. `where` has the same meaning as

    fun(*args) if pred else default

but under ``vmap`` it moves the lanes that need ``fun`` to the front and runs them in chunks of fixed size, so the cost
follows the number of such lanes, and the result does not depend on how lanes are grouped. Nested ``vmap`` merges axes.
Lanes do not communicate: inside ``shard_map`` every device works on its own lanes.

A ``lax.while_loop`` under ``vmap`` runs its body for all lanes until the last is done; `while_loop` runs it for those
that are not.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool

T = TypeVar("T")

# Lanes computed together: on a CPU few, because a chunk with one lane in it costs as much as a full one
CHUNK, ACCELERATOR_CHUNK = {"cpu": 4}, 512  # the latter not measured


def where(
    pred: Bool[Array, ""], fun: Callable[..., T], default: T, *args, chunk: int = 0, zero_fill: bool = False
) -> T:
    """``fun(*args) if pred else default``, paying for ``fun`` only in the lanes of a batch where ``pred`` holds.

    Args:
        pred: scalar condition of this lane.
        fun: pure function of ``args`` alone (it must not close over traced values); returns a tree shaped like
            ``default``.
        default: result where ``pred`` is false.
        args: arguments of ``fun``.
        chunk: lanes computed together; 0: as suits the backend.
        zero_fill: what ``fun`` sees in the unused places of the last chunk: zeros, instead of a repeated lane.

    Returns:
        A tree with the shapes and dtypes of ``default``.
    """
    chunk = chunk or CHUNK.get(jax.default_backend(), ACCELERATOR_CHUNK)
    once = jax.jit(_as_here(fun))  # traced once, for `single` and `batched` together

    @custom_vmap
    def single(pred, default, args):
        return jax.lax.cond(pred, lambda d, a: once(*a), lambda d, a: d, default, args)

    @custom_vmap
    def batched(pred, default, args):
        return _in_chunks(pred, lambda a: once(*a), default, args, chunk, zero_fill)

    @single.def_vmap
    def _(axis_size, in_batched, *operands):
        return batched(*_fill(axis_size, in_batched, operands)), jax.tree.map(lambda _: True, default)

    @batched.def_vmap
    def _(axis_size, in_batched, *operands):
        merged = _merge(_fill(axis_size, in_batched, operands))
        return _unmerge(axis_size, batched(*merged)), jax.tree.map(lambda _: True, default)

    return single(pred, default, args)


def while_loop(cond: Callable[[T], Bool[Array, ""]], body: Callable[[T], T], init: T, chunk: int = 8) -> T:
    """``lax.while_loop(cond, body, init)``, paying in a batch only for the lanes that are not done.

    Args:
        cond: pure function of the carry alone (it must not close over traced values): whether to go on.
        body: likewise, the next carry.
        init: carry at the start.
        chunk: lanes computed together.
    """
    cond, body = _as_here(cond), _as_here(body)

    @custom_vmap
    def single(init):
        return jax.lax.while_loop(cond, body, init)

    @custom_vmap
    def batched(init):
        return _in_turns(cond, body, init, chunk)

    @single.def_vmap
    def _(axis_size, in_batched, init):
        (init,) = _fill(axis_size, in_batched, (init,))
        return batched(init), jax.tree.map(lambda _: True, init)

    @batched.def_vmap
    def _(axis_size, in_batched, init):
        (init,) = _fill(axis_size, in_batched, (init,))
        return _unmerge(axis_size, batched(_merge(init))), jax.tree.map(lambda _: True, init)

    return single(init)


def _as_here(fun: Callable[..., T]) -> Callable[..., T]:
    """`fun` with the precision of products that is asked for here: rules of batching may be called elsewhere."""
    precision = jax.config.jax_default_matmul_precision

    def run(*args):
        with jax.default_matmul_precision(precision):
            return fun(*args)

    return run


def _in_turns(cond, body, init, chunk: int):
    """Carries [B] after each lane's loop; every turn advances the first `chunk` lanes that are not done."""
    size = jax.tree.leaves(init)[0].shape[0]
    unfinished = jax.vmap(cond)

    def turn(carry):
        lanes = _numbers(unfinished(carry))[: min(chunk, size)]
        new = jax.vmap(body)(jax.tree.map(lambda x: jnp.take(x, lanes, axis=0, mode="clip"), carry))
        return jax.tree.map(lambda old, x: old.at[lanes].set(x, mode="drop"), carry, new)

    return jax.lax.while_loop(lambda carry: unfinished(carry).any(), turn, init)


def _merge(operands):
    """The first two axes made one (sizes are spelled out: an empty array does not tell them)."""
    return jax.tree.map(lambda x: x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]), operands)


def _unmerge(axis_size: int, out):
    """The first axis split again."""
    return jax.tree.map(lambda x: x.reshape(axis_size, x.shape[0] // axis_size, *x.shape[1:]), out)


def _fill(axis_size: int, in_batched, operands):
    """Gives every operand the batch axis."""

    def fill(is_batched, x):
        return x if is_batched else jnp.broadcast_to(x, (axis_size, *jnp.shape(x)))

    return jax.tree.map(fill, tuple(in_batched), tuple(operands))


def _in_chunks(pred, fun, default, args, chunk: int, zero_fill: bool):
    """`default` with the lanes where `pred` [B] holds replaced by `fun`, `chunk` lanes at a time."""
    size = pred.shape[0]
    chunk = min(chunk, size)
    count = jnp.sum(pred)
    lanes = _numbers(pred)
    lanes = jnp.concatenate([lanes, jnp.full(-size % chunk, size, lanes.dtype)])

    def take(x, idx):
        if zero_fill:
            return jnp.take(x, idx, axis=0, mode="fill", fill_value=0)
        return jnp.take(x, idx, axis=0, mode="clip")

    def body(loop):
        start, out = loop
        idx = jax.lax.dynamic_slice_in_dim(lanes, start, chunk)
        new = jax.vmap(fun)(jax.tree.map(lambda x: take(x, idx), args))
        return start + chunk, jax.tree.map(lambda o, n: o.at[idx].set(n, mode="drop"), out, new)

    return jax.lax.while_loop(lambda loop: loop[0] < count, body, (jnp.zeros_like(count), default))[1]


def _numbers(pred):
    """Numbers of the lanes where `pred` [B] holds, in order, then B: out of bounds, where reads clip and writes drop.

    Counting and scattering take a tenth of the time of a sort.
    """
    size = pred.shape[0]
    place = jnp.where(pred, jnp.cumsum(pred) - 1, size)
    return jnp.full(size, size).at[place].set(jnp.arange(size), mode="drop")
