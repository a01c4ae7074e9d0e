"""Training on the same data: the policy before optimisation, and everything that is to judge it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from config import Config
from worlds import World

from jaxalign import track
from jaxalign.cli.rlhf import ROW, SEPARATOR, examples, train
from jaxalign.core import prng
from jaxalign.lm import network, packing
from jaxalign.lm.loss import cross_entropy
from jaxalign.lm.packing import Example
from jaxalign.rewards import pack_pairs, preference_loss, seq2seq, value_network, with_head
from jaxalign.rewards.facts_world import Facts, Pairs

EARLY = 200  # steps of the early-stopped scalar model


def save(path: Path, params: Any) -> None:
    """Writes parameters whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with track.replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, *jax.tree.leaves(params))


def load(config: Config, world: World, path: Path) -> Any:
    """Parameters that `save` wrote; the file's name says of which kind."""
    model = config.model(world)
    like = jax.eval_shape(network(model).init, jax.random.key(0))
    if path.name.startswith("scalar"):
        like = jax.eval_shape(lambda key: with_head(like, model.hidden_size, key), jax.random.key(0))
    with np.load(path) as saved:
        return jax.tree.unflatten(jax.tree.structure(like), [jnp.asarray(saved[key]) for key in saved.files])


def demonstrations(world: World, cautious: float) -> World:
    """The world in which demonstrations for the policy are made: where there is harm, half is, and it refuses more."""
    if not isinstance(world, Facts) or not world.harmful:
        return world
    return dataclasses.replace(world, benign_refusals=cautious, harmful=0.5)


def sft(config: Config, world: World, seed: int) -> Any:
    """Parameters of the policy before optimisation: the likelihood of what annotated policies answer."""
    random = np.random.default_rng([seed, 1])
    source = demonstrations(world, config.cautious)
    prompts = source.prompts(random, config.pairs)
    data = examples(prompts, source.responses(random, prompts))
    return _language_model(config, world, data, config.sft_steps, "sft", seed)


def train_rewards(config: Config, world: World, pairs: Pairs, names: Sequence[str], seed: int) -> dict[str, Any]:
    """Parameters of the reward models of `config.SCORES`, all trained on the same pairs for as many steps."""
    chosen, rejected = (examples(pairs.prompts, responses) for responses in (pairs.chosen, pairs.rejected))
    both = list(zip(chosen, rejected))

    def make(name: str) -> Any:
        if name.startswith("scalar"):
            return _scalar(config, world, both, EARLY if name == "scalar_early" else config.rm_steps, seed)
        if name == "likelihood":
            return _language_model(config, world, chosen, config.rm_steps, name, seed)
        which = {"correction_only": ("correction",), "identity_only": ("identity",)}.get(name, seq2seq.BOTH)
        data = seq2seq.mappings(both, SEPARATOR, which)
        return _language_model(config, world, data, config.rm_steps, name, seed)

    return {name: make(name) for name in names}


def _language_model(config: Config, world: World, data: list[Example], steps: int, name: str, seed: int) -> Any:
    net = network(config.model(world))
    params = net.init(prng.stream(jax.random.key(seed), name))
    rows = packing.pack(data, ROW)
    return train(cross_entropy(net), params, rows, config.batch / len(data), steps, config.learning_rate)


def _scalar(config: Config, world: World, pairs: list[tuple[Example, Example]], steps: int, seed: int) -> Any:
    model = config.model(world)
    key = prng.stream(jax.random.key(seed), "scalar")
    params = with_head(network(model).init(key), model.hidden_size, key)
    loss = preference_loss(value_network(network(model), model.hidden_size))
    return train(loss, params, pack_pairs(pairs, ROW), config.batch / len(pairs), steps, config.learning_rate)
