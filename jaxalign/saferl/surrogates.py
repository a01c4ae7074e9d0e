"""Policy surrogates: (log-ratio, advantage, KL(new || old)) per sample to a scalar to minimise."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Samples = Float[Array, "*batch"]
Surrogate = Callable[[Samples, Samples, Samples], Float[Array, ""]]


def ratio() -> Surrogate:
    """-E[rho A], the objective of TRPO and CPO (https://arxiv.org/abs/1502.05477, eq. 14)."""
    return lambda log_ratio, advantage, kl: -jnp.mean(jnp.exp(log_ratio) * advantage)


def clipped(eps: float = 0.2) -> Surrogate:
    """-E[min(rho A, clip(rho, 1 - eps, 1 + eps) A)], PPO (https://arxiv.org/abs/1707.06347, eq. 7)."""

    def surrogate(log_ratio, advantage, kl):
        rho = jnp.exp(log_ratio)
        return -jnp.mean(jnp.minimum(rho * advantage, jnp.clip(rho, 1 - eps, 1 + eps) * advantage))

    return surrogate


def focops(temperature: float = 1.5, radius: float = 0.02) -> Surrogate:
    """E[m (KL - rho A / temperature)], where m leaves out samples whose KL(new || old) exceeds `radius`.

    Source: Zhang, Vuong, Ross 2020, https://arxiv.org/abs/2002.06506, eq. 9. Deviation from OmniSafe, whose shapes
    broadcast so that its mask does not act on the advantage.
    """

    def surrogate(log_ratio, advantage, kl):
        inside = jax.lax.stop_gradient(kl <= radius)
        return jnp.mean(inside * (kl - jnp.exp(log_ratio) * advantage / temperature))

    return surrogate
