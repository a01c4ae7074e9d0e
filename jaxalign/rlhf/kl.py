"""Distance of a policy p from its reference q: estimates from samples, the exact value from logits, the controller.

Estimators take the log-ratio log p(y) - log q(y) of samples y from p:

    k1 = log-ratio                      unbiased, may be negative; as part of the reward its policy gradient is that of
                                        KL(p || q), whose optimum is q exp(r / beta) / Z
    k2 = log-ratio^2 / 2                biased, low variance; as part of the *loss* its gradient is that of KL(p || q)
    k3 = exp(-log-ratio) - 1 + log-ratio  unbiased and never negative; as part of the loss its gradient is that of the
                                        other direction, KL(q || p), so that the optimum is not q exp(r / beta) / Z

Source of the estimators: Schulman 2020, "Approximating KL divergence". What a gradient of an estimate is a gradient of
is one line of algebra each, and a test.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxalign.core.errors import UserError

Samples = Float[Array, "*samples"]
Estimator = Callable[[Samples], Samples]


def k1(log_ratio: Samples) -> Samples:
    """The log-ratio itself."""
    return log_ratio


def k2(log_ratio: Samples) -> Samples:
    """Half its square."""
    return jnp.square(log_ratio) / 2


def k3(log_ratio: Samples) -> Samples:
    """exp(-x) - 1 + x."""
    return jnp.expm1(-log_ratio) + log_ratio


ESTIMATORS: Mapping[str, Estimator] = {"k1": k1, "k2": k2, "k3": k3}


def estimator(name: str) -> Estimator:
    """The estimator called `name`.

    Raises:
        UserError: there is none of that name.
    """
    if name not in ESTIMATORS:
        raise UserError(f"There is no KL estimator {name!r}; choose one of {', '.join(ESTIMATORS)}.")
    return ESTIMATORS[name]


def exact(logits: Float[Array, "*batch V"], reference: Float[Array, "*batch V"]) -> Float[Array, "*batch"]:
    """KL(p || q) = sum_v p_v (log p_v - log q_v) of two softmax distributions, nats."""
    log_p, log_q = jax.nn.log_softmax(logits), jax.nn.log_softmax(reference)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def entropy(logits: Float[Array, "*batch V"]) -> Float[Array, "*batch"]:
    """-sum_v p_v log p_v, nats."""
    log_p = jax.nn.log_softmax(logits)
    return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


def adapt(coefficient: Array, measured: Array, target: float, samples: int, horizon: float) -> Float[Array, ""]:
    """The next coefficient of the penalty: it rises while the KL is above its target, and falls below it.

        beta <- beta (1 + clip(KL / target - 1, -0.2, 0.2) samples / horizon)

    Ziegler et al. 2019, https://arxiv.org/abs/1909.08593, section 2.2.

    Args:
        coefficient: beta.
        measured: KL per response, nats.
        target: of it.
        samples: responses since the last change.
        horizon: responses over which beta may change by a fifth.
    """
    error = jnp.clip(measured / target - 1.0, -0.2, 0.2)
    return coefficient * (1.0 + error * min(samples / horizon, 1.0))
