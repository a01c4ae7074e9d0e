"""Advantages of response tokens. Reward and costs are channels on the last axis, as in `saferl.estimators`."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxalign.core.errors import UserError
from jaxalign.saferl import estimators

Signal = Float[Array, "B N C"]
Mask = Bool[Array, "B N"]
Advantage = Callable[[Signal, Signal, Mask], tuple[Signal, Signal]]
"""``(rewards, values, mask) -> (advantages, targets of the values)``, all 0 outside the mask."""


def gae(gamma: float = 1.0, lam: float = 0.95) -> Advantage:
    """Generalised advantage estimation over the tokens of a response.

        delta_t = r_t + gamma V_{t+1} - V_t,   A_t = delta_t + gamma lam A_{t+1},   target_t = A_t + V_t

    where V_t is the value before token t is written. A response that was cut off ends like one that ended itself:
    there is no reward to come for either. Source: Schulman et al. 2016, https://arxiv.org/abs/1506.02438.
    """
    estimate = estimators.gae(gamma, lam)

    def advantage(rewards: Signal, values: Signal, mask: Mask) -> tuple[Signal, Signal]:
        there = mask[..., None]
        rewards, values = jnp.where(there, rewards, 0.0), jnp.where(there, values, 0.0)
        following = jnp.pad(values[:, 1:], ((0, 0), (0, 1), (0, 0)))
        never = jnp.zeros_like(mask)  # no flag is needed at the end: behind it rewards and values are 0
        by_time = [x.swapaxes(0, 1) for x in (rewards, values, following, never, never)]
        advantages, targets = (x.swapaxes(0, 1) for x in estimate(*by_time))
        return jnp.where(there, advantages, 0.0), jnp.where(there, targets, 0.0)

    return advantage


def group_relative(group: int, *, standardise: bool = True) -> Advantage:
    """How much better a response is than the others to its prompt, the same for all its tokens; values are not used.

        A_i = (R_i - mean_j R_j) / (std_j R_j + 1e-6),    R_i = sum of the rewards of the tokens of response i

    Shao et al. 2024 (GRPO), https://arxiv.org/abs/2402.03300, outcome supervision; std of a population. Without the
    division it is Dr. GRPO (Liu et al. 2025, https://arxiv.org/abs/2503.20783).

    Args:
        group: responses per prompt, in consecutive rows.
        standardise: divide by the standard deviation.
    """

    def compare(returns: Array) -> Array:
        centred = returns - returns.mean(axis=1, keepdims=True)
        return centred / (returns.std(axis=1, keepdims=True) + 1e-6) if standardise else centred

    return _by_group(group, compare)


def leave_one_out(group: int) -> Advantage:
    """A_i = R_i - mean of R_j over the other responses j to the same prompt, the same for all tokens of i.

    Ahmadian et al. 2024 (RLOO), https://arxiv.org/abs/2402.14740.
    """

    def compare(returns: Array) -> Array:
        return (returns - returns.mean(axis=1, keepdims=True)) * group / (group - 1)

    return _by_group(group, compare)


def _by_group(group: int, compare: Callable[[Array], Array]) -> Advantage:
    """Advantages from the returns of groups, [prompts, group, C]."""
    if group < 2:
        raise UserError(f"samples_per_prompt is {group}; responses are compared with each other, so choose at least 2.")

    def advantage(rewards: Signal, values: Signal, mask: Mask) -> tuple[Signal, Signal]:
        del values
        there = mask[..., None]
        returns = jnp.where(there, rewards, 0.0).sum(axis=1)
        compared = compare(returns.reshape(-1, group, returns.shape[-1])).reshape(returns.shape)
        return jnp.where(there, compared[:, None], 0.0), jnp.zeros_like(rewards)

    return advantage


def masked_mean(x: Array, mask: Mask) -> Array:
    """Mean over the tokens of the mask; further axes of `x` are kept."""
    there = mask.reshape(*mask.shape, *(1,) * (x.ndim - 2))
    return jnp.sum(jnp.where(there, x, 0.0), axis=(0, 1)) / jnp.maximum(mask.sum(), 1)


def whiten(x: Float[Array, "B N"], mask: Mask, *, centre: bool = True) -> Float[Array, "B N"]:
    """To standard deviation 1 and, if `centre`, mean 0 over the tokens of the mask; 0 outside it."""
    mean = masked_mean(x, mask)
    scale = jnp.sqrt(masked_mean(jnp.square(x - mean), mask)) + 1e-8
    return jnp.where(mask, (x - mean if centre else x) / scale, 0.0)
