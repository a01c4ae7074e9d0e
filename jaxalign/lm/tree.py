"""Trees of responses: answers to one prompt that share their beginnings, generated once.

From the prompt a response is written until it reaches a separator with enough clauses behind it; there it branches, and
two continuations are drawn from the same distribution. After D branchings a response is written to its end, so a prompt
has up to 2^D leaves. Every row of the batch walks through the tree of its own prompt, depth first. Its KV cache is a
stack: going back to a branching forgets what lies above it, and the beginning that leaves share is computed once. A row
needs no more memory than one response; when half of the trees are whole, the batch is halved.

Source: Qiu et al. 2024, "Reward generalization in RLHF: a topological perspective", https://arxiv.org/abs/2402.10184
(dynamic tree generation).
"""

import functools
from dataclasses import dataclass
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
from jaxalign.lm.generation import check_mask, to_the_right
from jaxalign.lm.sampling import Sampling, draw, restrict
from jaxalign.lm.transformer import Cache, Params, check_context, empty_cache, unstack, unstack_cache

_HALVINGS, _FEWEST = 3, 8  # how often, and to how few rows, a batch is halved once so many trees are whole


@dataclass(frozen=True)
class Branching:
    """Where responses branch and how hot nodes are; static under jit. Defaults are the paper's.

    The temperature of a node at depth d is ``sampling.temperature - cooling d``, raised by `heating` for every token of
    the longest common subsequence with its sibling (as far as the node is written), and never above its parent's.

    Attributes:
        separators: tokens that end a clause (and belong to it).
        depth: D, how often a response branches.
        clauses: that a node has at least before it branches.
        cooling: of a node per level.
        heating: per token that a node shares with its sibling, if that was written before.
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


class _Walk(NamedTuple):
    """Where every prompt's walk through its tree is, and the leaves it has been to. A node lies at depth d <= D.

    Attributes:
        tokens: of the path from the root.
        logprobs: of them.
        length: how many.
        depth: of the node that is being written.
        ways: taken at the branchings so far, as bits.
        clauses: in the node.
        heat: of the path's nodes, by depth; of the current one, its parent's.
        forks: length of the path at its branchings.
        sibling: the path when the first of two siblings ended, by depth of their branching.
        sibling_end: its length.
        overlap: longest common subsequences of the node with the beginnings of its sibling's text.
        cache: of prompt and path.
        leaves: what is known of finished responses: tokens, logprobs, length, branched.
        leaf: which responses are finished.
        written: tokens computed.
        done: the walk is over.
    """

    tokens: Int[Array, "B N"]
    logprobs: Float[Array, "B N"]
    length: Int[Array, " B"]
    depth: Int[Array, " B"]
    ways: Int[Array, " B"]
    clauses: Int[Array, " B"]
    heat: Float[Array, "B D+1"]
    forks: Int[Array, "B D"]
    sibling: Int[Array, "B D N"]
    sibling_end: Int[Array, "B D"]
    overlap: Int[Array, "B N"]
    cache: Cache
    leaves: tuple[Array, Array, Array, Array]
    leaf: Bool[Array, "B L"]
    written: Int[Array, " B"]
    done: Bool[Array, " B"]


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
    to_the_left = (jnp.arange(P) - count[:, None]) % P  # in the cache every row begins at column 0
    first, there = jnp.take_along_axis(prompts, to_the_left, axis=1), jnp.arange(P) < count[:, None]
    cache = empty_cache(config, B, P + N)
    _, cache = network.apply(params, first, None, there.astype(jnp.int32), cache, last=True)
    params, last = unstack(params), prompts[:, -1]
    blank, none = jnp.full((B, N), sampling.pad_id, jnp.int32), jnp.zeros(B, jnp.int32)
    walk = _Walk(
        tokens=blank,
        logprobs=jnp.zeros((B, N), jnp.float32),
        length=none,
        depth=none,
        ways=none,
        clauses=none,
        heat=jnp.full((B, D + 1), sampling.temperature, jnp.float32),
        forks=jnp.zeros((B, D), jnp.int32),
        sibling=jnp.repeat(blank[:, None], D, axis=1),
        sibling_end=jnp.zeros((B, D), jnp.int32),
        overlap=jnp.zeros((B, N), jnp.int32),
        cache=unstack_cache(cache)._replace(length=count),
        leaves=(
            jnp.repeat(blank[:, None], L, axis=1),
            jnp.zeros((B, L, N), jnp.float32),
            jnp.zeros((B, L), jnp.int32),
            jnp.zeros((B, L, D), jnp.int32),
        ),
        leaf=jnp.zeros((B, L), bool),
        written=none,
        done=jnp.zeros(B, bool),
    )

    def step(carry):
        number, walk, count, last = carry
        newest = jnp.take_along_axis(walk.tokens, jnp.maximum(walk.length - 1, 0)[:, None], axis=1)[:, 0]
        newest, column = jnp.where(walk.length > 0, newest, last), count + walk.length - 1
        # what lies behind this column is of other paths; queries do not look ahead of themselves
        cache = walk.cache._replace(length=column)
        logits, cache = network.apply(params, newest[:, None], None, jnp.ones_like(newest[:, None]), cache)
        walk, logits = walk._replace(cache=cache), logits[:, 0]
        heat = _temperature(walk, sampling, branching)
        token = draw(jax.random.fold_in(key, number), restrict(logits / heat[:, None], sampling.top_k, sampling.top_p))
        logprob = jnp.take_along_axis(logits, token[:, None], axis=-1)[:, 0] - jax.nn.logsumexp(logits, axis=-1)
        walk = _set(walk, heat=(walk.depth, heat), tokens=(walk.length, token), logprobs=(walk.length, logprob))
        return number + 1, _go_on(walk, token, sampling, branching), count, last

    rows, carry = jnp.arange(B), (jnp.zeros((), jnp.int32), walk, count, last)
    leaves, leaf, written = walk.leaves, walk.leaf, walk.written
    sizes = [B >> i for i in range(_HALVINGS + 1) if i == 0 or B >> i >= _FEWEST]
    for smaller in [*sizes[1:], 0]:
        carry = lax.while_loop(lambda carry, few=smaller: jnp.sum(~carry[1].done) > few, step, carry)
        number, walk, *others = carry
        new = walk.leaves, walk.leaf, walk.written
        leaves, leaf, written = jax.tree.map(lambda x, y, to=rows: x.at[to].set(y), (leaves, leaf, written), new)
        kept = jnp.argsort(walk.done, stable=True)[:smaller]  # where trees are still growing
        rows, *others = jax.tree.map(lambda x, kept=kept: x[kept], (rows, walk, *others))
        carry = number, *others
    copied = lax.cummax(jnp.where(leaf, jnp.arange(L), 0), axis=1)  # the response that a copy is of
    copy = lambda x: jnp.take_along_axis(x, copied.reshape(B, L, *[1] * (x.ndim - 2)), axis=1)
    tokens, logprobs, length, branched = map(copy, leaves)
    newest = jnp.take_along_axis(tokens, jnp.maximum(length - 1, 0)[..., None], axis=2)[..., 0]
    response = jnp.arange(N) < length[..., None]
    return Forest(
        tokens=jnp.concatenate(
            [jnp.repeat(prompts[:, None], L, axis=1), jnp.where(response, tokens, sampling.pad_id)], 2
        ),
        mask=jnp.concatenate([jnp.repeat(mask[:, None], L, axis=1), response], axis=2),
        logprobs=jnp.where(response, logprobs, 0.0),
        length=length,
        branched=branched,
        leaf=leaf,
        complete=_is_any(newest, sampling.stops),
        written=written,
    )


def _go_on(walk: _Walk, token: Int[Array, " B"], sampling: Sampling, branching: Branching) -> _Walk:
    """After a token: further along the node, into its first child, or from a leaf back to the last open branching."""
    going = ~walk.done
    length, separates = walk.length + going, going & _is_any(token, branching.separators)
    clauses = walk.clauses + separates
    ended = going & (_is_any(token, sampling.stops) | (length == sampling.max_new_tokens))
    branches = separates & ~ended & (clauses >= branching.clauses) & (walk.depth < branching.depth)
    overlap = _lengthened(walk, token)
    walk = walk._replace(length=length, clauses=clauses, overlap=overlap, written=walk.written + going)
    walk = _remember(walk, branches | ended)
    return _back(_down(walk, branches), ended, branching)


def _remember(walk: _Walk, at_end: Bool[Array, " B"]) -> _Walk:
    """Keeps a node's text for its sibling, if it is the first of two and at its end."""
    first = at_end & (walk.depth > 0) & (walk.ways % 2 == 0)
    level = jnp.where(first, walk.depth - 1, walk.forks.shape[1])
    return _set(walk, sibling=(level, walk.tokens), sibling_end=(level, walk.length))


def _down(walk: _Walk, branches: Bool[Array, " B"]) -> _Walk:
    """Into the first child where a node branches."""
    walk = _set(walk, forks=(jnp.where(branches, walk.depth, walk.forks.shape[1]), walk.length))
    return walk._replace(
        depth=walk.depth + branches,
        ways=jnp.where(branches, 2 * walk.ways, walk.ways),
        clauses=jnp.where(branches, 0, walk.clauses),
        overlap=jnp.where(branches[:, None], 0, walk.overlap),
    )


def _back(walk: _Walk, ended: Bool[Array, " B"], branching: Branching) -> _Walk:
    """Puts a finished response down and goes to the second child of the last branching that still has one to visit."""
    D, levels = branching.depth, jnp.arange(branching.depth)
    index = jnp.where(ended, walk.ways << (D - walk.depth), branching.leaves)
    branched = jnp.where(levels < walk.depth[:, None], walk.forks, walk.length[:, None])
    known = walk.tokens, walk.logprobs, walk.length, branched
    rows = jnp.arange(len(index))
    leaves = tuple(x.at[rows, index].set(y, mode="drop") for x, y in zip(walk.leaves, known, strict=True))
    walk = walk._replace(leaves=leaves, leaf=walk.leaf.at[rows, index].set(True, mode="drop"))

    way = (walk.ways[:, None] >> (walk.depth[:, None] - 1 - levels)) & 1  # taken at each branching
    is_open = (levels < walk.depth[:, None]) & (way == 0)
    level = jnp.max(jnp.where(is_open, levels, -1), axis=1)
    over, back = ended & (level < 0), ended & (level >= 0)
    fork = jnp.take_along_axis(walk.forks, jnp.maximum(level, 0)[:, None], axis=1)[:, 0]
    return walk._replace(
        length=jnp.where(back, fork, walk.length),
        depth=jnp.where(back, level + 1, walk.depth),
        ways=jnp.where(back, (walk.ways >> (walk.depth - 1 - level)) | 1, walk.ways),
        clauses=jnp.where(back, 0, walk.clauses),
        overlap=jnp.where(back[:, None], 0, walk.overlap),
        done=walk.done | over,
    )


def _temperature(walk: _Walk, sampling: Sampling, branching: Branching) -> Float[Array, " B"]:
    """Of the node that is being written; the root has that of the sampling."""
    parent = jnp.take_along_axis(walk.heat, jnp.maximum(walk.depth - 1, 0)[:, None], axis=1)[:, 0]
    own = sampling.temperature - branching.cooling * walk.depth + branching.heating * walk.overlap[:, -1]
    return jnp.where(walk.depth > 0, jnp.minimum(parent, own), sampling.temperature)


def _lengthened(walk: _Walk, token: Int[Array, " B"]) -> Int[Array, "B N"]:
    """The overlaps after one more token, in a node whose sibling is known; 0 elsewhere."""
    level = jnp.maximum(walk.depth - 1, 0)[:, None]
    begun, end = (jnp.take_along_axis(x, level, axis=1) for x in (walk.forks, walk.sibling_end))
    text = jnp.take_along_axis(walk.sibling, level[..., None], axis=1)[:, 0]
    place = jnp.arange(text.shape[1])
    second = ((walk.depth > 0) & (walk.ways % 2 == 1) & ~walk.done)[:, None]
    equal = second & (text == token[:, None]) & (place >= begun) & (place < end)
    return longer(walk.overlap, equal)


def longer(overlap: Int[Array, "B N"], equal: Bool[Array, "B N"]) -> Int[Array, "B N"]:
    """Next row of the table of longest common subsequences: one more token, which equals some of the other text's."""
    diagonal = jnp.pad(overlap[:, :-1], ((0, 0), (1, 0))) + equal
    return lax.cummax(jnp.maximum(overlap, diagonal), axis=1)


def _set(walk: _Walk, **changes: tuple[Array, Array]) -> _Walk:
    """Fields with an entry of every row replaced; places out of bounds are left out."""
    rows = jnp.arange(len(walk.done))
    return walk._replace(
        **{name: getattr(walk, name).at[rows, place].set(x, mode="drop") for name, (place, x) in changes.items()}
    )


def _is_any(tokens: Int[Array, "*B"], of: tuple[int, ...]) -> Bool[Array, "*B"]:
    return jnp.isin(tokens, jnp.array(of, jnp.int32))
