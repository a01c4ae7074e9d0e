"""Evaluation over whole episodes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxalign.core.types import Env, PRNGKey
from jaxalign.saferl import offpolicy, onpolicy
from jaxalign.saferl.offpolicy import OffPolicyConfig
from jaxalign.saferl.onpolicy import OnPolicyConfig
from jaxalign.saferl.worlds import TASK_REWARD

Config = OnPolicyConfig | OffPolicyConfig
Act = Callable[[PRNGKey, Array], Array]


class Film(NamedTuple):
    """The first evaluated episode, step by step: environment states, rewards [T], costs [T, K]."""

    states: Any
    reward: Float[Array, " T"]
    cost: Float[Array, "T K"]


class Evaluation(NamedTuple):
    """Outcome of N episodes.

    Attributes:
        returns: sum of rewards, ``[N]``.
        costs: sums of costs, ``[N, K]``.
        lengths: steps, ``[N]``.
        film: the first episode.
    """

    returns: Float[np.ndarray, " N"]
    costs: Float[np.ndarray, "N K"]
    lengths: Int[np.ndarray, " N"]
    film: Film


def actor(env: Env, config: Config, state: Any, deterministic: bool = False) -> Act:
    """The policy of a learner's state on raw observations.

    Args:
        env: environment as the policy sees it, see `catalogue.world`.
        config: with which the learner was built.
        state: of the learner.
        deterministic: take the mean instead of a sample. Limits hold for the sampled policy, which is what is trained.
            Off-policy actors without entropy act without exploration noise either way.
    """
    if isinstance(config, OffPolicyConfig):
        return offpolicy.act(env, config, state, deterministic)
    return onpolicy.act(env, config, state, deterministic)


def evaluate(env: Env, act: Act, key: PRNGKey, episodes: int) -> Evaluation:
    """Runs `episodes` full episodes side by side, each from its own reset until it ends.

    Args:
        env: environment, with the costs to report.
        act: ``(key, obs) -> action`` of one environment.
        key: randomness.
        episodes: N.
    """

    def one_step(carry, _):
        state, obs, key, running = carry
        keys = jax.vmap(jax.random.split)(key)
        action = jax.vmap(act)(keys[:, 1], obs)
        state, after = jax.vmap(env.step)(state, action)
        reward = after.info.get(TASK_REWARD, after.reward)
        reward, cost = jnp.where(running, reward, 0.0), jnp.where(running[:, None], after.cost, 0.0)
        out = reward, cost, running, jax.tree.map(lambda x: x[0], _without_keys(state))
        return (state, after.obs, keys[:, 0], running & ~(after.terminated | after.truncated)), out

    @jax.jit
    def run(key):
        keys = jax.vmap(lambda k: jax.random.split(k, 2))(jax.random.split(key, episodes))
        state, obs = jax.vmap(env.reset)(keys[:, 0])
        start = state, obs, keys[:, 1], jnp.ones(episodes, bool)
        return jax.lax.scan(one_step, start, None, length=env.spec.horizon)[1]

    reward, cost, running, states = jax.device_get(run(key))
    film = Film(states, reward[:, 0], cost[:, 0])
    return Evaluation(reward.sum(0), cost.sum(0), running.sum(0), film)


def _without_keys(state: Any) -> Any:
    """The state with zeros in place of its random keys, which cannot leave the device as arrays."""

    def plain(x):
        return jnp.zeros(x.shape) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x

    return jax.tree.map(plain, state)
