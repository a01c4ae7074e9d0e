"""Holding on to alignment while something else is learned: three methods, each at several strengths.

The perturbation is somebody's fine-tuning, of a harmless kind or not, done by who wants alignment kept:

- mixing: a share of its sequences is replaced by alignment data; the number of sequences stays.
- anchoring: beta KL(model || aligned model) on its own texts is added to the loss.
- averaging: the weights afterwards are (1 - alpha) aligned + alpha perturbed (Wortsman et al. 2022, arXiv 2109.01903).

What counts is the bargain: bits gained on the new task against bits lost on the aligned one.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxalign.core.errors import UserError
from jaxalign.core.prng import stream
from jaxalign.core.types import Network
from jaxalign.elasticity import dialects, measures
from jaxalign.elasticity.lifecycle import Settings, adam, each, keys, observer, trajectory
from jaxalign.elasticity.measures import Observation
from jaxalign.lm import training

MIXING, ANCHORING, AVERAGING = (0.05, 0.1, 0.25, 0.5), (0.1, 0.3, 1.0, 3.0), (0.25, 0.5, 0.75)
"""Strengths: share of alignment data, coefficient of the divergence, share of the perturbed weights."""


class Method(NamedTuple):
    """What is done; a row of the table.

    Attributes:
        name: of the method; "aligned": no perturbation at all, "none": no mitigation.
        strength: share, coefficient or weight; 0 where there is none.
    """

    name: str
    strength: float = 0.0


class _Run(NamedTuple):
    """The numbers by which methods differ: data, coefficient of the divergence, share of the perturbed weights."""

    weights: Any
    anchor: Any
    share: Any


def methods(
    mixing: Sequence[float] = MIXING, anchoring: Sequence[float] = ANCHORING, averaging: Sequence[float] = AVERAGING
) -> tuple[Method, ...]:
    """All rows of the table, "aligned" and "none" first.

    Raises:
        UserError: a share outside (0, 1), or a coefficient that is not positive.
    """
    for name, strengths, most in (("mixing", mixing, 1), ("anchoring", anchoring, None), ("averaging", averaging, 1)):
        for x in strengths:
            if not x > 0 or (most is not None and not x < most):
                raise UserError(f"A strength of {name} is {x}; choose it above 0{' and below 1' if most else ''}.")
    named = (("mixing", mixing), ("anchoring", anchoring), ("averaging", averaging))
    return Method("aligned"), Method("none"), *(Method(name, x) for name, strengths in named for x in strengths)


def anchored(network: Network) -> training.Loss:
    """Cross-entropy plus beta KL(model || reference) on the same tokens; `frozen` is (reference parameters, beta)."""

    def loss(params, frozen, batch):
        reference, strength = frozen
        now, before = (measures.log_probs(network, x, batch.tokens) for x in (params, reference))
        count = jnp.float32(now.shape[0] * now.shape[1])
        return count * (measures.cross_entropy(now, batch.tokens) + strength * measures.kl(now, before)), count, {}

    return loss


def mitigate(settings: Settings, base: Any, aligned: Any, task: str, rows: Sequence[Method]) -> Observation:
    """What is left of alignment, and what is learned, after a perturbation by `task` with each method.

    Args:
        settings: of the life.
        base: [S, ...].
        aligned: [S, ...].
        task: the dialect of the perturbation.
        rows: R methods.

    Returns:
        Measures after the perturbation with axes [R, S]; all rows of a seed draw on the same random numbers.

    Raises:
        UserError: an unknown task or method.
    """
    runs = jax.tree.map(lambda *x: jnp.stack([jnp.asarray(v, jnp.float32) for v in x]), *(_run(m, task) for m in rows))
    return _mitigate(settings, base, aligned, runs)


def _run(method: Method, task: str) -> _Run:
    """The numbers of a method."""
    name, x = method
    known: dict[str, Callable[[], tuple[dict[str, float], float, float]]] = {
        "aligned": lambda: ({task: 1.0}, 0.0, 0.0),
        "none": lambda: ({task: 1.0}, 0.0, 1.0),
        "mixing": lambda: ({task: 1.0 - x, "safe": x}, 0.0, 1.0),
        "anchoring": lambda: ({task: 1.0}, x, 1.0),
        "averaging": lambda: ({task: 1.0}, 0.0, x),
    }
    if name not in known:
        raise UserError(f"There is no method {name!r}; choose from {', '.join(known)}.")
    if task == "safe":
        raise UserError("The task is 'safe', which is what alignment teaches; choose another dialect to perturb with.")
    shares, anchor, share = known[name]()
    return _Run(dialects.mixture(shares), anchor, share)


@functools.partial(jax.jit, static_argnums=0)
def _mitigate(settings: Settings, base: Any, aligned: Any, runs: _Run) -> Observation:
    world, trainer = dialects.make(settings.world), adam(anchored(settings.network), settings.rate)

    def one(key: Array, base: Any, aligned: Any, run: _Run) -> Observation:
        root = stream(key, "perturbation")
        texts = dialects.draw(world, root, run.weights, settings.perturbation, settings.length)
        frozen = aligned, run.anchor
        lives, _ = trajectory(settings, trainer, aligned, texts, settings.perturbation, frozen)
        kept = jax.tree.map(lambda before, x: (1 - run.share) * before + run.share * x[-1], aligned, lives)
        return observer(settings, key, base, aligned)(kept)

    seeds = jax.vmap(one, in_axes=(0, 0, 0, None))
    return each(lambda run: seeds(keys(settings), base, aligned, run))(runs)


class Bargain(NamedTuple):
    """What a method gives and takes, per seed.

    Attributes:
        learned: bits per token gained on the task, from the aligned model.
        lost: bits per token lost on safe texts, likewise.
        kept: KL(model || base) as a fraction of the aligned model's: 1 if nothing rebounds.
        score: mean P(safe) of texts that the model writes.
    """

    learned: Float[Array, " S"]
    lost: Float[Array, " S"]
    kept: Float[Array, " S"]
    score: Float[Array, " S"]


def bargain(after: Observation, aligned: Observation, task: str) -> Bargain:
    """The bargain of one method from measures [S] with it, and of the row "aligned"."""
    i = dialects.NAMES.index(task)
    gained = aligned.bits[..., i] - after.bits[..., i]
    return Bargain(gained, after.bits[..., 0] - aligned.bits[..., 0], after.kl / aligned.kl, after.score)
