"""Evaluation over whole episodes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxalign.core.types import Env, PRNGKey
from jaxalign.saferl.onpolicy import OnPolicyConfig, OnPolicyState, gaussian_policy, normaliser

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


def actor(env: Env, config: OnPolicyConfig, state: OnPolicyState, deterministic: bool = False) -> Act:
    """The policy of a learner's state on raw observations.

    Args:
        env: environment.
        config: with which the learner was built.
        state: of the learner.
        deterministic: take the mean instead of a sample. Limits hold for the sampled policy, which is what is trained.
    """
    policy, normalise = gaussian_policy(env, config), normaliser(config)
    params, statistics = jax.device_get((state.policy, state.statistics))

    def act(key, obs):
        dist = policy.dist(params, normalise(statistics, obs))
        return dist.mean if deterministic else dist.sample(key)

    return act


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
        reward, cost = jnp.where(running, after.reward, 0.0), jnp.where(running[:, None], after.cost, 0.0)
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
