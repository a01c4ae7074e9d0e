"""Evaluation over whole episodes."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxalign.core.types import Env, PRNGKey
from jaxalign.saferl import offpolicy, onpolicy
from jaxalign.saferl.catalogue import Config
from jaxalign.saferl.offpolicy import OffPolicyConfig, OffPolicyState
from jaxalign.saferl.worlds import TASK_REWARD, bare

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


def learned(state: Any) -> Any:
    """The part of a learner's state that acts."""
    return offpolicy.learned(state) if isinstance(state, OffPolicyState) else onpolicy.learned(state)


def actor(env: Env, config: Config, state: Any, deterministic: bool = False) -> Act:
    """The policy of a learner's state on raw observations.

    Args:
        env: environment as the policy sees it, see `catalogue.world`.
        config: with which the learner was built.
        state: of the learner.
        deterministic: take the mean instead of a sample. Limits hold for the sampled policy, which is what is trained.
            Off-policy actors without entropy act without exploration noise either way.
    """
    return functools.partial(_chooser(env, config, deterministic), jax.device_get(learned(state)))


def _chooser(env: Env, config: Config, deterministic: bool):
    if isinstance(config, OffPolicyConfig):
        return offpolicy.actor(env, config, deterministic)
    return onpolicy.actor(env, config, deterministic)


def evaluate(env: Env, act: Act, key: PRNGKey, episodes: int) -> Evaluation:
    """Runs `episodes` full episodes side by side, each from its own reset until it ends.

    Args:
        env: environment as the policy sees it, with the costs to report.
        act: ``(key, obs) -> action`` of one environment.
        key: randomness.
        episodes: N.
    """
    return _collected(jax.device_get(jax.jit(lambda key: _play(env, act, key, episodes))(key)))


def evaluate_sweep(
    env: Env,
    config: Config,
    states: Any,
    key: PRNGKey,
    episodes: int,
    spread: Callable[[Callable], Callable] = lambda fun: fun,
) -> list[Evaluation]:
    """`evaluate` for every member of a sweep, in one program: every policy on the same episodes.

    Args:
        env: environment as the policies see it.
        config: with which the learner was built.
        states: of the learners, stacked on the first axis.
        key: randomness.
        episodes: N.
        spread: turns the function of learners and key into one that many devices compute.
    """
    choose = _chooser(env, config, False)

    def run(learned, key):
        return jax.vmap(lambda mine: _play(env, functools.partial(choose, mine), key, episodes))(learned)

    out = jax.device_get(jax.jit(spread(run))(learned(states), key))
    members = jax.tree.leaves(out)[0].shape[0]
    return [_collected(jax.tree.map(lambda x, i=i: x[i], out)) for i in range(members)]


def _play(env: Env, act: Act, key: PRNGKey, episodes: int):
    """Rewards, costs and whether the episode ran [T, N], and the states of the first."""

    def one_step(carry, _):
        state, obs, key, running = carry
        keys = jax.vmap(jax.random.split)(key)
        action = jax.vmap(act)(keys[:, 1], obs)
        state, after = jax.vmap(env.step)(state, action)
        reward = jnp.where(running, after.info.get(TASK_REWARD, after.reward), 0.0)
        cost = jnp.where(running[:, None], after.cost, 0.0)
        out = reward, cost, running, jax.tree.map(lambda x: x[0], _without_keys(bare(state)))
        return (state, after.obs, keys[:, 0], running & ~(after.terminated | after.truncated)), out

    keys = jax.vmap(lambda k: jax.random.split(k, 2))(jax.random.split(key, episodes))
    state, obs = jax.vmap(env.reset)(keys[:, 0])
    start = state, obs, keys[:, 1], jnp.ones(episodes, bool)
    return jax.lax.scan(one_step, start, None, length=env.spec.horizon)[1]


def _collected(out) -> Evaluation:
    reward, cost, running, states = out
    film = Film(states, reward[:, 0], cost[:, 0])
    return Evaluation(reward.sum(0), cost.sum(0), running.sum(0), film)


def _without_keys(state: Any) -> Any:
    """The state with zeros in place of its random keys, which cannot leave the device as arrays."""

    def plain(x):
        return jnp.zeros(x.shape) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x

    return jax.tree.map(plain, state)
