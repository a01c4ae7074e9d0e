"""Elasticity in a model that can be solved: the maximum-likelihood mixture of the data it was fitted on.

Data sets are distributions over the leaves of a (pruned) token tree: P_p pre-training, P_a alignment, P_t perturbation,
of sizes k, 1 and l in units of the alignment set. A tabular model fitted on all of them is their mixture

    Q = (k P_p + P_a + l P_t) / N,   N = k + 1 + l,

and compresses a set P at the rate gamma = -sum_j P(j) ln Q(j), nats per response. Then, for any distributions at all,

    gamma' = (1 - sum_j P(j) P_t(j) / Q(j)) / N            by l                                 (`rate_derivative`)
    k gamma_p' + gamma_a' + l gamma_t' = 0                 for l > 0                            (`balance`)

the second because a fitted mixture is stationary for its own data. Where pre-training and alignment cover the
perturbation, the last term vanishes with l, and gamma_a' = -k gamma_p': the alignment set moves k times as fast as the
pre-training set, and the other way. That is the factor of the paper's theorem and its Hooke form at once (size times
change of rate is the same, up to sign); neither Pareto tails nor pruning nor equal sub-populations are needed. The
cover is: for disjoint sets both rates rise alike, the ratio is +1, and nothing is elastic.

Source of the claim: Ji et al. 2024, "Language Models Resist Alignment", https://arxiv.org/abs/2406.06144, theorem 4.2;
the derivation above is ours. Any float type; derivatives are worth having in ``jax.enable_x64(True)``.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxalign.core.errors import UserError

Leaves = Float[Array | np.ndarray, " M"]
Number = Float[Array | np.ndarray, "..."] | float | int


class Sets(NamedTuple):
    """Three data sets as distributions over the same leaves.

    Attributes:
        pretraining: P_p.
        alignment: P_a.
        perturbation: P_t.
    """

    pretraining: Float[Array | np.ndarray, " M"]
    alignment: Float[Array | np.ndarray, " M"]
    perturbation: Float[Array | np.ndarray, " M"]


class Derivatives(NamedTuple):
    """By the perturbation's size l: of the rates of alignment and pre-training set, and the first over the second."""

    alignment: Number
    pretraining: Number
    ratio: Number


def subpopulations(sources: Float[Array | np.ndarray, "3 m"]) -> Sets:
    """The theorem's setting: disjoint sources in equal parts make the pre-training set.

    Alignment is like the second of them, perturbation like the third.
    """
    apart = _disjoint(sources)
    return Sets(apart.mean(axis=0), apart[1], apart[2])


def disjoint_sets(sources: Float[Array | np.ndarray, "3 m"]) -> Sets:
    """Its counterexample: the three sets share no leaf at all."""
    return Sets(*_disjoint(sources))


def pareto(leaves: int, shape: float) -> Float[np.ndarray, " M"]:
    """Leaf probabilities that are distributed as Pareto: the quantiles (1 - u)^(-1 / shape), normalised.

    Raises:
        UserError: no leaf, or a shape that is not positive.
    """
    if leaves < 1 or not 0 < shape < np.inf:
        raise UserError(f"{leaves} leaves of Pareto shape {shape:g} were asked for; choose at least 1, and above 0.")
    mass = (1 - (np.arange(leaves) + 0.5) / leaves) ** (-1 / shape)
    return mass / mass.sum()


def fitted(sets: Sets, k: Number, l: Number) -> Leaves:
    """Q: what a tabular model learns from k parts of pre-training, 1 of alignment, l of perturbation data."""
    return (k * sets.pretraining + sets.alignment + l * sets.perturbation) / (k + 1 + l)


def rate(data: Leaves, model: Leaves) -> Number:
    """Cross-entropy -sum_j P(j) ln Q(j), nats per response; infinite if the model lacks a leaf of the data."""
    there = data > 0
    return -jnp.sum(jnp.where(there, data * jnp.log(jnp.where(there, model, 1.0)), 0.0))


def rates(sets: Sets, k: Number, l: Number) -> tuple[Number, Number]:
    """gamma_a and gamma_p under the fitted model. Less log M each (normalised), they have the same derivatives."""
    model = fitted(sets, k, l)
    return rate(sets.alignment, model), rate(sets.pretraining, model)


def rate_derivative(data: Leaves, perturbation: Leaves, model: Leaves, total: Number) -> Number:
    """How the rate of any data set under the fitted model moves with l; N = `total` = k + 1 + l.

        gamma' = (1 - sum_j P(j) P_t(j) / Q(j)) / N

    It falls for data that the perturbation holds more of than the model does.
    """
    both = (data > 0) & (perturbation > 0)
    return (1 - jnp.sum(jnp.where(both, data * perturbation / jnp.where(both, model, 1.0), 0.0))) / total


def derivatives(sets: Sets, k: Number, l: Number) -> Derivatives:
    """Of any three sets, by `rate_derivative`."""
    model, total = fitted(sets, k, l), k + 1 + l
    alignment = rate_derivative(sets.alignment, sets.perturbation, model, total)
    pretraining = rate_derivative(sets.pretraining, sets.perturbation, model, total)
    return Derivatives(alignment, pretraining, alignment / pretraining)


def theorem(k: Number, l: Number) -> Derivatives:
    """Closed form for `subpopulations`, whatever the sources' shapes; pretraining changes its sign at l = 1/2.

    gamma_a' = 1 / (k+1+l),   gamma_p' = -(1-2l) / ((k+1+l) (k+3l)),   ratio = -(k+3l) / (1-2l) -> -k
    """
    total = k + 1 + l
    alignment, pretraining = 1 / total, -(1 - 2 * l) / (total * (k + 3 * l))
    return Derivatives(alignment, pretraining, jnp.divide(-(k + 3 * l), 1 - 2 * l))  # infinite at l = 1/2


def theorem_disjoint(k: Number, l: Number) -> Derivatives:
    """Closed form for `disjoint_sets`: both rates rise by 1 / (k+1+l), and the ratio is +1."""
    total = k + 1 + l
    return Derivatives(1 / total, 1 / total, 1.0)


def balance(sets: Sets, k: Number, l: Number) -> Float[Array, "3"]:
    """Size times change of rate of pre-training, alignment and perturbation set: k gamma_p', gamma_a', l gamma_t'.

    The Hooke form: forces |D_i| gamma_i' of springs in series. For l > 0 they sum to 0; the third vanishes with l where
    pre-training and alignment cover the perturbation (it is NaN at l = 0 where they do not), so that the first two are
    equal and opposite. gamma_i' is also the change of KL(P_i || Q), data first. The paper has the model first: see
    `smoothed_kl_derivative` for why that has no such law.
    """
    model, total = fitted(sets, k, l), k + 1 + l
    moved = [rate_derivative(data, sets.perturbation, model, total) for data in sets]
    return jnp.stack([jnp.asarray(size * x) for size, x in zip((k, 1.0, l), moved)])


def smoothed_kl_derivative(sets: Sets, k: Number, l: Number, smoothing: float) -> Float[Array, "2"]:
    """How KL(Q || P_i), model first, moves with l, for pre-training and alignment set, with P_i smoothed.

    Without smoothing, KL(Q || P_a) is infinite: the model has leaves that the alignment set lacks. With
    (1 - s) P_i + s / M in its place it is finite and changes by

        (sum_j P_t(j) ln(Q(j) / P_i(j)) - KL(Q || P_i)) / N,

    which for the alignment set grows as ln(1 / s): the number is about s, not about springs.

    Raises:
        UserError: the smoothing is not between 0 and 1.
    """
    if not 0 < smoothing < 1:
        raise UserError(f"smoothing is {smoothing:g}; choose a share between 0 and 1.")
    model = jnp.asarray(fitted(sets, k, l))

    def change(data: Leaves) -> Number:
        ratio = jnp.log(jnp.where(model > 0, model, 1.0)) - jnp.log((1 - smoothing) * data + smoothing / data.size)
        return jnp.sum((sets.perturbation - model) * ratio) / (k + 1 + l)

    return jnp.stack([jnp.asarray(change(data)) for data in (sets.pretraining, sets.alignment)])


def _disjoint(sources: Float[Array | np.ndarray, "3 m"]) -> Float[np.ndarray, "3 M"]:
    """Source i on the i-th third of the leaves, 0 elsewhere; float64."""
    sources = np.asarray(sources, np.float64)
    if not ((sources > 0).all() and np.allclose(sources.sum(axis=1), 1)):
        raise UserError("A source is no distribution; give positive leaf weights that sum to 1 in each row.")
    size = sources.shape[1]
    apart = np.zeros((3, 3 * size))
    for i, source in enumerate(sources):
        apart[i, i * size : (i + 1) * size] = source
    return apart
