"""Actors of off-policy learners: how network outputs become actions, in the world and in the updates."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxalign.core.distributions import TanhGaussian
from jaxalign.core.types import PRNGKey

MIN_LOG_STD, MAX_LOG_STD = -20.0, 2.0


class Actor(NamedTuple):
    """How an actor's network outputs become actions in [-1, 1].

    Attributes:
        outputs: of the network, per action component.
        explore: ``(key, outputs) -> action`` in the environment.
        improve: ``(key, outputs) -> (action, log-density)``: the former is to have a high value, the latter, times the
            temperature, to be low; it is 0 without entropy.
        target: ``(key, outputs) -> (action, log-density)``, what the critics' targets assume next.
        mode: ``outputs -> action`` without noise.
        slow_target: whether `target` is asked of the averaged actor.
        pessimistic: whether improvement looks at the smallest of the critics, not at the first.
        delay: critic updates per actor update.
        temperature: worth of a nat of entropy, at first.
        temperature_rate: learning rate of its logarithm; 0 keeps it.
    """

    outputs: int
    explore: Callable[[PRNGKey, Array], Array]
    improve: Callable[[PRNGKey, Array], tuple[Array, Array]]
    target: Callable[[PRNGKey, Array], tuple[Array, Array]]
    mode: Callable[[Array], Array]
    slow_target: bool
    pessimistic: bool
    delay: int
    temperature: float = 1.0
    temperature_rate: float = 0.0


def deterministic(noise: float = 0.1, target_noise: float = 0.0, noise_clip: float = 0.5) -> Actor:
    """An action per observation, explored with Gaussian noise.

    DDPG (https://arxiv.org/abs/1509.02971); with target noise, delay and two critics TD3
    (https://arxiv.org/abs/1802.09477, eq. 14).
    """

    def explore(key, outputs):
        return jnp.clip(jnp.tanh(outputs) + noise * jax.random.normal(key, outputs.shape), -1.0, 1.0)

    def improve(key, outputs):
        return jnp.tanh(outputs), jnp.zeros(outputs.shape[:-1])

    def target(key, outputs):
        shift = jnp.clip(target_noise * jax.random.normal(key, outputs.shape), -noise_clip, noise_clip)
        return jnp.clip(jnp.tanh(outputs) + shift, -1.0, 1.0), jnp.zeros(outputs.shape[:-1])

    return Actor(1, explore, improve, target, jnp.tanh, True, False, 2 if target_noise else 1)


def maximum_entropy(temperature: float, temperature_rate: float = 0.0) -> Actor:
    """A squashed Gaussian whose entropy is worth `temperature` per nat: SAC (https://arxiv.org/abs/1812.05905).

    With a rate the temperature leads the entropy towards minus the number of action components, as in section 5 there.
    """

    def sample(key, outputs):
        return squashed(outputs).sample_and_log_prob(key)

    return Actor(
        2,
        lambda key, outputs: sample(key, outputs)[0],
        sample,
        sample,
        lambda outputs: squashed(outputs).mode(),
        False,
        True,
        2,
        temperature,
        temperature_rate,
    )


def squashed(outputs: Float[Array, "*batch twoA"]) -> TanhGaussian:
    """The distribution whose location and log-scale the outputs are."""
    mean, log_std = jnp.split(outputs, 2, axis=-1)
    return TanhGaussian(mean, jnp.clip(log_std, MIN_LOG_STD, MAX_LOG_STD))
