"""What a policy wrote, and what it is worth token by token.

A reward is a pure function `RewardFn` of `Completions`. Its native form is one number per response token; a reward of
the whole response stands at the one position that `rewards.position` defines (`at_the_end`).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxalign.core.errors import UserError
from jaxalign.core.types import Network, PRNGKey
from jaxalign.lm.config import ModelConfig
from jaxalign.lm.generation import generate
from jaxalign.lm.packing import Batch, Example
from jaxalign.lm.sampling import Sampling
from jaxalign.lm.transformer import check_context, segment_positions
from jaxalign.rewards.position import reward_position, to_tokens
from jaxalign.rewards.scalar import score


class Completions(NamedTuple):
    """Prompts and responses; every response begins at column P.

    Attributes:
        tokens: prompts, padded on the left, then responses, padded on the right.
        segment_ids: 1 where a token is (the one that ends the response included), 0 for padding.
        prompt_length: P, static.
        response_mask: `segment_ids` of the response columns, as booleans.
        logprobs: of the response tokens under the model that wrote them, at temperature 1; 0 at padding.
    """

    tokens: Int[Array, "B P+N"]
    segment_ids: Int[Array, "B P+N"]
    prompt_length: int
    response_mask: Bool[Array, "B N"]
    logprobs: Float[Array, "B N"]

    @property
    def response(self) -> Int[Array, "B N"]:
        """Tokens of the response columns."""
        return self.tokens[:, self.prompt_length :]


# P is a shape, not a number to trace: the tree has four leaves
jax.tree_util.register_pytree_node(
    Completions,
    lambda c: ((c.tokens, c.segment_ids, c.response_mask, c.logprobs), c.prompt_length),
    lambda prompt_length, leaves: Completions(*leaves[:2], prompt_length, *leaves[2:]),
)

RewardFn = Callable[[Completions], Float[Array, "B N"]]


class Prompts(NamedTuple):
    """Prompts of one shape, padded on the left; a batch of them is what a learner's step takes."""

    tokens: Int[np.ndarray, "B P"]
    mask: Bool[np.ndarray, "B P"]


def pad_prompts(prompts: Sequence[Sequence[int]], length: int | None = None, pad_id: int = 0) -> Prompts:
    """Prompts of `length` columns (by default those of the longest).

    Raises:
        UserError: there is none, or one is empty or longer than `length`.
    """
    if not prompts:
        raise UserError("There is no prompt; check the data.")
    length = max(map(len, prompts)) if length is None else length
    tokens = np.full((len(prompts), length), pad_id, np.int32)
    mask = np.zeros((len(prompts), length), bool)
    for i, prompt in enumerate(prompts):
        if not 1 <= len(prompt) <= length:
            raise UserError(f"Prompt {i} has {len(prompt)} tokens; it needs at least 1 and at most {length}.")
        tokens[i, length - len(prompt) :] = prompt
        mask[i, length - len(prompt) :] = True
    return Prompts(tokens, mask)


Sampler = Callable[..., Completions]


def sampler(network: Network, config: ModelConfig, sampling: Sampling, samples: int = 1) -> Sampler:
    """``(params, prompts [B, P], prompt_mask [B, P], key) -> Completions`` of B times `samples` rows.

    The responses to a prompt stand in consecutive rows.

    Raises:
        UserError: `samples` is not positive; when called, prompts and new tokens exceed the context.
    """
    if samples < 1:
        raise UserError(f"{samples} responses per prompt were asked for; choose at least 1.")

    def complete(params: Any, prompts: Array, prompt_mask: Array, key: PRNGKey) -> Completions:
        check_context(config, prompts.shape[1] + sampling.max_new_tokens)
        prompts, prompt_mask = (jnp.repeat(jnp.asarray(x), samples, axis=0) for x in (prompts, prompt_mask))
        written = generate(network, config, params, prompts, prompt_mask, key, sampling)
        P = prompts.shape[1]
        return Completions(written.tokens, written.mask.astype(jnp.int32), P, written.mask[:, P:], written.logprobs)

    return complete


def score_tokens(reward: RewardFn, completions: Completions) -> Float[Array, "B N"]:
    """The rewards of the tokens, float32 whatever `reward` computes in.

    Raises:
        UserError: there is not one number for each response token.
    """
    rewards = reward(completions)
    if rewards.shape != completions.response_mask.shape:
        raise UserError(
            f"The reward has shape {rewards.shape}; it must give one number per response token, "
            f"{completions.response_mask.shape}. Wrap a reward of whole responses in rlhf.at_the_end."
        )
    return rewards.astype(jnp.float32)


def at_the_end(judge: Callable[[Completions], Float[Array, " B"]]) -> RewardFn:
    """The reward of tokens that is `judge`'s number at the last token of each response and 0 before it."""

    def reward(completions: Completions) -> Float[Array, "B N"]:
        whole = judge(completions).astype(jnp.float32)[:, None]
        width = completions.tokens.shape[1]
        return to_tokens(whole, reward_position(completions.segment_ids), width)[:, completions.prompt_length :]

    return reward


def scalar_reward(values: Network, params: Any) -> RewardFn:
    """The reward of tokens of a scalar reward model that reads the policy's own tokens.

    Args:
        values: of `rewards.value_network`.
        params: of it.
    """

    def judge(completions: Completions) -> Float[Array, " B"]:
        segments = completions.segment_ids
        rows = Batch(completions.tokens, segments, segment_positions(segments), segments > 0)
        return score(values, params, rows).value[:, 0]

    return at_the_end(judge)


def to_examples(completions: Completions) -> list[Example]:
    """Prompts and responses without padding, to be learned from (on the host)."""
    tokens, there = np.asarray(completions.tokens), np.asarray(completions.segment_ids) > 0
    P = completions.prompt_length
    return [Example.of(row[:P][mask[:P]], row[P:][mask[P:]]) for row, mask in zip(tokens, there, strict=True)]
