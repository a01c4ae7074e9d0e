"""Advantage estimators. One call serves the reward and every cost: they are channels on the last axis."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Signal = Float[Array, "T B C"]
Estimator = Callable[[Signal, Signal, Signal, Bool[Array, "T B"], Bool[Array, "T B"]], tuple[Signal, Signal]]


def gae(gamma: float | Sequence[float], lam: float | Sequence[float]) -> Estimator:
    """Generalised advantage estimation, correct under time limits.

        delta_t = r_t + gamma (1 - terminated_t) V(next_obs_t) - V(obs_t)
        A_t = delta_t + gamma lam (1 - ended_t) A_{t+1},    target_t = A_t + V(obs_t)

    ``next_obs`` is the observation before any reset: a terminated step bootstraps with zero, a truncated one with its
    value, and neither lets the recursion run into the next episode.

    Source: Schulman et al. 2016, https://arxiv.org/abs/1506.02438.

    Args:
        gamma: discount, one for all channels or one each.
        lam: trace decay, likewise.
    """
    gamma_c, lam_c = jnp.asarray(gamma, jnp.float32), jnp.asarray(lam, jnp.float32)

    def estimate(signal, value, next_value, terminated, truncated):
        live = 1.0 - terminated[..., None].astype(value.dtype)
        same_episode = 1.0 - (terminated | truncated)[..., None].astype(value.dtype)
        delta = signal + gamma_c * live * next_value - value

        def backward(advantage, x):
            delta, same_episode = x
            advantage = delta + gamma_c * lam_c * same_episode * advantage
            return advantage, advantage

        _, advantage = jax.lax.scan(backward, jnp.zeros_like(value[0]), (delta, same_episode), reverse=True)
        return advantage, advantage + value

    return estimate
