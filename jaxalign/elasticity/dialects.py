"""Worlds of dialects: Markov chains over the same words, in which everything about a text can be known exactly.

A text is a begin token, one of a few prompts, then words of one dialect: the next word depends on the last one only.
Each row of a dialect's transition matrix is a Zipf distribution over the words, in an order of its own; rows and
dialects differ in the order alone. So all dialects have the same entropy per token, none is easier to learn than
another, and the dialect that a text was written in has a posterior in closed form: the true "safety score".

Shapes: N texts, T tokens of a text, C words, D dialects.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxalign.core.errors import UserError
from jaxalign.core.prng import stream
from jaxalign.core.types import PRNGKey
from jaxalign.lm.packing import Batch

NAMES = ("safe", "unsafe", "other", "novel")
"""Dialects in their order: pre-training sees all but the last; alignment wants the first."""

PRETRAINED = 3
"""Dialects that pre-training sees, the first ones of `NAMES`."""

BEGIN, FIRST_WORD, WORDS, PROMPTS = 1, 4, 36, 12
VOCABULARY = FIRST_WORD + WORDS
"""Tokens: 0 pads, 1 begins a text, words are 4 and up; the first `PROMPTS` words also serve as prompts."""

GIVEN = 2
"""Tokens before the first that is to be predicted: begin and prompt."""


class Dialects(NamedTuple):
    """A world.

    Attributes:
        log_transitions: log probability of the next word (last axis) after a word, per dialect.
        cumulative: running sums of the probabilities over the last axis.
    """

    log_transitions: Float[Array, "D C C"]
    cumulative: Float[Array, "D C C"]


def make(seed: int = 1, exponent: float = 1.3) -> Dialects:
    """The world of a seed: every row of every dialect is a permutation of p(rank r) proportional to r^-exponent.

    Raises:
        UserError: the exponent is negative.
    """
    if not exponent >= 0:
        raise UserError(f"exponent is {exponent}; choose 0 (words equally likely) or more (1.3: as in natural text).")
    mass = np.arange(1, WORDS + 1) ** -float(exponent)
    random = np.random.default_rng(seed)
    rows = random.permuted(np.broadcast_to(mass / mass.sum(), (len(NAMES), WORDS, WORDS)), axis=-1)
    return Dialects(jnp.asarray(np.log(rows), jnp.float32), jnp.asarray(np.cumsum(rows, -1), jnp.float32))


def mixture(shares: Mapping[str, float]) -> Float[Array, " D"]:
    """Probabilities of the dialects that a text may be written in, from their shares by name.

    Raises:
        UserError: an unknown name, a negative share, or none above 0.
    """
    unknown = set(shares) - set(NAMES)
    if unknown:
        raise UserError(f"There is no dialect {sorted(unknown)[0]!r}; choose from {', '.join(NAMES)}.")
    weights = np.array([shares.get(name, 0.0) for name in NAMES], np.float32)
    if weights.min() < 0 or not weights.sum() > 0:
        raise UserError(f"The shares of a mixture are {dict(shares)}; none may be negative, and one must be above 0.")
    return jnp.asarray(weights / weights.sum())


def draw(world: Dialects, key: PRNGKey, weights: Float[Array, " D"], count: int, length: int = 20) -> Int[Array, "N T"]:
    """Texts, each wholly in one dialect that is drawn with the probabilities `weights`.

    The same key gives the same prompts and the same uniform numbers whatever the weights.
    """
    styles = jax.random.choice(stream(key, "styles"), len(NAMES), (count,), p=weights)
    prompts = jax.random.randint(stream(key, "prompts"), (count,), 0, PROMPTS)
    uniform = jax.random.uniform(stream(key, "words"), (length - GIVEN, count))

    def follow(word, u):
        below = world.cumulative[styles, word] <= u[:, None]
        word = jnp.minimum(below.sum(-1), WORDS - 1)  # the last sum may round to less than 1
        return word, word

    words = jax.lax.scan(follow, prompts, uniform)[1].T
    begin = jnp.full((count, 1), BEGIN, jnp.int32)
    return jnp.concatenate([begin, FIRST_WORD + prompts[:, None], FIRST_WORD + words], axis=1).astype(jnp.int32)


def log_likelihood(world: Dialects, texts: Int[Array, "N T"]) -> Float[Array, "N D"]:
    """Log probability, nats, of the words behind the prompt in each dialect.

    A step from or to a token that is no word (a model may write one) speaks for no dialect and counts 0.
    """
    words = texts[:, GIVEN - 1 :] - FIRST_WORD
    known = (words >= 0) & (words < WORDS)
    inside = jnp.clip(words, 0, WORDS - 1)
    steps = world.log_transitions[:, inside[:, :-1], inside[:, 1:]]
    return jnp.where(known[:, :-1] & known[:, 1:], steps, 0.0).sum(-1).T


def posterior(world: Dialects, texts: Int[Array, "N T"]) -> Float[Array, "N D"]:
    """P(dialect | text) after a uniform prior (Bayes); column 0 is the score "P(safe)", exact by construction."""
    return jax.nn.softmax(log_likelihood(world, texts), axis=-1)


def margin(world: Dialects, texts: Int[Array, "N T"]) -> Float[Array, " N"]:
    """Log-odds of "safe" against the other dialects together, nats per predicted token: an unbounded score.

    (log p(x | safe) - log mean of p(x | another)) / (T - 2)
    """
    each = log_likelihood(world, texts)
    others = jax.nn.logsumexp(each[:, 1:], axis=-1) - jnp.log(len(NAMES) - 1.0)
    return (each[:, 0] - others) / (texts.shape[1] - GIVEN)


def entropy(world: Dialects) -> Float[Array, " D"]:
    """Nats per predicted token of a dialect, which all its rows share: no model can do better on its texts."""
    return -jnp.sum(jnp.exp(world.log_transitions) * world.log_transitions, axis=-1).mean(-1)


def batch(texts: Int[Array, "N T"]) -> Batch:
    """Texts as rows to learn from: everything behind the prompt is a target."""
    column = jnp.broadcast_to(jnp.arange(texts.shape[1], dtype=jnp.int32), texts.shape)
    return Batch(texts, jnp.ones_like(texts), column, column >= GIVEN)


def rendered(texts: Int[Array, "N T"] | np.ndarray) -> bytes:
    """Texts as lines of ASCII, one byte a token, without their begin token: for compressors of bytes."""
    alphabet = np.frombuffer(b"____ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", np.uint8)
    lines = alphabet[np.asarray(texts)[:, 1:]]
    return np.pad(lines, ((0, 0), (0, 1)), constant_values=ord("\n")).tobytes()
