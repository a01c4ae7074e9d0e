"""Two policies over eight tokens: a table of next-token logits by last token, and a transformer of one layer."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_lm

from jaxalign.core.types import Network
from jaxalign.lm import transformer

CONFIG = dataclasses.replace(tiny_lm.MODEL, vocab_size=8, hidden_size=8, num_layers=1)


class Tiny(NamedTuple):
    """A policy, and parameters of a critic like it."""

    network: Network
    config: object
    params: dict
    critic: dict


def read_table(params, tokens, positions=None, segment_ids=None, cache=None, *, hidden=False, last=False):
    """What `transformer.apply_transformer` does, for the language model p(next | last) = softmax(unembed[last])."""
    states = jnp.eye(8)[tokens[:, -1:] if last else tokens]
    out = states if hidden else transformer.unembed(CONFIG, params, states)
    return out if cache is None else (out, cache)


@pytest.fixture(scope="session")
def table():
    """Compiles in no time, and its parameters are logits."""
    logits = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    params = {"embed": jnp.eye(8), "layers": (), "unembed": jnp.asarray(logits)}
    critic = {"trunk": params, "head": jnp.zeros(8)}
    return Tiny(Network(lambda key: params, read_table), CONFIG, params, critic)


@pytest.fixture(scope="session")
def tiny():
    """The real thing."""
    params, trunk = tiny_lm.params(CONFIG), tiny_lm.params(CONFIG, seed=1)
    return Tiny(transformer.network(CONFIG), CONFIG, params, {"trunk": trunk, "head": jnp.zeros(8)})
