"""Episodes driven from Python: compiled programs, seeds, time limits and checks, shared by the Gymnasium-like doors.

Episode ``n`` (from 0) of the seed ``s`` begins in ``env.reset(fold_in(jax.random.key(s), n))`` of the functional
environment; lane ``i`` of a batch is the single environment with the seed ``s + i``.
"""

import copy
import functools
import operator
import secrets
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32, UInt8, UInt32

import envs_mjx
from envs_mjx import lanes, render, transforms
from envs_mjx.api import Env, EnvSpec, TimeStep

SEEDS = 2**32  # number of seeds; jax.random.key would not tell larger ones apart


class EpisodeNotStartedError(RuntimeError):
    """A step or a picture was asked for while no episode is under way."""


class Outcome(NamedTuple):
    """How a step ended, before any reset, as NumPy arrays with or without a batch axis.

    Attributes:
        obs: ``[..., O]``.
        reward: ``[...]``.
        cost: indicator of the sum of all costs, ``[...]``.
        terminated: ``[...]``.
        truncated: by the environment or by an earlier time limit, ``[...]``.
        info: each cost by its name, their indicator ``cost_sum``, and what else the environment tells, ``[...]`` each.
    """

    obs: Float32[np.ndarray, "*batch O"]
    reward: Float32[np.ndarray, "*batch"]
    cost: Float32[np.ndarray, "*batch"]
    terminated: Bool[np.ndarray, "*batch"]
    truncated: Bool[np.ndarray, "*batch"]
    info: dict[str, np.ndarray]

    @property
    def over(self) -> Bool[np.ndarray, "*batch"]:
        """Whether the episode has ended."""
        return np.asarray(self.terminated | self.truncated)

    def lane_info(self, *lane: int) -> dict[str, Any]:
        """The info of one lane as Python numbers; flags, such as ``goal_met``, are there only when true."""
        return {name: value[lane].item() for name, value in self.info.items() if value.dtype != bool or value[lane]}


class Single:
    """One environment that plays one episode after another; a deep copy goes on identically.

    Args:
        env: an id of ``envs_mjx.ids()``, or an environment, such as one from `envs_mjx.transforms`.
        engine: see `envs_mjx.make`; only with an id.
        max_episode_steps: an earlier time limit than the environment's own, steps.

    Raises:
        ValueError: unknown id or engine, an engine for a ready environment, or a time limit below one step.
    """

    def __init__(self, env: str | Env, engine: str | None = None, max_episode_steps: int | None = None):
        self._reset, self._step, self.spec = _single(_made(env, engine))
        self.limit = _limit(self.spec, max_episode_steps)
        self._seed, self._episode, self._time = 0, -1, 0
        self._state, self._over = None, True
        self._obs, self._cost = np.zeros(0, np.float32), 0.0  # for pictures

    def reset(self, seed: Any = None) -> Float32[np.ndarray, " O"]:
        """Begins the first episode of `seed`, or without a seed the next one of the last (of a random one at first).

        Raises:
            ValueError: the seed is not in [0, 2**32).
        """
        if seed is not None or self._state is None:
            self._seed, self._episode = _checked_seed(secrets.randbelow(SEEDS) if seed is None else seed), -1
        self._episode, self._time, self._over = self._episode + 1, 0, False
        self._state, obs = self._reset(np.uint32(self._seed), np.int32(self._episode))
        self._obs, self._cost = np.asarray(obs), 0.0
        return self._obs.copy()

    def step(self, action: Any) -> Outcome:
        """One control step with an action ``[A]``.

        Raises:
            ValueError: the action has the wrong shape or is not finite.
            EpisodeNotStartedError: no episode is under way.
        """
        if self._over:
            why = "no episode has begun" if self._state is None else "the episode is over"
            raise EpisodeNotStartedError(f"{self.spec.id}: {why}; call reset() before the next step().")
        self._state, after = self._step(self._state, _checked_action(self.spec, action, ()))
        self._time += 1
        outcome = _outcome(self.spec, after)
        outcome = outcome._replace(truncated=np.asarray(outcome.truncated | (self._time >= self.limit)))
        self._obs, self._cost, self._over = outcome.obs, float(outcome.cost), bool(outcome.over)
        return outcome

    def picture(self, width: int, height: int, camera: str | None = None) -> UInt8[np.ndarray, "H W 3"]:
        """The present state as `envs_mjx.render.picture` draws it; its default camera if `camera` is None.

        Raises:
            EpisodeNotStartedError: no episode has begun.
            ValueError: unknown camera, or no pixels.
            envs_mjx.render.GLUnavailable: no OpenGL context can be made.
        """
        if self._state is None:
            raise EpisodeNotStartedError(f"{self.spec.id}: no episode has begun; call reset() before render().")
        env_id, state = transforms.base(self.spec.id, self._state)
        chosen = {} if camera is None else {"camera": camera}
        return render.picture(env_id, state, width, height, cost=self._cost, obs=self._obs, **chosen)

    def __deepcopy__(self, memo: dict) -> "Single":
        return copy.copy(self)  # states are immutable, and compiled programs cannot be copied


class Batch:
    """Many environments stepped by one compiled program; a lane whose episode ends begins its next in the same step.

    Args:
        env: as for `Single`.
        num_envs: number of lanes, ``B``.
        engine: as for `Single`.
        max_episode_steps: as for `Single`.

    Raises:
        ValueError: as for `Single`, or there are no lanes.
    """

    def __init__(self, env: str | Env, num_envs: int, engine: str | None = None, max_episode_steps: int | None = None):
        self._reset, self._step, self.spec = _batch(_made(env, engine))
        if not isinstance(num_envs, int | np.integer) or num_envs < 1:
            raise ValueError(
                f"{self.spec.id}: num_envs={num_envs}; a vector needs a whole number of environments above 0."
            )
        self.num_envs, self._lanes = num_envs, None
        self.limit = _limit(self.spec, max_episode_steps)

    def reset(self, seed: Any = None) -> Float32[np.ndarray, "B O"]:
        """Begins an episode in every lane.

        Args:
            seed: ``s`` gives lane ``i`` the seed ``s + i``; a sequence gives each its own; None, there or in place of
                all, continues with the next episode of the last seed.

        Raises:
            ValueError: a seed is out of range, or there are not as many as lanes.
        """
        given = self._seeds(seed)
        if self._lanes is None:
            seeds = np.array([secrets.randbelow(SEEDS) for _ in given], np.uint32)
            episodes = np.zeros(self.num_envs, np.int32)
        else:
            seeds, episodes = np.array(self._lanes.seed), np.asarray(self._lanes.episode) + 1
        for i, s in enumerate(given):
            if s is not None:
                seeds[i], episodes[i] = s, 0
        self._lanes, obs = self._reset(seeds, episodes)
        return np.array(obs)

    def step(self, actions: Any) -> tuple[Float32[np.ndarray, "B O"], Outcome]:
        """One control step with actions ``[B, A]``.

        Returns:
            The observations to act on next, which are those after the reset in lanes that ended, and the outcome.

        Raises:
            ValueError: the actions have the wrong shape or are not finite.
            EpisodeNotStartedError: no episode has begun.
        """
        if self._lanes is None:
            raise EpisodeNotStartedError(f"{self.spec.id}: no episode has begun; call reset() before step().")
        actions = _checked_action(self.spec, actions, (self.num_envs,))
        self._lanes, obs, after = self._step(self._lanes, actions, np.int32(self.limit))
        return np.array(obs), _outcome(self.spec, after)

    def _seeds(self, seed: Any) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if not isinstance(seed, (Sequence, np.ndarray)):
            return [_checked_seed(operator.index(seed) + i) for i in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(
                f"{self.spec.id}: {len(seed)} seeds for {self.num_envs} environments; pass one for each, or one s for "
                "s, s + 1 and so on."
            )
        return [None if s is None else _checked_seed(s) for s in seed]


class _Lane(NamedTuple):
    """One lane of a batch: its state, and which episode of which seed it is in, `time` steps on."""

    state: Any
    seed: UInt32[Array, "*batch"]
    episode: Int32[Array, "*batch"]
    time: Int32[Array, "*batch"]


def rows(values: Sequence[Any] | np.ndarray, mask: Bool[np.ndarray, " B"]) -> np.ndarray:
    """Object array with the rows of `values` where `mask` holds and None elsewhere, as vectors hand out final ones."""
    out = np.full(len(mask), None, dtype=object)
    for i in np.flatnonzero(mask).tolist():
        out[i] = values[i]
    return out


def masked(columns: dict[str, np.ndarray], present: Bool[np.ndarray, " B"]) -> dict[str, np.ndarray]:
    """Vector infos: each column, zero where not `present`, with its mask ``_name``; flags are present where true.

    A column that no lane has is left out.
    """
    infos = {}
    for name, values in columns.items():
        mask = present & values if values.dtype == bool else present
        if mask.any():
            infos |= {name: np.where(mask, values, np.zeros_like(values)), f"_{name}": mask.copy()}
    return infos


def bounds(spec: EnvSpec) -> tuple[Float[np.ndarray, " O"], Float[np.ndarray, " O"]]:
    """Lowest and highest observation: lidars lie in [0, 1], everything else is unbounded."""
    is_lidar = np.repeat([name.endswith("_lidar") for name, _ in spec.obs_blocks], [n for _, n in spec.obs_blocks])
    return np.where(is_lidar, 0.0, -np.inf), np.where(is_lidar, 1.0, np.inf)


def _made(env: str | Env, engine: str | None) -> Env:
    if isinstance(env, str):
        return _make(env, engine)
    if engine is not None:
        raise ValueError(f"{env.spec.id}: engine={engine!r} comes too late for a ready environment; leave it out.")
    return env


_make = functools.cache(envs_mjx.make)


def _key(seed, episode):
    return jax.random.fold_in(jax.random.key(seed), episode)


@functools.cache
def _single(env: Env) -> tuple[Callable, Callable, EnvSpec]:
    """Compiled ``reset(seed, episode)`` and ``step(state, action)``, shared by all environments of a process."""
    return jax.jit(lambda seed, episode: env.reset(_key(seed, episode))), jax.jit(env.step), env.spec


@functools.cache
def _batch(env: Env) -> tuple[Callable, Callable, EnvSpec]:
    """Compiled ``reset(seeds, episodes)`` and ``step(lanes, actions, limit)``; a reset costs only lanes that end."""

    def begin(seed, episode):
        state, obs = env.reset(_key(seed, episode))
        return _Lane(state, seed, episode, jnp.int32(0)), obs

    def step(lane: _Lane, action, limit):
        state, after = env.step(lane.state, action)
        lane = lane._replace(state=state, time=lane.time + 1)
        after = after._replace(truncated=after.truncated | (lane.time >= limit))
        over = after.terminated | after.truncated
        lane, obs = lanes.where(over, begin, (lane, after.obs), lane.seed, lane.episode + 1)
        return lane, obs, after

    return jax.jit(jax.vmap(begin)), jax.jit(jax.vmap(step, in_axes=(0, 0, None))), env.spec


def _outcome(spec: EnvSpec, timestep: TimeStep) -> Outcome:
    after: Any = jax.tree.map(np.array, jax.device_get(timestep))
    further = {name: value for name, value in after.info.items() if name != "cost"}
    info = dict(zip(spec.cost_names, np.moveaxis(after.cost, -1, 0))) | {"cost_sum": after.info["cost"]} | further
    return Outcome(after.obs, after.reward, after.info["cost"], after.terminated, after.truncated, info)


def _limit(spec: EnvSpec, max_episode_steps: int | None) -> int:
    if max_episode_steps is None:
        return spec.horizon
    if max_episode_steps < 1:
        raise ValueError(f"{spec.id}: max_episode_steps={max_episode_steps}; an episode has at least one step.")
    return min(max_episode_steps, spec.horizon)


def _checked_action(spec: EnvSpec, action: Any, batch: tuple[int, ...]) -> Float32[np.ndarray, "..."]:
    action, shape = np.asarray(action, np.float32), (*batch, spec.action_size)
    if action.shape != shape:
        raise ValueError(f"{spec.id}: the action has shape {action.shape}; pass an array of shape {shape}.")
    finite = np.isfinite(action)
    if not finite.all():
        bad = tuple(np.argwhere(~finite)[0].tolist())
        raise ValueError(
            f"{spec.id}: action{list(bad)} is {action[bad]}; pass finite numbers (a NaN often comes from a policy "
            "whose parameters diverged)."
        )
    return action


def _checked_seed(seed: Any) -> int:
    seed = operator.index(seed)
    if not 0 <= seed < SEEDS:
        raise ValueError(f"seed={seed} is out of range; pass an integer from 0 to {SEEDS - 1}.")
    return seed
