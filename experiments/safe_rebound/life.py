"""Phases of a life: an algorithm and an aim, from wherever the policy stands; all seeds at once."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from config import Config
from tqdm import tqdm

import envs_mjx
from jaxalign import dist, saferl
from jaxalign.core import prng
from jaxalign.core.types import Env, Learner
from jaxalign.saferl import onpolicy
from jaxalign.saferl.worlds import TASK_REWARD

PERTURBATIONS = ("unlimited", "speed")
"""The same task without the limit; and forward speed in place of the task (neutral: it knows no goal and no hazard)."""


class Mind(NamedTuple):
    """What a policy takes from one phase into the next; leaves ``[S, ...]``."""

    policy: Any
    critic: Any
    statistics: Any
    rollout: Any  # environments under way: new ones would all be young, and measure otherwise for a while
    episodes: Any

    @classmethod
    def of(cls, state: Any) -> "Mind":
        """That of a learner's state."""
        return cls(*(getattr(state, name) for name in cls._fields))


class Record(NamedTuple):
    """What is measured at every iteration, ``[P, S]``; the base begins with new environments, all young.

    Attributes:
        steps: environment steps, ``[P]``.
        returns: per episode, in the task's own reward.
        cost: per episode.
        kl: KL(policy || base) on situations that the base came into, nats.
    """

    steps: np.ndarray
    returns: np.ndarray
    cost: np.ndarray
    kl: np.ndarray


def speed(env: Env) -> Env:
    """The world with forward speed (m per step) as its reward; the task's own is kept for the records."""
    ends = np.cumsum([size for _, size in env.spec.obs_blocks])
    forward = int(ends[[name for name, _ in env.spec.obs_blocks].index("velocimeter")]) - 3

    def step(state, action):
        state, after = env.step(state, action)
        info = after.info | {TASK_REWARD: after.reward}
        return state, after._replace(reward=after.obs[forward] * env.spec.control_dt, info=info)

    return env._replace(step=step)


def to_arrays(mind: Mind) -> Mind:
    """On the host, random keys as their numbers."""
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.tree.map(lambda x: np.asarray(jax.random.key_data(x) if is_key(x) else x), mind)


def with_keys(mind: Mind, state: Any) -> Mind:
    """The inverse, for a state of that kind."""
    wrap = lambda x, like: jax.random.wrap_key_data(x) if jnp.issubdtype(like.dtype, jax.dtypes.prng_key) else x
    return jax.tree.map(wrap, mind, Mind.of(state))


class Life:
    """Trains phases and measures them."""

    def __init__(self, config: Config):
        self.config, self.mesh = config, dist.make_mesh(config.devices)
        self.env = saferl.select_costs(envs_mjx.make(config.env, config.engine), ("cost",))
        self.roots = jax.vmap(jax.random.key)(jnp.asarray(config.seeds, jnp.uint32))
        self.policy = onpolicy.gaussian_policy(self.env, config.sizes)
        self.normalise = onpolicy.normaliser(config.sizes)

    def phase(
        self,
        name: str,
        algorithm: str,
        steps: int,
        mind: Mind | None,
        stops: tuple[int, ...] = (),
        base: tuple[Mind, np.ndarray] | None = None,
    ) -> tuple[list[Mind], Record, np.ndarray]:
        """Trains `algorithm`, "ppo" or "ppo_lag", for so many steps, with fresh moments and multiplier.

        Args:
            name: of the phase: its random stream, and its aim if that is "speed".
            algorithm: what learns.
            steps: how many.
            mind: where to start; None: anew.
            stops: steps at which the mind is kept.
            base: policy and situations that the KL is measured with; None: it is not.

        Returns:
            Minds at the stops and at the end, the record, and situations that the last policy came into ``[S, B, O]``.
        """
        init, step, divergence, where = self._programs(algorithm, name.startswith("speed"))
        state = init(jax.vmap(lambda key: prng.stream(key, name))(self.roots))
        if mind is not None:
            state = jax.device_put(state._replace(**with_keys(mind, state)._asdict()), where)
        kept, rows, unit = [], [], self.config.sizes.steps_per_iteration
        ends = {self.config.iterations(stop) for stop in stops}
        total = self.config.iterations(steps)
        form = "{desc:<32}{bar} {percentage:3.0f} %  {elapsed} < {remaining}"
        for i in tqdm(range(1, total + 1), desc=name, bar_format=form):
            before = Mind.of(state)
            kl = divergence(before, *base) if base else jnp.zeros(len(self.config.seeds))
            kl = np.asarray(kl)  # before the state's memory is given away
            state, info = step(state)
            rows.append(((i - 1) * unit, np.asarray(info.episode_return), np.asarray(info.episode_cost[:, 0]), kl))
            if i in ends or i == total:
                kept.append(to_arrays(Mind.of(state)))
        return kept, Record(*map(np.array, zip(*rows, strict=True))), np.asarray(state.rollout.obs)

    def learner(self, algorithm: str, aim: bool = False) -> Learner:
        """Of the task, or of speed."""
        env, limit = (speed(self.env) if aim else self.env), (self.config.limit,)
        return saferl.make(algorithm, env, limit, total_iterations=10**6, config=self.config.sizes, mesh=self.mesh)

    @functools.cache  # noqa: B019 (lives as long as the program)
    def _programs(self, algorithm: str, aim: bool) -> tuple[Any, Any, Any, Any]:
        """Of all phases with that aim: begin, step, KL, and the places of a state's leaves."""
        learner = self.learner(algorithm, aim)
        begin = jax.vmap(learner.init)
        where = dist.shardings(jax.eval_shape(begin, self.roots), self.mesh, saferl.SPLIT, axis=1)
        step = jax.jit(jax.vmap(learner.step), in_shardings=(where,), out_shardings=(where, None), donate_argnums=0)
        return jax.jit(begin, out_shardings=where), step, jax.jit(self._divergence), where

    def _divergence(self, mind: Mind, base: Mind, situations: jax.Array) -> jax.Array:
        """KL(policy || base) [S], means over situations [S, B, O]."""

        def one(mind, base, obs):
            now, then = (self.policy.dist(x.policy, self.normalise(x.statistics, obs)) for x in (mind, base))
            return now.kl(then).mean()

        return jax.vmap(one)(mind, base, situations)
