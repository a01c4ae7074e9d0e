"""Collecting experience: batched stepping with resets that never hide the final observation."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from envs_mjx import lanes
from jaxalign.core.errors import UserError
from jaxalign.core.types import Env, PRNGKey
from jaxalign.saferl.worlds import TASK_REWARD

TOTAL = "cost"  # the indicator of the sum of all costs, what Safety-Gymnasium returns as `cost`


RESET = 2  # of an environment's key; 0 and 1 are the halves into which every step splits it


class RolloutState(NamedTuple):
    """B environments under way.

    Attributes:
        env: their states.
        obs: their present observations, ``[B, O]``.
        key: one stream each, ``[B]``: results do not depend on how environments are spread over devices.
        age: steps since the last reset, ``[B]``.
        cut: age at which the episode is cut by us, ``[B]``, see `start`.
    """

    env: Any
    obs: Float[Array, "B O"]
    key: Key[Array, " B"]
    age: Int[Array, " B"]
    cut: Int[Array, " B"]


class Transition(NamedTuple):
    """What one step leaves behind; `next_obs` is the observation before any reset.

    `task_reward` is the environment's own reward, where `worlds` have put another in its place.
    """

    obs: Float[Array, "*batch O"]
    action: Float[Array, "*batch A"]
    log_prob: Float[Array, "*batch"]
    next_obs: Float[Array, "*batch O"]
    reward: Float[Array, "*batch"]
    task_reward: Float[Array, "*batch"]
    cost: Float[Array, "*batch K"]
    terminated: Bool[Array, "*batch"]
    truncated: Bool[Array, "*batch"]


def select_costs(env: Env, names: Sequence[str]) -> Env:
    """`env` with only the costs `names`; ``"cost"`` is the indicator of the sum of all.

    Raises:
        UserError: a name the environment does not have.
    """
    known = (TOTAL, *env.spec.cost_names)
    for name in names:
        if name not in known:
            raise UserError(f"{env.spec.id} has no cost {name!r}; choose among: {', '.join(known)}.")

    def step(state, action):
        state, after = env.step(state, action)
        named = dict(zip(env.spec.cost_names, jnp.moveaxis(after.cost, -1, 0), strict=True)) | {
            TOTAL: after.info[TOTAL]
        }
        return state, after._replace(cost=jnp.stack([named[name] for name in names], axis=-1))

    return env._replace(step=step, spec=env.spec._replace(cost_names=tuple(names)))


def start(env: Env, keys: Key[Array, " B"], index: Int[Array, " B"], num_envs: int) -> RolloutState:
    """B fresh environments, the `index`-th of `num_envs`.

    First episodes are cut at evenly spread ages. Later resets are then spread over time as well, so that every batch
    sees all phases of an episode and has the same number of episode ends.
    """
    env_state, obs = jax.vmap(lambda key: env.reset(jax.random.fold_in(key, RESET)))(keys)
    cut = env.spec.horizon * (index + 1) // num_envs
    return RolloutState(env_state, obs, keys, jnp.zeros_like(index), jnp.maximum(cut, 1))


def rollout(
    world: Callable[..., Env],
    context: tuple[Array, ...],
    act: Callable[[PRNGKey, Array], tuple[Array, Array]],
    state: RolloutState,
    length: int,
) -> tuple[RolloutState, Transition]:
    """Steps all environments `length` times.

    Args:
        world: ``(*context) -> environment``.
        context: arrays that are the same for all environments, such as a budget; ``()`` if there are none.
        act: ``(keys [B], obs [B, O]) -> (action [B, A], log_prob [B])``.
        state: environments under way.
        length: T.

    Returns:
        The environments and the transitions, ``[T, B, ...]``.
    """
    env = world(*context)

    def reset(key, *context):  # closes over no traced value, as `lanes` asks for
        return world(*context).reset(key)

    def finish(env_state, after_obs, key, age, cut, done):
        """Resets one environment where its episode is done."""
        fresh = lanes.where(done, reset, (env_state, after_obs), jax.random.fold_in(key, RESET), *context)
        return RolloutState(*fresh, key, jnp.where(done, 0, age), jnp.where(done, env.spec.horizon, cut))

    def step(state: RolloutState, _):
        keys = jax.vmap(lambda key: jax.random.split(key, 2))(state.key)
        action, log_prob = act(keys[:, 1], state.obs)
        env_state, after = jax.vmap(env.step)(state.env, action)
        age = state.age + 1
        truncated = after.truncated | (age >= state.cut)
        done = after.terminated | truncated
        transition = Transition(
            state.obs,
            action,
            log_prob,
            after.obs,
            after.reward,
            after.info.get(TASK_REWARD, after.reward),
            after.cost,
            after.terminated,
            truncated,
        )
        return jax.vmap(finish)(env_state, after.obs, keys[:, 0], age, state.cut, done), transition

    return jax.lax.scan(step, state, None, length=length)
