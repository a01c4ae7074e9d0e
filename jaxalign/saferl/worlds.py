"""Constraints built into the environment: what a policy may still spend is something it sees, or what ends its episode.

Each function makes, from an environment and the cost ``budget [K]`` of an episode, another one. The budget is an array,
so that it can be swept, or scheduled by a constraint handler, without compiling again. ``info["task_reward"]`` is the
reward of the environment itself.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxalign.core.types import Env

Budget = Float[Array, " K"]
World = Callable[[Env, Budget, Budget], Env]

TASK_REWARD = "task_reward"
SMALLEST = 1e-6  # budget, so that a limit of zero means: any cost is too much


class BudgetState(NamedTuple):
    """The environment's state, and what is left of each budget, ``[K]``."""

    env: Any
    left: Budget


def bare(state: Any) -> Any:
    """The environment's own state, without what a world has added."""
    return state.env if isinstance(state, BudgetState) else state


def plain(env: Env, budget: Budget, limit: Budget) -> Env:
    """The environment as it is."""
    return env


def saute(unsafe_reward: float = -1.0, discount: float = 0.999) -> World:
    """The share of the safety budget that is left is observed, and once it is spent every reward is `unsafe_reward`.

        z_0 = budget / limit,  z <- (z - c / b) / discount  with  b = limit (1 - discount^L) / ((1 - discount) L)

    where L is the horizon: at a cost spread evenly over the episode ``z`` falls to zero just at its end.

    Sources: Sootla et al. 2022, https://arxiv.org/abs/2202.06558 (Saute, where the budget is the limit) and
    https://arxiv.org/abs/2206.02675 (Simmer, where it is scheduled). Deviations from OmniSafe: a truncated episode
    bootstraps with its own ``z``, not with that of the next; a new episode of Simmer starts with the scheduled budget;
    ``z`` is standardised with the rest of the observation. Several costs have a ``z`` each, and one that is spent is
    enough.

    Args:
        unsafe_reward: of a step without budget.
        discount: of the budget, per step.
    """

    def world(env: Env, budget: Budget, limit: Budget) -> Env:
        horizon = env.spec.horizon
        per_episode = (1 - discount**horizon) / (1 - discount) / horizon if discount < 1 else 1.0
        whole = jnp.maximum(limit, SMALLEST)

        def reset(key):
            state, obs = env.reset(key)
            share = jnp.maximum(budget, SMALLEST) / whole
            left = jnp.broadcast_to(share, (len(env.spec.cost_names),)).astype(jnp.float32)
            return BudgetState(state, left), jnp.append(obs, left)

        def step(state, action):
            inner, after = env.step(state.env, action)
            left = (state.left - after.cost / (per_episode * whole)) / discount
            reward = jnp.where(jnp.all(left > 0), after.reward, unsafe_reward)
            info = {TASK_REWARD: after.reward} | after.info
            return BudgetState(inner, left), after._replace(obs=jnp.append(after.obs, left), reward=reward, info=info)

        blocks = (*env.spec.obs_blocks, ("budget_left", len(env.spec.cost_names)))
        return Env(reset, step, env.spec._replace(obs_blocks=blocks))

    return world


def early_terminated() -> World:
    """An episode ends, without reward, once its cost exceeds the budget.

    Source: Sun et al. 2021, https://arxiv.org/abs/2107.04200. Deviation from OmniSafe: the count starts anew with every
    episode, also after one that ended by itself.
    """

    def world(env: Env, budget: Budget, limit: Budget) -> Env:
        def reset(key):
            state, obs = env.reset(key)
            return BudgetState(state, jnp.zeros(len(env.spec.cost_names)) + budget), obs

        def step(state, action):
            inner, after = env.step(state.env, action)
            left = state.left - after.cost
            spent = jnp.any(left < 0)
            reward = jnp.where(spent, 0.0, after.reward)
            info = {TASK_REWARD: reward} | after.info
            return BudgetState(inner, left), after._replace(
                reward=reward, terminated=after.terminated | spent, info=info
            )

        return Env(reset, step, env.spec)

    return world
