"""Running mean and variance of a stream of vectors."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

MIN_STD = 1e-2


class RunningStatistics(NamedTuple):
    """Count, mean and sum of squared deviations of all samples so far, merged batch by batch.

    Source: Chan, Golub, LeVeque, "Algorithms for computing the sample variance" (1983), the pairwise update.

    Attributes:
        samples: how many.
        mean: per component.
        deviation: sum of squared deviations from the mean, per component.
    """

    samples: Float[Array, ""]
    mean: Float[Array, " O"]
    deviation: Float[Array, " O"]

    @classmethod
    def empty(cls, size: int) -> "RunningStatistics":
        """No samples yet."""
        return cls(jnp.zeros(()), jnp.zeros(size), jnp.zeros(size))

    def update(self, x: Float[Array, "*batch O"]) -> "RunningStatistics":
        """Adds every row of `x`."""
        rows = tuple(range(x.ndim - 1))  # not flattened: that would gather a batch that is spread over devices
        added = jnp.float32(math.prod(x.shape[:-1]))
        mean = x.mean(axis=rows)
        deviation = jnp.sum(jnp.square(x - mean), axis=rows)
        count = self.samples + added
        shift = mean - self.mean
        return RunningStatistics(
            count,
            self.mean + shift * added / count,
            self.deviation + deviation + jnp.square(shift) * self.samples * added / count,
        )

    def std(self) -> Float[Array, " O"]:
        """Sample standard deviation (n - 1), at least 0.01."""
        return jnp.maximum(jnp.sqrt(self.deviation / jnp.maximum(self.samples - 1.0, 1.0)), MIN_STD)

    def normalise(self, x: Float[Array, "*batch O"], clip: float = 5.0) -> Float[Array, "*batch O"]:
        """(x - mean) / std, clipped to +-`clip`; the identity up to clipping while there are fewer than two samples.

        Source: OmniSafe's observation normaliser. Deviation: a first sample that passes unchanged is clipped too.
        """
        ready = self.samples > 1
        centred = (x - jnp.where(ready, self.mean, 0.0)) / jnp.where(ready, self.std(), 1.0)
        return jnp.clip(centred, -clip, clip)
