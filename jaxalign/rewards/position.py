"""Where in a row of tokens a sequence's reward stands: the one definition that everything here uses.

**The reward of a sequence stands at its last real token.** If the sequence ends with EOS, that is the EOS; if it was
cut off, its last token. What is real is said by segment ids (0 is padding, 1, 2, ... the sequences of a row), never by
comparing token ids: a padding id equal to EOS, or missing, changes nothing.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


class RewardPosition(NamedTuple):
    """Per row and sequence.

    Attributes:
        column: of the last real token; 0 where there is no such sequence.
        present: whether the row has that sequence.
    """

    column: Int[Array, "B S"]
    present: Bool[Array, "B S"]


def reward_position(segment_ids: Int[Array, "B T"] | Bool[Array, "B T"], sequences: int = 1) -> RewardPosition:
    """Last column of each of the sequences 1 to `sequences` of every row.

    Right-padded, left-padded, packed and cut-off rows are all the same to it.

    Args:
        segment_ids: 0 for padding; an attention mask is that of one sequence a row.
        sequences: S, the largest number of sequences in a row; static.
    """
    columns = jnp.arange(1, segment_ids.shape[1] + 1, dtype=jnp.int32)[:, None]
    own = segment_ids[:, :, None].astype(jnp.int32) == jnp.arange(1, sequences + 1, dtype=jnp.int32)
    last = jnp.max(jnp.where(own, columns, 0), axis=1)
    return RewardPosition(jnp.maximum(last - 1, 0), last > 0)


def generated_segments(
    tokens: Int[Array, "B T"], prompt: Bool[Array, "B T"], begins: int, eos: tuple[int, ...]
) -> Int[Array, "B T"]:
    """Segment ids (one sequence a row) of prompts followed by sampled tokens.

    A response ends with its first EOS, which belongs to it; what a sampler wrote after that is padding, whatever its
    id. A response without EOS goes on to the last column.

    Args:
        tokens: prompts in the first `begins` columns, padded on either side, then responses.
        prompt: which of the columns before `begins` are real; the rest is not looked at.
        begins: first column of the responses.
        eos: ids that end a response.
    """
    response = jnp.arange(tokens.shape[1]) >= begins
    ends = response & jnp.isin(tokens, jnp.asarray(eos, tokens.dtype))
    ended_before = jnp.cumsum(ends, axis=1) - ends > 0
    return jnp.where(response, ~ended_before, prompt).astype(jnp.int32)


def at_reward_position(per_token: Array, position: RewardPosition) -> Array:
    """What stands at the reward positions of `per_token` [B, T], 0 where there is no sequence; [B, S]."""
    return jnp.where(position.present, jnp.take_along_axis(per_token, position.column, axis=1), 0)


def to_tokens(rewards: Array, position: RewardPosition, length: int) -> Array:
    """The per-token rewards [B, `length`] that are `rewards` [B, S] at the reward positions and 0 elsewhere.

    The inverse of `at_reward_position`; of the type of `rewards`, never of the tokens'.
    """
    at = position.column[:, None, :] == jnp.arange(length)[None, :, None]
    return jnp.sum(jnp.where(at & position.present[:, None, :], rewards[:, None, :], 0), axis=2, dtype=rewards.dtype)
