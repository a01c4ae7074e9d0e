"""The policy before optimisation and three reward models on the same pairs; each as ``(prompts, texts) -> [n]``."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import world
from config import Config
from preferences import Pairs, example

from jaxalign.cli.rlhf import ROW, train
from jaxalign.core import prng
from jaxalign.lm import network, packing
from jaxalign.lm.loss import cross_entropy
from jaxalign.rewards import pack_pairs, preference_loss, seq2seq, value_network, with_head
from jaxalign.rlhf import Completions, RewardFn, scalar_reward, total_reward

Score = Callable[[np.ndarray, np.ndarray], np.ndarray]
_SIZE = 512  # texts scored at once


def sft(config: Config, seed: int) -> Any:
    """Parameters of the policy: the likelihood of demonstrations."""
    random = np.random.default_rng([seed, 1])
    asked = world.prompts(held_out=False)
    prompts = asked[random.integers(len(asked), size=config.sft_texts)]
    data = [example(*row) for row in zip(prompts, world.demonstrations(random, config.sft_texts), strict=True)]
    return language_model(config, data, config.sft_steps, prng.stream(jax.random.key(seed), "sft"))


def language_model(config: Config, data: list[Any], steps: int, key: Any, start: Any = None) -> Any:
    """Parameters after so many steps on examples, from new ones or from `start`."""
    net, rows = network(config.model), packing.pack(data, ROW)
    params = net.init(key) if start is None else start
    return train(cross_entropy(net), params, rows, config.batch / len(data), steps, config.learning_rate)


class Judge(NamedTuple):
    """A trained reward model: its kind, "scalar" or "seq2seq", and its parameters."""

    kind: str
    params: Any


def train_judge(config: Config, kind: str, pairs: Pairs, seed: int) -> Judge:
    """Bradley-Terry, or sequence to sequence, on the same pairs for as many steps."""
    key, net, both = prng.stream(jax.random.key(seed), kind), network(config.model), pairs.examples
    steps = config.steps(len(both))
    if kind == "seq2seq":
        data = seq2seq.mappings(both, (world.CORRECT,))
        return Judge(kind, language_model(config, data, steps, key))
    loss, params = preference_loss(value_network(net, config.width)), with_head(net.init(key), config.width, key)
    rows, share = pack_pairs(both, ROW), min(1.0, config.batch / len(both))
    return Judge(kind, train(loss, params, rows, share, steps, config.learning_rate))


def reward(config: Config, kind: str, params: Any) -> RewardFn:
    """Of tokens; the sequence-to-sequence model's is the mean log-probability that it gives a text it has read."""
    if kind == "scalar":
        return scalar_reward(value_network(network(config.model), config.width), params)
    return seq2seq.as_reward(config.model, params, (world.CORRECT,), "log_probability", mean=True)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _total(config: Config, kind: str, params: Any, completions: Completions) -> jax.Array:
    return total_reward(reward(config, kind, params), completions)


def score(config: Config, judge: Judge) -> Score:
    """Totals of whole texts, in batches of one shape."""

    def run(prompts: np.ndarray, texts: np.ndarray) -> np.ndarray:
        tokens = np.concatenate([prompts, texts], axis=1)
        places = np.arange(-(-len(tokens) // _SIZE) * _SIZE) % len(tokens)
        batches = (completions(tokens[at], prompts.shape[1]) for at in places.reshape(-1, _SIZE))
        return np.concatenate([_total(config, *judge, batch) for batch in batches])[: len(tokens)]

    return run


def completions(tokens: np.ndarray, width: int) -> Completions:
    """Prompts of `width` tokens and texts, as `rlhf` takes them."""
    there = jnp.asarray(tokens != world.PAD)
    none = jnp.zeros(there[:, width:].shape)
    return Completions(jnp.asarray(tokens), there.astype(jnp.int32), width, there[:, width:], none)


def linear(config: Config, pairs: Pairs) -> Score:
    """Control: what the pairs say of the true reward to someone who knows its features and the annotator.

    The mode of the posterior of the weights under the prior that they were drawn from and Bradley-Terry likelihood, by
    Newton's method.
    """
    size = len(world.TOPICS) * len(world.WORDS)
    true = world.weights()
    deviation = np.concatenate([np.full(len(part), part.std()) for part in (true[:size], true[size:])])
    x = world.features(pairs.prompts, pairs.chosen) - world.features(pairs.prompts, pairs.rejected)
    x = (config.sharpness * deviation * x).astype(np.float64)
    w = np.zeros(x.shape[1])
    for _ in range(20):
        p = 1 / (1 + np.exp(-x @ w))
        gradient = x.T @ (1 - p) - w
        step = np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + np.eye(len(w)), gradient)
        w += step
        if np.abs(step).max() < 1e-6:
            break
    return lambda prompts, texts: world.features(prompts, texts) @ (w * deviation)
