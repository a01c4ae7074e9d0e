"""Action distributions."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxalign.core.types import PRNGKey


class Gaussian(NamedTuple):
    """Independent normal components; the last axis is the event axis.

    Attributes:
        mean: location.
        log_std: logarithm of the standard deviation, same shape.
    """

    mean: Float[Array, "*batch A"]
    log_std: Float[Array, "*batch A"]

    def sample(self, key: PRNGKey) -> Float[Array, "*batch A"]:
        """One draw."""
        return self.mean + jnp.exp(self.log_std) * jax.random.normal(key, self.mean.shape)

    def log_prob(self, x: Float[Array, "*batch A"]) -> Float[Array, "*batch"]:
        """Log-density, summed over components."""
        z = (x - self.mean) * jnp.exp(-self.log_std)
        return jnp.sum(-0.5 * jnp.square(z) - self.log_std - 0.5 * math.log(2 * math.pi), axis=-1)

    def kl(self, other: "Gaussian") -> Float[Array, "*batch"]:
        """KL(self || other), summed over components."""
        variance = jnp.exp(2 * (self.log_std - other.log_std))
        shift = jnp.square((self.mean - other.mean) * jnp.exp(-other.log_std))
        return jnp.sum(other.log_std - self.log_std + 0.5 * (variance + shift - 1.0), axis=-1)

    def entropy(self) -> Float[Array, "*batch"]:
        """Differential entropy, summed over components, nats."""
        return jnp.sum(self.log_std + 0.5 * math.log(2 * math.pi * math.e), axis=-1)


class TanhGaussian(NamedTuple):
    """tanh of independent normal components, so that every component lies in (-1, 1).

    Attributes:
        mean: location before the tanh.
        log_std: logarithm of the standard deviation before the tanh, same shape.
    """

    mean: Float[Array, "*batch A"]
    log_std: Float[Array, "*batch A"]

    def sample_and_log_prob(self, key: PRNGKey) -> tuple[Float[Array, "*batch A"], Float[Array, "*batch"]]:
        """One draw and its log-density, with log(1 - tanh(u)^2) as 2 (log 2 - u - softplus(-2u)), which is stable."""
        return self.transform(jax.random.normal(key, self.mean.shape))

    def transform(self, noise: Float[Array, "*batch A"]) -> tuple[Float[Array, "*batch A"], Float[Array, "*batch"]]:
        """The draw that belongs to standard normal `noise`, and its log-density."""
        u = self.mean + jnp.exp(self.log_std) * noise
        squeeze = 2.0 * (math.log(2.0) - u - jax.nn.softplus(-2.0 * u))
        return jnp.tanh(u), Gaussian(self.mean, self.log_std).log_prob(u) - squeeze.sum(axis=-1)

    def mode(self) -> Float[Array, "*batch A"]:
        """Tanh of the location."""
        return jnp.tanh(self.mean)
