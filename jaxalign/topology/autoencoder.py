"""The macro view: RLHF as an autoencoder of the human text distribution, on a table of responses.

Encoder p_H -> r_H -> comparisons -> r_RM, decoder r_RM -> p_LM (entropy-regularised, whose optimum is a Gibbs
distribution). Theorem 3.1 of arXiv 2402.10184: if every conditional variance of r_RM vanishes, p_LM tends to p_H.

The paper states the scale of the comparisons in two ways. Here, with temperature beta: p = exp(r / beta) / Z, and one
comparison reports (r(y_A) - r(y_B)) / beta with logistic noise of a given scale. The reward model is the maximum a
posteriori under a wide Gaussian prior, its variances are those of Laplace's approximation. All rewards have mean 0,
since comparisons say nothing about a constant.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxalign.core import prng
from jaxalign.core.errors import UserError
from jaxalign.core.types import PRNGKey
from jaxalign.topology.slopes import Slope, fit_slope

_PRIOR_PRECISION = 1e-3
_ITERATIONS = 25  # of expectation-maximisation; each leaves about a fifth of the distance to the mode


@dataclasses.dataclass(frozen=True)
class World:
    """A table of responses with random rewards, r_H / beta standard normal times `spread`.

    Attributes:
        responses: |Y|.
        beta: temperature of decoder and human distribution.
        spread: standard deviation of r_H / beta.
        noise: scale of the logistic noise of a comparison.

    Raises:
        UserError: numbers that make no sense.
    """

    responses: int = 64
    beta: float = 1.0
    spread: float = 1.0
    noise: float = 1.0

    def __post_init__(self):
        if self.responses < 2:
            raise UserError(f"A table of {self.responses} responses has nothing to compare; choose at least 2.")
        for name in ("beta", "spread", "noise"):
            if not 0 < getattr(self, name) < np.inf:
                raise UserError(f"{name} is {getattr(self, name):g}; choose a positive number.")


class Autoencoded(NamedTuple):
    """What came out, for sizes (rows) and seeds (columns).

    Attributes:
        comparisons: n of every size, shape (sizes,).
        human: r_H, shape (sizes, seeds, Y); every sample is a world of its own.
        reward_model: r_RM, shape (sizes, seeds, Y).
        variance: largest conditional variance of r_RM(y1) given r_RM(y2) over all pairs, shape (sizes, seeds).
        beta: temperature.
    """

    comparisons: np.ndarray
    human: np.ndarray
    reward_model: np.ndarray
    variance: np.ndarray
    beta: float

    @property
    def total_variation(self) -> Float[np.ndarray, "sizes seeds"]:
        """Between p_LM and p_H: half the sum of |p_LM - p_H|."""
        return 0.5 * self.error.sum(-1)

    @property
    def error(self) -> Float[np.ndarray, "sizes seeds Y"]:
        """|p_LM(y) - p_H(y)| of every response."""
        return np.abs(decode(self.reward_model, self.beta) - decode(self.human, self.beta))

    @property
    def convergence(self) -> Slope:
        """Slope of log total variation against log n where n is at least 8 |Y|; below that the prior decides."""
        enough = self.comparisons >= 8 * self.human.shape[-1]
        return fit_slope(np.log(self.comparisons[enough]), self.total_variation[enough], np.log)

    @property
    def bound(self) -> Float[np.ndarray, "sizes seeds"]:
        """`propagation_bound` of every sample, which holds for all its responses."""
        return propagation_bound(self.reward_model, self.human, self.beta)


def decode(reward: Float[np.ndarray, "*batch Y"], beta: float) -> Float[np.ndarray, "*batch Y"]:
    """The distribution that maximises E[r] + beta H[p]: exp(r / beta) / Z."""
    weight = np.exp((reward - reward.max(-1, keepdims=True)) / beta)
    return weight / weight.sum(-1, keepdims=True)


def propagation_bound(
    reward_model: Float[np.ndarray, "*batch Y"], human: Float[np.ndarray, "*batch Y"], beta: float
) -> Float[np.ndarray, "*batch"]:
    """What |p_LM(y) - p_H(y)| cannot exceed (proof of theorem 3.1).

    e^(2M/beta) / Z_RM * eps / beta + e^(M/beta) / (Z_RM Z_H) * |Z_H - Z_RM|, with eps = max |r_RM - r_H| and M the
    largest reward of either in absolute value.
    """
    model, human = reward_model / beta, human / beta
    largest = np.maximum(np.abs(model).max(-1), np.abs(human).max(-1))
    z_model, z_human = np.exp(model).sum(-1), np.exp(human).sum(-1)
    farthest = np.abs(model - human).max(-1)
    first = np.exp(2 * largest) / z_model * farthest
    return np.asarray(first + np.exp(largest) / (z_model * z_human) * np.abs(z_human - z_model))


def autoencode(world: World, comparisons: list[int], seeds: int, seed: int = 0) -> Autoencoded:
    """Both arrows: random human rewards, independent uniform pairs, reward model.

    Args:
        world: the table.
        comparisons: sizes n.
        seeds: how many independent worlds of every size.
        seed: of the root key.

    Raises:
        UserError: no sizes, sizes below 1, or no seeds.
    """
    if not comparisons or min(comparisons) < 1 or seeds < 1:
        raise UserError(f"Sizes are {comparisons} and seeds {seeds}; give sizes of 1 or more, and 1 seed or more.")
    keys = jax.random.split(jax.random.key(seed), seeds)
    sizes = jnp.asarray(comparisons, jnp.int32)
    human, model, variance = _autoencode(world, max(comparisons), sizes, keys)
    host = lambda values: np.asarray(values, np.float64)
    return Autoencoded(np.asarray(comparisons), host(human), host(model), host(variance), world.beta)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _autoencode(world: World, most: int, sizes: Int[Array, " sizes"], keys: Key[Array, " seeds"]):
    def one(key, size):
        human, first, second, reported = encode(world, most, jax.random.fold_in(key, size))
        fitted, variance = reward_model(world, first, second, reported, jnp.arange(most) < size)
        return human * world.beta, fitted * world.beta, variance * world.beta**2

    over_seeds = lambda size: jax.vmap(one, in_axes=(0, None))(keys, size)
    return jax.lax.map(over_seeds, sizes)


def encode(
    world: World, most: int, key: PRNGKey
) -> tuple[Float[Array, " Y"], Int[Array, " n"], Int[Array, " n"], Float[Array, " n"]]:
    """r_H / beta, the compared responses (different ones), and what the comparisons report."""
    human = world.spread * jax.random.normal(prng.stream(key, "human"), (world.responses,))
    human -= human.mean()
    first = jax.random.randint(prng.stream(key, "first"), (most,), 0, world.responses)
    ahead = jax.random.randint(prng.stream(key, "second"), (most,), 1, world.responses)
    second = (first + ahead) % world.responses
    noise = world.noise * jax.random.logistic(prng.stream(key, "noise"), (most,))
    return human, first, second, human[first] - human[second] + noise


def reward_model(
    world: World,
    first: Int[Array, " n"],
    second: Int[Array, " n"],
    reported: Float[Array, " n"],
    present: Bool[Array, " n"],
) -> tuple[Float[Array, " Y"], Float[Array, ""]]:
    """r_RM / beta from comparisons, and its largest conditional variance.

    The mode of the posterior, by expectation-maximisation: a logistic is a mixture of Gaussians, whose mean precision
    given the residual z is tanh(z / 2s) / (s z). Variances use the Fisher information 1 / (3 s^2) of a comparison.
    """
    count, s = world.responses, world.noise
    pair = first * count + second
    table = lambda values: jax.ops.segment_sum(jnp.where(present, values, 0.0), pair, count**2).reshape(count, count)

    def laplacian(weight):
        both = weight + weight.T
        return jnp.diag(both.sum(1)) - both + _PRIOR_PRECISION * jnp.eye(count)

    def improve(reward, _):
        z = reported - reward[first] + reward[second]
        small = jnp.abs(z) < 1e-3 * s
        precision = jnp.where(small, 0.5 / s**2, jnp.tanh(z / (2 * s)) / (s * jnp.where(small, 1.0, z)))
        pull = table(precision * reported)
        return jnp.linalg.solve(laplacian(table(precision)), pull.sum(1) - pull.sum(0)), None

    reward = jax.lax.scan(improve, jnp.zeros(count), length=_ITERATIONS)[0]
    covariance = jnp.linalg.inv(laplacian(table(jnp.full(first.shape, 1 / (3 * s**2)))))
    own = jnp.diag(covariance)
    return reward - reward.mean(), (own[:, None] + own[None, :] - 2 * covariance).max()
