"""What is measured of a model that was pre-trained, aligned and perturbed, and how it is summed up over seeds.

Directions are named: KL(model || base) weighs errors by what the model says now, KL(base || model) by what it said.
Sizes are nats per token unless they say bits. Sources: Ji et al. 2024 (arXiv 2406.06144), experiments on resistance
and rebound; corrections for the entropy of targets and for the neutral floor are additions.

Shapes: N texts, T tokens, P predicted ones, V vocabulary, D dialects.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxalign.core.errors import UserError
from jaxalign.core.types import Network
from jaxalign.elasticity import dialects

RESAMPLES = 2000


class Observation(NamedTuple):
    """What a model is like at one point of its life.

    Attributes:
        bits: cross-entropy on fixed texts of each dialect, bits per token.
        kl: KL(model || base) on fixed text of the pre-training mixture.
        kl_reverse: KL(base || model) on it.
        moved: KL(model || model before the perturbation) on it.
        score: mean P(safe) of texts that the model writes, by the exact classifier.
        margin: mean log-odds of "safe" of those texts, nats per token.
    """

    bits: Float[Array, "*points D"]
    kl: Float[Array, "*points"]
    kl_reverse: Float[Array, "*points"]
    moved: Float[Array, "*points"]
    score: Float[Array, "*points"]
    margin: Float[Array, "*points"]


def log_probs(network: Network, params: Any, texts: Int[Array, "N T"]) -> Float[Array, "N P V"]:
    """Log distribution of every token behind the prompt, given those before it."""
    return jax.nn.log_softmax(network.apply(params, texts)[:, dialects.GIVEN - 1 : -1])


def kl(p: Float[Array, "*batch V"], q: Float[Array, "*batch V"]) -> Float[Array, ""]:
    """Mean of KL(p || q), both given as log probabilities."""
    return jnp.sum(jnp.exp(p) * (p - q), axis=-1).mean()


def cross_entropy(log_p: Float[Array, "N P V"], texts: Int[Array, "N T"]) -> Float[Array, ""]:
    """Mean of -log p over the predicted tokens of `texts`."""
    return -jnp.take_along_axis(log_p, texts[:, dialects.GIVEN :, None], axis=-1).mean()


def observe(
    network: Network,
    world: dialects.Dialects,
    params: Any,
    probe: Int[Array, "D N T"],
    references: tuple[Float[Array, "D N P V"], Float[Array, "D N P V"]],
    written: Int[Array, "M T"],
) -> Observation:
    """All measures of a model.

    Args:
        network: of `lm.transformer`.
        world: of the dialects.
        params: of the model.
        probe: fixed texts of each dialect.
        references: log probabilities on the probe of the base and of the model before the perturbation.
        written: texts by the model.
    """
    flat = probe.reshape(-1, probe.shape[-1])
    now = log_probs(network, params, flat).reshape(references[0].shape)
    mixture, base, before = (x[: dialects.PRETRAINED] for x in (now, *references))
    return Observation(
        bits=jax.vmap(cross_entropy)(now, probe) / jnp.log(2.0),
        kl=kl(mixture, base),
        kl_reverse=kl(base, mixture),
        moved=kl(mixture, before),
        score=dialects.posterior(world, written)[:, 0].mean(),
        margin=dialects.margin(world, written).mean(),
    )


class Rebound(NamedTuple):
    """How far a model returns to its base while something else is trained on.

    Attributes:
        start: KL(model || base) before the perturbation.
        lowest: smallest KL on the way, as a fraction of `start`; 1 - lowest is the rebound.
        last: KL at the end, as a fraction of `start`.
        floor: KL at the place of the lowest of the base itself under the same data, as a fraction of `start`: what the
            perturbation costs where there is nothing to return from.
        excess: lowest - floor. Crude, since divergences do not add up; below 0 where the model ends nearer to the base
            than the perturbed base does.
        n_half: sequences until the KL is half of `start`, linear between points; infinite if it never is.
    """

    start: float
    lowest: float
    last: float
    floor: float
    excess: float
    n_half: float


def rebound(
    sequences: Sequence[float] | np.ndarray, kl: Sequence[float] | np.ndarray, floor: Sequence[float] | np.ndarray
) -> Rebound:
    """The rebound in a curve of KL(model || base).

    Args:
        sequences: perturbing sequences seen at each point, the first 0.
        kl: of the aligned model.
        floor: of the base under the same perturbation.

    Raises:
        UserError: the curves have other lengths, or the model does not differ from its base.
    """
    x, y, z = (np.asarray(values, float) for values in (sequences, kl, floor))
    if not x.shape == y.shape == z.shape or x.ndim != 1 or not x.size:
        raise UserError(f"The curves of a rebound have shapes {x.shape}, {y.shape}, {z.shape}; give one point each.")
    if not y[0] > 0:
        raise UserError(f"The KL before the perturbation is {y[0]}; align the model first, or there is no way back.")
    at = int(np.argmin(y))
    lowest, ground = y[at] / y[0], z[at] / y[0]
    return Rebound(y[0], lowest, y[-1] / y[0], ground, lowest - ground, first_below(x, y, y[0] / 2))


def first_below(x: np.ndarray, y: np.ndarray, level: float) -> float:
    """The first x at which the polygon through (x, y) is at or below `level`; infinite if it nowhere is."""
    below = np.flatnonzero(np.asarray(y) <= level)
    if not below.size:
        return float("inf")
    i = int(below[0])
    if i == 0:
        return float(x[0])
    share = (y[i - 1] - level) / (y[i - 1] - y[i])
    return float(x[i - 1] + share * (x[i] - x[i - 1]))


class Interval(NamedTuple):
    """A statistic over seeds and its 95 % bootstrap interval (percentiles); NaN bounds for a single seed."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        number = lambda x: "never" if x == float("inf") else f"{x:.3g}" if abs(x) < 1000 else f"{x:.0f}"
        if np.isnan(self.low):
            return number(self.value)
        return f"{number(self.value)} [{number(self.low)}, {number(self.high)}]"


def interval(
    values: Sequence[float] | np.ndarray, statistic: Callable[..., Any] = np.mean, resamples: int = RESAMPLES
) -> Interval:
    """`statistic` (with an `axis`) of the values of seeds, and where 95 % of it lie when seeds are drawn anew.

    Values may be infinite ("never") if the statistic is the median. Deterministic. Source: Efron & Tibshirani 1993,
    the percentile method.

    Raises:
        UserError: there is no value.
    """
    values = np.asarray(values, float)
    if not values.size:
        raise UserError("An interval over seeds was asked for, but there is no seed; run at least 2.")
    if values.size == 1:
        return Interval(float(values[0]), float("nan"), float("nan"))
    drawn = np.random.default_rng(0).choice(values, size=(resamples, values.size))
    low, high = np.quantile(statistic(drawn, axis=1), [0.025, 0.975], method="inverted_cdf")
    return Interval(float(statistic(values, axis=0)), float(low), float(high))
