"""Data sets: what is generated, in which topology, and how it is labelled."""

from typing import Any, NamedTuple

import jax
import numpy as np
import world
from config import Config, Data

from jaxalign.lm import Branching, Sampling, generate, grow, network
from jaxalign.lm.packing import Example
from jaxalign.rewards import count_pairs, texts, tree_pairs

_ROWS = 256  # prompts in a batch of the sampler
_LEAVES = 8
_ALL = _LEAVES * (_LEAVES - 1) // 2


class Pairs(NamedTuple):
    """Preferences.

    Attributes:
        prompts: ``[n, 4]``.
        chosen: texts, ``[n, LENGTH]``.
        rejected: likewise.
        common: share of the text that both begin with, ``[n]``.
        tokens: generated for all of them.
        agreement: share of labels that agree with the true reward.
    """

    prompts: np.ndarray
    chosen: np.ndarray
    rejected: np.ndarray
    common: np.ndarray
    tokens: int
    agreement: float

    @property
    def examples(self) -> list[tuple[Example, Example]]:
        """As reward models take them."""
        sides = (self.chosen, self.rejected)
        return list(zip(*([example(p, text) for p, text in zip(self.prompts, side)] for side in sides), strict=True))


def example(prompt: np.ndarray, text: np.ndarray) -> Example:
    """Without padding."""
    return Example.of(prompt, text[text != world.PAD])


def sampling(temperature: float = 1.0) -> Sampling:
    """How texts are drawn."""
    return Sampling(world.LENGTH, temperature, eos_id=world.EOS, pad_id=world.PAD)


def write(config: Config, policy: Any, prompts: np.ndarray, key: Any, temperature: float = 1.0) -> np.ndarray:
    """A text to every prompt, ``[n, LENGTH]``."""
    made = []
    for i, rows in enumerate(_batches(prompts)):
        out = generate(
            network(config.model),
            config.model,
            policy,
            rows,
            rows > 0,
            jax.random.fold_in(key, i),
            sampling(temperature),
        )
        made.append(np.asarray(out.tokens * out.mask)[:, prompts.shape[1] :])
    return np.concatenate(made)[: len(prompts)]


def _batches(prompts: np.ndarray) -> list[np.ndarray]:
    """Of one shape; the last is filled up from the front."""
    places = np.arange(-(-len(prompts) // _ROWS) * _ROWS) % len(prompts)
    return [prompts[at] for at in places.reshape(-1, _ROWS)]


def forest(config: Config, policy: Any, prompts: np.ndarray, key: Any, paper: bool) -> Any:
    """A tree to every prompt, branching after every clause, three times at most."""
    heat = Branching((world.STOP,)) if paper else Branching((world.STOP,), cooling=0.0, heating=0.0)
    settings, made = sampling(1.4 if paper else 1.0), []
    for i, rows in enumerate(_batches(prompts)):
        grown = grow(
            network(config.model), config.model, policy, rows, rows > 0, jax.random.fold_in(key, i), settings, heat
        )
        made.append(jax.device_get(grown))
    return jax.tree.map(lambda *x: np.concatenate(x)[: len(prompts)], *made)


def collect(config: Config, policy: Any, data: Data, seed: int, test: bool = False) -> Pairs:
    """A data set, labelled by an annotator who knows the true reward and errs.

    Args:
        config: of the experiment.
        policy: parameters of what writes.
        data: which set.
        seed: of everything random.
        test: held-out prompts, and every label agrees with the true reward.
    """
    random, key = np.random.default_rng([seed, 5]), jax.random.fold_in(jax.random.key(seed), 5)
    asked = world.prompts(held_out=test)
    draw = lambda number: asked[random.integers(len(asked), size=number)]
    make = {"chain": _chain, "pool": _pool, "tree": _tree}[data.topology]
    prompts, first, second, tokens = make(config, policy, data, draw, key, random)
    return _label(config, data, random, prompts, first, second, tokens, not test)


def _chain(config, policy, data: Data, draw, key, random):
    """Two fresh responses to every pair; within a budget, as many pairs as it pays for."""
    number = data.pairs or data.tokens // 20
    prompts, heat = draw(number), 1.2 if data.paper else 1.0
    first, second = (write(config, policy, prompts, jax.random.fold_in(key, i), heat) for i in (0, 1))
    spent = np.cumsum(world.lengths(first) + world.lengths(second))
    number = data.pairs or int(np.searchsorted(spent, data.tokens, side="right"))
    return prompts[:number], first[:number], second[:number], int(spent[number - 1])


def _pool(config, policy, data: Data, draw, key, random):
    """Eight independent responses to a prompt and all their pairs: re-use of responses without shared beginnings."""
    number = -(-data.pairs // _ALL) or data.tokens // 60
    prompts = draw(number)
    every = write(config, policy, np.repeat(prompts, _LEAVES, axis=0), key).reshape(number, _LEAVES, -1)
    spent = np.cumsum(world.lengths(every.reshape(number * _LEAVES, -1)).reshape(number, _LEAVES).sum(1))
    number = number if data.pairs else int(np.searchsorted(spent, data.tokens, side="right"))
    a, b = np.triu_indices(_LEAVES, 1)
    prompts = np.repeat(prompts[:number], _ALL, axis=0)
    first, second = (every[:number, i].reshape(len(prompts), -1) for i in (a, b))
    kept = np.flatnonzero((first != second).any(1))
    kept = random.permutation(kept)[: data.pairs or None]
    return prompts[kept], first[kept], second[kept], int(spent[number - 1])


def _tree(config, policy, data: Data, draw, key, random):
    """Trees and the pairs of their nodes: no more trees than the pairs need, or than the budget pays for."""
    number = -(-data.pairs * 11 // (_ALL * 10)) + 2 if data.pairs else data.tokens // 30
    prompts = draw(number)
    grown = forest(config, policy, prompts, key, data.paper)
    while count_pairs(grown)[0] < data.pairs:  # responses that end before they branch
        more = draw(number)
        further = forest(config, policy, more, jax.random.fold_in(key, len(prompts)), data.paper)
        prompts, grown = np.concatenate([prompts, more]), jax.tree.map(lambda *x: np.concatenate(x), grown, further)
    spent = np.cumsum(grown.written)
    number = len(prompts) if data.pairs else int(np.searchsorted(spent, data.tokens, side="right"))
    grown = jax.tree.map(lambda x: x[:number], grown)
    leaves = grown.leaf.sum(1)
    possible = int((leaves * (leaves - 1) // 2).sum() * 0.95)  # some texts are equal
    pairs = tree_pairs(grown, data.pairs or possible, random, data.mixture)
    both = texts(grown, pairs, world.PAD)
    return prompts[pairs.tree], both[:, 0], both[:, 1], int(spent[number - 1])


def _label(config, data: Data, random, prompts, first, second, tokens, noise: bool) -> Pairs:
    difference = world.gold(prompts, first) - world.gold(prompts, second)
    common = np.cumprod((first == second) & (first != world.PAD), axis=1).sum(1)
    share = common / np.maximum(np.maximum(world.lengths(first), world.lengths(second)), 1)
    scale = (1 - share) ** data.expertise
    prefers = random.random(len(difference)) < 1 / (1 + np.exp(-config.sharpness * difference / scale))
    if not noise:
        prefers = difference > 0
    chosen, rejected = (np.where((prefers == side)[:, None], first, second) for side in (True, False))
    return Pairs(prompts, chosen, rejected, share, tokens, float(np.mean(prefers == (difference > 0))))
