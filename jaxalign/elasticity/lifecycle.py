"""The life of a language model from scratch: pre-train, align, perturb, on the worlds of `dialects`.

Pre-training sees texts of three dialects in equal parts, alignment one of them ("safe"), a perturbation whatever it is
given: the opposite dialect, one that pre-training never saw (the neutral control), or the pre-training mixture itself.
The experiments are those of Ji et al. 2024 (arXiv 2406.06144) on rebound and resistance. The paper starts from
published models; here the amount of pre-training is a variable, down to none.

Trees of parameters carry the axes in front: S seeds are vmapped, other axes of equal shape are mapped over one
compiled program (one after the other on a CPU, at once on an accelerator).
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxalign.core.errors import UserError
from jaxalign.core.prng import stream
from jaxalign.core.types import Network, PRNGKey
from jaxalign.elasticity import dialects, measures
from jaxalign.elasticity.measures import Observation
from jaxalign.lm import ModelConfig, Sampling, generate, network, training
from jaxalign.lm.loss import cross_entropy

PERTURBATIONS: dict[str, dict[str, float]] = {
    "novel": {"novel": 1.0},
    "unsafe": {"unsafe": 1.0},
    "other": {"other": 1.0},
    "mixture": {"safe": 1.0, "unsafe": 1.0, "other": 1.0},
}
"""Shares of the dialects in a perturbation: neutral, opposite, of pre-training but neither, pre-training itself."""

PAIRS = ((1, 2), (2, 3), (1, 3))
"""Slices k < l of one alignment run between which resistance is measured."""


@dataclass(frozen=True)
class Settings:
    """A life; static under jit.

    Attributes:
        seeds: of initial values and all data; the world stays.
        world: seed of the dialects.
        width: of the model, D.
        layers: of it.
        length: tokens of a text.
        volumes: pre-training steps at which a base is kept; 0: a base that never learned anything.
        aligned: alignment sequences at which an aligned model is kept.
        slice: sequences between the slices of the alignment run that resistance compares, and of their answers.
        perturbation: sequences of a perturbation.
        every: sequences between measurements; `perturbation` and `slice` are multiples of it.
        pretraining_batch: sequences of a pre-training step.
        pretraining_rate: constant learning rate of Adam in pre-training.
        batch: sequences of a step of alignment or perturbation.
        rate: constant learning rate of Adam in both.
        probe: fixed texts of each dialect that divergences and bits are measured on.
        written: texts that a model writes to be scored.
    """

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    world: int = 1
    width: int = 64
    layers: int = 2
    length: int = 20
    volumes: tuple[int, ...] = (0, 300, 1500, 6000)
    aligned: tuple[int, ...] = (256, 1024, 4096)
    slice: int = 512
    perturbation: int = 512
    every: int = 32
    pretraining_batch: int = 64
    pretraining_rate: float = 3e-3
    batch: int = 16
    rate: float = 3e-4
    probe: int = 96
    written: int = 128
    model: ModelConfig = field(init=False, repr=False)

    def __post_init__(self):
        for name in ("seeds", "volumes", "aligned"):
            values, least = getattr(self, name), int(name == "aligned")
            if not values or min(values) < least or len(set(values)) < len(values):
                raise UserError(f"{name} is {values}; give at least one number, none twice, none below {least}.")
        _check_multiple("every", self.every, "batch", self.batch)
        for name in ("perturbation", "slice"):
            _check_multiple(name, getattr(self, name), "every", self.every)
        for count in self.aligned:
            _check_multiple("aligned", count, "batch", self.batch)
        known = min((steps for steps in self.volumes if steps), default=math.inf) * self.pretraining_batch
        if self.perturbation > known:
            raise UserError(
                f"perturbation is {self.perturbation} sequences, more than the {known} of the shortest pre-training; "
                f"elasticity is about small perturbations: choose fewer, or more steps in volumes."
            )
        if self.length <= dialects.GIVEN:
            raise UserError(f"length is {self.length}; a text has begin, prompt and at least one word more.")
        object.__setattr__(self, "model", _model(self))

    @property
    def network(self) -> Network:
        """The transformer of `model`."""
        return network(self.model)

    @property
    def points(self) -> np.ndarray:
        """Sequences seen at each measurement of a perturbation, from 0."""
        return np.arange(0, self.perturbation + 1, self.every)


def _check_multiple(name: str, value: int, of: str, unit: int) -> None:
    if unit < 1 or value < unit or value % unit:
        raise UserError(f"{name} is {value} sequences; choose a multiple of {of}, {unit}, which is at least 1.")


def _model(settings: Settings) -> ModelConfig:
    return ModelConfig(
        vocab_size=dialects.VOCABULARY,
        hidden_size=settings.width,
        num_layers=settings.layers,
        num_heads=4,
        num_kv_heads=4,
        head_dim=max(8, settings.width // 4),
        intermediate_size=2 * settings.width,
        max_position=settings.length,
        tie_embeddings=True,
        embed_scale=True,
    )


def each(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`f` over the leading axis: one after the other on a CPU, whose caches are small, at once elsewhere."""
    return functools.partial(jax.lax.map, f) if jax.default_backend() == "cpu" else jax.vmap(f)


def keys(settings: Settings) -> Array:
    """The root key of every seed."""
    return jax.vmap(jax.random.key)(jnp.asarray(settings.seeds, jnp.uint32))


def adam(loss: training.Loss, rate: float) -> training.Trainer:
    """Adam at a constant rate, without clipping, as in the pilots."""
    steady = training.TrainingConfig(rate, total_steps=1, schedule="constant", beta2=0.999, max_grad_norm=1e9)
    return training.make(loss, steady)


def train(trainer: training.Trainer, state: Any, texts: Int[Array, "N T"], size: int, frozen: Any = ()) -> Any:
    """Passes once over texts in batches of `size`.

    Returns:
        The state, and the loss of every batch before its update.
    """

    def update(state, rows):
        state, info = trainer.step(state, dialects.batch(rows), frozen)
        return state, info.loss

    return jax.lax.scan(update, state, texts.reshape(-1, size, texts.shape[-1]))


def trajectory(
    settings: Settings, trainer: training.Trainer, params: Any, texts: Int[Array, "N T"], every: int, frozen: Any = ()
) -> tuple[Any, Float[Array, " steps"]]:
    """`train`, from fresh moments, with the parameters at the start and after every `every` texts.

    Returns:
        Parameters with the axis of points in front, and the loss of every batch.
    """

    def block(state, rows):
        state, losses = train(trainer, state, rows, settings.batch, frozen)
        return state, (state.params, losses)

    _, (after, losses) = jax.lax.scan(block, trainer.init(params), texts.reshape(-1, every, texts.shape[-1]))
    return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), params, after), losses.reshape(-1)


def write(settings: Settings, params: Any, key: PRNGKey, count: int, temperature: float = 1.0) -> Int[Array, "N T"]:
    """Texts by a model, to random prompts that depend on the key only."""
    prompts = jax.random.randint(stream(key, "prompts"), (count, 1), 0, dialects.PROMPTS) + dialects.FIRST_WORD
    prompts = jnp.concatenate([jnp.full_like(prompts, dialects.BEGIN), prompts], axis=1)
    sampling = Sampling(settings.length - dialects.GIVEN, temperature)
    there = np.ones(prompts.shape, bool)
    return generate(settings.network, settings.model, params, prompts, there, stream(key, "words"), sampling).tokens


def pretrain(
    settings: Settings, report: Callable[[int, float], None] = lambda steps, loss: None
) -> dict[int, dict[str, Any]]:
    """Bases [S, ...] by volume, all from one run: the smaller volumes are its beginnings.

    Texts are drawn for as many steps at once as divide all volumes; other divisors are other draws.

    Args:
        settings: of the life.
        report: called now and then with the steps made and the mean loss of the last of them, nats per token.

    Raises:
        UserError: the loss is not finite.
    """
    roots = keys(settings)
    state = _fresh(settings, roots)
    bases = {0: state.params}
    chunk = math.gcd(*settings.volumes) or 1
    for steps in range(chunk, max(settings.volumes) + 1, chunk):
        state, loss = _pretrain(settings, chunk, roots, state, steps)
        if not np.isfinite(loss):
            raise UserError(f"The pre-training loss is {loss} after {steps} steps; lower pretraining_rate.")
        report(steps, float(loss))
        bases[steps] = state.params
        bases = {volume: params for volume, params in bases.items() if volume in settings.volumes}
    return {volume: bases[volume] for volume in settings.volumes}


@functools.partial(jax.jit, static_argnums=0)
def _fresh(settings: Settings, roots: Array) -> training.TrainingState:
    trainer = adam(cross_entropy(settings.network), settings.pretraining_rate)
    return jax.vmap(lambda key: trainer.init(settings.network.init(stream(key, "model"))))(roots)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _pretrain(settings: Settings, chunk: int, roots: Array, state: Any, number: Int[Array, ""] | int) -> Any:
    """`chunk` further steps of every seed, on the fresh texts of that number; and their mean loss."""
    trainer = adam(cross_entropy(settings.network), settings.pretraining_rate)
    world, weights = dialects.make(settings.world), dialects.mixture(PERTURBATIONS["mixture"])

    def one(key, state):
        key = jax.random.fold_in(stream(key, "pretraining"), number)
        texts = dialects.draw(world, key, weights, chunk * settings.pretraining_batch, settings.length)
        return train(trainer, state, texts, settings.pretraining_batch)

    state, losses = jax.vmap(one)(roots, state)
    return state, losses.mean()


class Aligned(NamedTuple):
    """Models of one alignment run on safe texts.

    Attributes:
        starts: [1 + A, S, ...], the base itself, then after the counts in `Settings.aligned`.
        slices: [3, S, ...], after one, two and three times `Settings.slice`.
    """

    starts: Any
    slices: Any


@functools.partial(jax.jit, static_argnums=0)
def align(settings: Settings, base: Any) -> Aligned:
    """Fine-tunes bases [S, ...] on safe texts."""
    trainer = adam(cross_entropy(settings.network), settings.rate)
    world, weights = dialects.make(settings.world), dialects.mixture({"safe": 1.0})
    slices = [i * settings.slice for i in (1, 2, 3)]
    unit, total = math.gcd(*settings.aligned, settings.slice), max(*settings.aligned, *slices)

    def one(key, params):
        texts = dialects.draw(world, stream(key, "alignment"), weights, total, settings.length)
        return trajectory(settings, trainer, params, texts, unit)[0]

    kept = jax.vmap(one, out_axes=1)(keys(settings), base)
    at = lambda counts: jax.tree.map(lambda x: x[np.array(counts) // unit], kept)
    return Aligned(at([0, *settings.aligned]), at(slices))


@functools.partial(jax.jit, static_argnums=0)
def perturb(settings: Settings, base: Any, starts: Any, weights: Float[Array, "K D"]) -> Observation:
    """Fine-tunes every start on every mixture of dialects, and measures at `Settings.points`.

    Every start of a seed sees the same texts, so that their curves differ by where they started.

    Args:
        settings: of the life.
        base: [S, ...], what divergences are measured to.
        starts: [A, S, ...].
        weights: probabilities of the dialects, K perturbations.

    Returns:
        Measures with axes [K, A, S, P].
    """
    world, trainer = dialects.make(settings.world), adam(cross_entropy(settings.network), settings.rate)

    def one(key, base, start, weights):
        texts = dialects.draw(world, stream(key, "perturbation"), weights, settings.perturbation, settings.length)
        lives, _ = trajectory(settings, trainer, start, texts, settings.every)
        return jax.lax.map(observer(settings, key, base, start), lives)

    seeds = jax.vmap(one, in_axes=(0, 0, 0, None))
    roots = keys(settings)
    return each(lambda mix: each(lambda start: seeds(roots, base, start, mix))(starts))(weights)


def probes(settings: Settings) -> Int[Array, "D N T"]:
    """The fixed texts of each dialect, the same for all seeds."""
    world, root = dialects.make(settings.world), stream(jax.random.key(settings.world), "probe")
    draw = lambda key, weights: dialects.draw(world, key, weights, settings.probe, settings.length)
    count = len(dialects.NAMES)
    return jax.vmap(draw)(jax.random.split(root, count), jnp.eye(count))


def observer(settings: Settings, key: PRNGKey, base: Any, start: Any) -> Callable[[Any], Observation]:
    """``look(params) -> Observation`` of a model beside its base and the model that was perturbed."""
    net, world, probe = settings.network, dialects.make(settings.world), probes(settings)
    flat = probe.reshape(-1, settings.length)
    reference = lambda params: measures.log_probs(net, params, flat).reshape(*probe.shape[:2], -1, dialects.VOCABULARY)
    references = reference(base), reference(start)

    def look(params):
        written = write(settings, params, stream(key, "written"), settings.written)
        return measures.observe(net, world, params, probe, references, written)

    return look


class Resistance(NamedTuple):
    """Training a slice of the alignment run on another slice's answers; axes [2, 3, S]: inverse or forward, pair, seed.

    Inverse: the later slice l learns from the answers of the earlier slice k; forward: k from those of l (`PAIRS`).

    Attributes:
        loss: mean training loss over the one pass, nats per token: the paper's measure.
        entropy: of the distribution that the answers were sampled from, at its temperature. loss - entropy is a mean
            divergence KL(sampler || learner): what is left of the loss when targets differ in entropy.
        start: cross-entropy of all answers before the first update.
        distinct: share of the answers that differ from each other.
        curve: cross-entropy of all answers at every `Settings.every` sequences, further axis [P].
    """

    loss: Float[Array, "2 3 S"]
    entropy: Float[Array, "2 3 S"]
    start: Float[Array, "2 3 S"]
    distinct: Float[np.ndarray, "2 3 S"]
    curve: Float[Array, "2 3 S P"]


def resist(settings: Settings, slices: Any, temperature: float) -> Resistance:
    """Both directions between every pair of slices [3, S, ...], answers sampled at `temperature`.

    Raises:
        UserError: the temperature is not positive.
    """
    if not temperature > 0:
        raise UserError(f"temperature is {temperature}; choose a positive one, such as 0.05, 0.5 or 1.")
    learner = np.array([[l - 1 for _, l in PAIRS], [k - 1 for k, _ in PAIRS]])
    teacher = learner[::-1]
    answers, entropy, loss, curve = _resist(settings, slices, float(temperature), learner.ravel(), teacher.ravel())
    unlike = lambda texts: len(np.unique(texts, axis=0)) / len(texts)
    distinct = np.array([[unlike(texts) for texts in seeds] for seeds in np.asarray(answers)], np.float32)
    shape = (2, len(PAIRS), len(settings.seeds))
    curve = curve.reshape(*shape, -1)
    return Resistance(loss.reshape(shape), entropy[teacher], curve[..., 0], distinct[teacher], curve)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _resist(settings: Settings, slices: Any, temperature: float, learner: Array, teacher: Array) -> Any:
    net, trainer = settings.network, adam(cross_entropy(settings.network), settings.rate)
    roots = keys(settings)

    def answer(key, params):
        texts = write(settings, params, stream(key, "answers"), settings.slice, temperature)
        sampler = jax.nn.log_softmax(measures.log_probs(net, params, texts) / temperature)
        return texts, measures.cross_entropy(sampler, texts)

    def learn(params, texts):
        lives, losses = trajectory(settings, trainer, params, texts, settings.every)
        at = lambda params: measures.cross_entropy(measures.log_probs(net, params, texts), texts)
        return losses.mean(), jax.lax.map(at, lives)

    answers, entropy = each(lambda params: jax.vmap(answer)(roots, params))(slices)

    def run(pair):
        one, other = pair
        return jax.vmap(learn)(jax.tree.map(lambda x: x[one], slices), answers[other])

    loss, curve = each(run)((learner, teacher))
    return answers, entropy, loss, curve
