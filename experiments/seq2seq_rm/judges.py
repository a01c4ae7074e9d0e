"""Rewards per token from what was trained: every reading of every model, as `rlhf` takes it."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from worlds import World

from jaxalign.cli.rlhf import SEPARATOR
from jaxalign.lm import ModelConfig
from jaxalign.lm.loss import token_log_probs
from jaxalign.lm.transformer import network, segment_positions
from jaxalign.rewards import seq2seq, value_network
from jaxalign.rewards.facts_world import PAD, lengths
from jaxalign.rlhf.rollout import Completions, RewardFn, at_the_end, scalar_reward

READINGS: Mapping[str, tuple[str, str, bool]] = {
    "seq2seq": ("seq2seq", "signed", False),
    "seq2seq_mean": ("seq2seq", "signed", True),
    "seq2seq_log_probability": ("seq2seq", "log_probability", True),
    "seq2seq_matches": ("seq2seq", "matches", False),
    "correction_only": ("correction_only", "signed", False),
    "identity_only": ("identity_only", "signed", False),
}
"""Name: model, variant of `rewards.seq2seq`, whether the mean over tokens is taken."""


def judges(model: ModelConfig, params: Mapping[str, Any]) -> dict[str, RewardFn]:
    """The rewards that can be read from the models that are there."""
    made: dict[str, RewardFn] = {
        name: seq2seq.as_reward(model, params[of], SEPARATOR, variant, mean=mean)
        for name, (of, variant, mean) in READINGS.items()
        if of in params
    }
    values = value_network(network(model), model.hidden_size)
    made |= {name: scalar_reward(values, params[name]) for name in ("scalar", "scalar_early") if name in params}
    if "scalar" in params:
        made["redistributed"] = prefix_differences(model, params["scalar"])
    if "likelihood" in params:
        made["likelihood"] = likelihood(model, params["likelihood"])
    if "seq2seq" in params:
        made["seq2seq_sparse"] = sparse(made["seq2seq"])
    return made


def likelihood(model: ModelConfig, params: Any) -> RewardFn:
    """Control: mean log-likelihood under a model of the chosen responses, which never reads what it judges first."""

    def reward(completions: Completions) -> Array:
        segments, mask = completions.segment_ids, completions.response_mask
        logits = network(model).apply(params, completions.tokens, segment_positions(segments), segments)
        values = token_log_probs(logits, completions.tokens)[:, completions.prompt_length :]
        return jnp.where(mask, values, 0.0) / jnp.maximum(mask.sum(1, keepdims=True), 1)

    return reward


def prefix_differences(model: ModelConfig, params: Any) -> RewardFn:
    """Control: the scalar reward dealt out as r(x, y_<=t) - r(x, y_<t), a potential-based shaping of it.

    The first token also gets r(x), so that the total is that of the scalar reward.
    """
    values = value_network(network(model), model.hidden_size)

    def reward(completions: Completions) -> Array:
        segments, P = completions.segment_ids, completions.prompt_length
        prefix = values.apply(params, completions.tokens, segment_positions(segments), segments)[:, P:]
        before = jnp.pad(prefix, ((0, 0), (1, 0)))[:, :-1]
        return jnp.where(completions.response_mask, prefix - before, 0.0)

    return reward


def sparse(reward: RewardFn) -> RewardFn:
    """Control: the same total, at the last token."""
    return at_the_end(lambda completions: reward(completions).sum(1))


def with_length_penalty(reward: RewardFn, per_token: float) -> RewardFn:
    """Control: so much less for every token."""
    return lambda completions: reward(completions) - per_token * completions.response_mask


def gold(world: World) -> RewardFn:
    """The true reward, at the last token (the host computes it)."""

    def on_host(prompts, responses):
        return world.gold(np.asarray(prompts), np.asarray(responses)).astype(np.float32)

    def judge(completions: Completions) -> Array:
        prompts, responses = jnp.split(completions.tokens, [completions.prompt_length], axis=1)
        shape = jax.ShapeDtypeStruct((responses.shape[0],), jnp.float32)
        return jax.pure_callback(on_host, shape, prompts, responses)

    return at_the_end(judge)


def completions(prompts: np.ndarray, responses: np.ndarray) -> Completions:
    """Arrays of a world as what a policy would have written."""
    columns = np.arange(responses.shape[1])
    mask = columns <= lengths(responses)[:, None]
    there = np.concatenate([prompts != PAD, mask], axis=1).astype(np.int32)
    tokens = np.concatenate([prompts, responses], axis=1)
    zeros = jnp.zeros(responses.shape, jnp.float32)
    return Completions(jnp.asarray(tokens), jnp.asarray(there), prompts.shape[1], jnp.asarray(mask), zeros)


def apply(function: Callable[[Completions], Any], prompts: np.ndarray, responses: np.ndarray, size: int = 200) -> Any:
    """A jitted function of completions over any number of rows, in batches of one shape."""
    count = len(prompts)
    places = np.arange(-(-count // size) * size) % count
    parts = [jax.device_get(function(completions(prompts[at], responses[at]))) for at in places.reshape(-1, size)]
    return jax.tree.map(lambda *x: np.concatenate(x)[:count], *parts)
