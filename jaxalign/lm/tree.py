"""Trees of responses: answers to one prompt that share their beginnings, generated once.

From the prompt a response is written until it reaches a separator with enough clauses behind it; there it branches, and
two continuations are drawn from the same distribution. After D branchings every response is written to its end, so a
prompt has up to 2^D leaves. All nodes of a level, over all prompts, are one batch; prefixes stay in the KV cache, which
is copied at a branching, so that a token is computed once for all leaves behind it.

Source: Qiu et al. 2024, "Reward generalization in RLHF: a topological perspective", https://arxiv.org/abs/2402.10184
(dynamic tree generation). Deviations: level by level instead of depth first, so that siblings grow at the same time and
the overlap that heats one of them is that with the other's text so far.
"""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from jaxalign.core.errors import UserError
from jaxalign.core.types import Network, PRNGKey
from jaxalign.lm.config import ModelConfig
from jaxalign.lm.generation import check_mask, to_the_right
from jaxalign.lm.sampling import Sampling, draw, restrict
from jaxalign.lm.transformer import Cache, Params, check_context, empty_cache, unstack, unstack_cache


@dataclass(frozen=True)
class Branching:
    """Where responses branch and how hot nodes are; static under jit. Defaults are the paper's.

    The temperature of a node at depth d is ``sampling.temperature - cooling d``, raised by `heating` for every token of
    the longest common subsequence with its sibling, and never above its parent's.

    Attributes:
        separators: tokens that end a clause (and belong to it).
        depth: D, how often a response branches.
        clauses: that a node has at least before it branches.
        cooling: of a node per level.
        heating: per token that siblings share; 0 saves the comparison, whose cost is N^2 per token.
    """

    separators: tuple[int, ...]
    depth: int = 3
    clauses: int = 1
    cooling: float = 0.2
    heating: float = 0.05

    def __post_init__(self):
        if not self.separators:
            raise UserError("separators is empty; name the tokens at which responses may branch.")
        if not 1 <= self.depth <= 10:
            raise UserError(f"depth is {self.depth}; choose 1 to 10 (2 to 1,024 leaves).")
        if self.clauses < 1:
            raise UserError(f"clauses is {self.clauses}; a node needs at least 1.")
        if self.cooling < 0 or self.heating < 0:
            raise UserError(f"cooling is {self.cooling} and heating {self.heating}; choose 0 or more.")

    @property
    def leaves(self) -> int:
        """L, of a tree in which every response branches D times."""
        return 2**self.depth


class Forest(NamedTuple):
    """A tree of responses per prompt. Leaf l takes at its d-th branching the way that bit D - 1 - d of l says.

    Attributes:
        tokens: prompts, left-padded, then responses, right-padded.
        mask: where a token is.
        logprobs: of the response's tokens under the model itself (temperature 1, whole vocabulary); 0 behind the end.
        length: tokens per response, the one that ends it included.
        branched: tokens of the response before its d-th branching; where it ended earlier, its length.
        leaf: whether it is a response of its own; one that ended before it branched has copies, which are not.
        complete: whether it ended, rather than ran out of tokens.
        written: tokens that were computed for the whole tree.
    """

    tokens: Int[Array, "B L P+N"]
    mask: Bool[Array, "B L P+N"]
    logprobs: Float[Array, "B L N"]
    length: Int[Array, "B L"]
    branched: Int[Array, "B L D"]
    leaf: Bool[Array, "B L"]
    complete: Bool[Array, "B L"]
    written: Int[Array, " B"]


class _Rows(NamedTuple):
    """Nodes being written, R rows: a prompt's are neighbours, siblings are pairs.

    Attributes:
        tokens: of the responses so far.
        logprobs: of them.
        length: how many.
        ended: the response goes no further.
        heat: temperature of the node; while it is written, its parent's.
        logits: what follows the newest token.
        cache: of prompts and responses.
    """

    tokens: Int[Array, "R N"]
    logprobs: Float[Array, "R N"]
    length: Int[Array, " R"]
    ended: Bool[Array, " R"]
    heat: Float[Array, " R"]
    logits: Float[Array, "R V"]
    cache: Cache


def grow(
    network: Network,
    config: ModelConfig,
    params: Params,
    prompts: Int[Array | np.ndarray, "B P"],
    prompt_mask: Bool[Array | np.ndarray, "B P"],
    key: PRNGKey,
    sampling: Sampling,
    branching: Branching,
) -> Forest:
    """A tree of responses to every prompt.

    Args:
        network: as `transformer.network` makes it.
        config: of that network.
        params: its parameters.
        prompts: token ids.
        prompt_mask: where they are; each row one run of at least one token.
        key: of the draws.
        sampling: static; its temperature is the root's, and ``max_new_tokens`` holds for a whole response.
        branching: static.

    Raises:
        UserError: prompts and new tokens exceed the context, or a row of the mask is empty or has gaps (the latter only
            noticed outside jit), or a node would have no temperature left.
    """
    check_context(config, prompts.shape[1] + sampling.max_new_tokens)
    coolest = sampling.temperature - branching.cooling * branching.depth
    if coolest <= 0:
        raise UserError(
            f"temperature {sampling.temperature} less {branching.cooling} at each of {branching.depth} branchings is "
            f"{coolest:.2g}; choose a higher temperature or less cooling."
        )
    if not isinstance(prompt_mask, Tracer):
        check_mask(np.asarray(prompt_mask))
    return _grow(network, config, params, jnp.asarray(prompts), jnp.asarray(prompt_mask), key, sampling, branching)


@functools.partial(jax.jit, static_argnums=(0, 1, 6, 7))
def _grow(network, config, params, prompts, mask, key, sampling: Sampling, branching: Branching) -> Forest:
    B, P = prompts.shape
    N, D, L = sampling.max_new_tokens, branching.depth, branching.leaves
    prompts, mask = to_the_right(prompts, mask, sampling.pad_id)
    count = mask.sum(axis=1, dtype=jnp.int32)
    positions = jnp.maximum(jnp.cumsum(mask, axis=1, dtype=jnp.int32) - 1, 0)
    cache = empty_cache(config, B, P + 2 * N)  # of two rows one may be N tokens ahead where a level begins
    logits, cache = network.apply(params, prompts, positions, mask.astype(jnp.int32), cache, last=True)
    params = unstack(params)
    rows = _Rows(
        tokens=jnp.full((B, N), sampling.pad_id, jnp.int32),
        logprobs=jnp.zeros((B, N), jnp.float32),
        length=jnp.zeros(B, jnp.int32),
        ended=jnp.zeros(B, bool),
        heat=jnp.full(B, sampling.temperature, jnp.float32),
        logits=logits[:, 0],
        cache=unstack_cache(cache),
    )
    leaf, branched, written = jnp.ones(B, bool), [], jnp.zeros(B, jnp.int32)
    for level in range(D + 1):
        begun = rows.length
        rows = _write(network, params, rows, level, count, jax.random.fold_in(key, level), sampling, branching)
        written += (rows.length - begun).reshape(B, -1).sum(axis=1)
        if level < D:
            branched.append(jnp.repeat(rows.length, 2 ** (D - level)).reshape(B, L))
            copies = jnp.stack([jnp.zeros_like(rows.ended), rows.ended], axis=1).reshape(-1)  # of what does not branch
            rows = _twice(rows._replace(cache=_closed_up(rows.cache, count + rows.length)))
            leaf, count = _twice(leaf) & ~copies, _twice(count)
    by_prompt = lambda x: x.reshape(B, L, *x.shape[1:])
    newest = jnp.take_along_axis(rows.tokens, jnp.maximum(rows.length - 1, 0)[:, None], axis=1)[:, 0]
    response = jnp.arange(N) < rows.length[:, None]
    return Forest(
        tokens=jnp.concatenate([jnp.repeat(prompts[:, None], L, axis=1), by_prompt(rows.tokens)], axis=2),
        mask=jnp.concatenate([jnp.repeat(mask[:, None], L, axis=1), by_prompt(response)], axis=2),
        logprobs=by_prompt(rows.logprobs),
        length=by_prompt(rows.length),
        branched=jnp.stack(branched, axis=-1),
        leaf=by_prompt(leaf),
        complete=by_prompt(_is_any(newest, sampling.stops)),
        written=written,
    )


def _write(network, params, rows: _Rows, level: int, count, key, sampling: Sampling, branching: Branching) -> _Rows:
    """Writes all nodes of a level to their ends."""
    N, begun, lines = sampling.max_new_tokens, rows.length, jnp.arange(len(rows.length))
    base = sampling.temperature - branching.cooling * level

    def heat(now: _Rows):
        warmth = branching.heating * _shared_with_sibling(now, begun) if level and branching.heating else 0.0
        return jnp.minimum(rows.heat, base + warmth)

    def step(carry):
        number, now, halted, clauses = carry
        going = ~halted
        logits = restrict(now.logits / heat(now)[:, None], sampling.top_k, sampling.top_p)
        token = jnp.where(going, draw(jax.random.fold_in(key, number), logits), sampling.pad_id)
        logprob = jnp.take_along_axis(now.logits, token[:, None], axis=-1)[:, 0] - jax.nn.logsumexp(now.logits, axis=-1)
        place = jnp.where(going, now.length, N)  # out of bounds: dropped
        separates = going & _is_any(token, branching.separators)
        clauses = clauses + separates
        length = now.length + going
        ended = now.ended | (going & (_is_any(token, sampling.stops) | (length == N)))
        branches = separates & (clauses >= branching.clauses) if level < branching.depth else jnp.zeros_like(going)
        after, cache = network.apply(
            params, token[:, None], (count + now.length)[:, None], going.astype(jnp.int32)[:, None], now.cache
        )
        new = now._replace(
            tokens=now.tokens.at[lines, place].set(token, mode="drop"),
            logprobs=now.logprobs.at[lines, place].set(logprob, mode="drop"),
            length=length,
            ended=ended,
            logits=jnp.where(going[:, None], after[:, 0], now.logits),
            cache=cache,
        )
        return number + 1, new, halted | ended | branches, clauses

    start = jnp.zeros((), jnp.int32), rows, rows.ended, jnp.zeros_like(rows.length)
    _, end, _, _ = lax.while_loop(lambda carry: ~carry[2].all(), step, start)
    return end._replace(heat=heat(end))


def _is_any(tokens: Int[Array, " R"], of: tuple[int, ...]) -> Bool[Array, " R"]:
    return jnp.isin(tokens, jnp.array(of, jnp.int32))


def _twice(rows: Any) -> Any:
    """Every row twice in a row."""
    return jax.tree.map(lambda x: jnp.repeat(x, 2, axis=0) if x.ndim else x, rows)


def _closed_up(cache: Cache, total: Int[Array, " R"]) -> Cache:
    """The cache with every row's `total` tokens moved to the right edge of as few columns as hold them."""
    S = cache.segment_ids.shape[1]
    columns, length = jnp.arange(S, dtype=jnp.int32), total.max()
    last = jnp.max(jnp.where(cache.segment_ids != 0, columns, -1), axis=1, keepdims=True)
    source = columns + last + 1 - length
    there = (columns < length) & (columns >= length - total[:, None])
    source = jnp.clip(source, 0, S - 1)
    return Cache(
        keys=tuple(jnp.take_along_axis(x, source[:, None, None, :], axis=3) for x in cache.keys),
        values=tuple(jnp.take_along_axis(x, source[:, None, :, None], axis=2) for x in cache.values),
        segment_ids=there.astype(jnp.int32),
        length=length,
    )


def _shared_with_sibling(rows: _Rows, begun: Int[Array, " R"]) -> Int[Array, " R"]:
    """Tokens of the longest common subsequence of a node's text and its sibling's."""
    N = rows.tokens.shape[1]
    place = jnp.arange(N) + begun[:, None]
    text = jnp.take_along_axis(rows.tokens, jnp.minimum(place, N - 1), axis=1)
    there = place < rows.length[:, None]
    one, other = text[0::2], text[1::2]
    equal = (one[:, :, None] == other[:, None, :]) & there[0::2, :, None] & there[1::2, None, :]

    def add(above, row):  # lengths for one more token of the first, by number of tokens of the second
        diagonal = jnp.pad(above[:, :-1], ((0, 0), (1, 0))) + row
        new = lax.cummax(jnp.maximum(above, diagonal), axis=1)
        return new, None

    lengths, _ = lax.scan(add, jnp.zeros(other.shape, jnp.int32), jnp.moveaxis(equal, 1, 0).astype(jnp.int32))
    return jnp.repeat(lengths[:, -1], 2)
