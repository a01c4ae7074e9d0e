"""Vectors of environments with Safety-Gymnasium's interface."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector.utils import batch_space
from jaxtyping import UInt8

from envs_mjx.adapters import host
from envs_mjx.adapters.gymnasium import Info, no_options, spaces
from envs_mjx.adapters.safety_gymnasium import environment
from envs_mjx.api import Env

Step = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, Info]


class VectorEnv(gymnasium.Env):
    """``B`` environments; an episode that ends is followed by the next in the same step.

    In such a row the observation is the first of the new episode, and other infos are absent (their mask ``_name`` is
    false); ``infos["final_observation"]`` and ``infos["final_info"]`` hold what the finished episode ended with, None
    in other rows.

    Args:
        num_envs: ``B``.
        observation_space: of one environment.
        action_space: of one environment.
    """

    is_vector_env = True
    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012

    def __init__(self, num_envs: int, observation_space: gymnasium.Space, action_space: gymnasium.Space):
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)


class SafetyVectorEnv(VectorEnv):
    """Environments stepped by one compiled program; see `VectorEnv`.

    Args:
        env: one of ``envs_mjx.ids()``, or an environment, such as one from `envs_mjx.transforms`.
        num_envs: how many, ``B``.
        engine: see `envs_mjx.make`; only with an id.
        max_episode_steps: an earlier time limit than the environment's own, steps.

    Raises:
        ValueError: unknown id or engine, no environments, or a time limit below one step.
    """

    def __init__(
        self, env: str | Env, num_envs: int = 1, engine: str | None = None, max_episode_steps: int | None = None
    ):
        self._batch = host.Batch(env, num_envs, engine, max_episode_steps)
        super().__init__(num_envs, *spaces(self._batch.spec, np.float64))

    def reset(self, *, seed: Any = None, options: Info | None = None) -> tuple[np.ndarray, Info]:
        """Begins an episode in every environment.

        Args:
            seed: ``s`` gives environment ``i`` the seed ``s + i``; a sequence gives each its own; None continues.
            options: none exist.

        Returns:
            The observations, ``[B, O]``, and an empty dictionary.

        Raises:
            ValueError: a seed is out of range, there are not as many as environments, or there are options.
        """
        no_options(self._batch.spec, options)
        return self._batch.reset(seed).astype(np.float64), {}

    def step(self, action: Any) -> Step:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One control step in every environment; actions are clipped to the action space.

        Args:
            action: ``[B, A]``.

        Returns:
            Observations ``[B, O]``, rewards, costs, terminated, truncated, infos.

        Raises:
            ValueError: the actions have the wrong shape or are not finite.
            host.EpisodeNotStartedError: no episode has begun.
        """
        obs, after = self._batch.step(action)
        columns = {name: x if x.dtype == bool else x.astype(np.float64) for name, x in after.info.items()}
        infos = host.masked(columns, ~after.over)
        if after.over.any():
            ended = {i: after.lane_info(i) for i in np.flatnonzero(after.over).tolist()}
            infos |= {
                "final_observation": host.rows(after.obs.astype(np.float64), after.over),
                "final_info": host.rows([ended.get(i) for i in range(self.num_envs)], after.over),
                "_final_observation": after.over.copy(),
                "_final_info": after.over.copy(),
            }
        obs, reward, cost = (x.astype(np.float64) for x in (obs, after.reward, after.cost))
        return obs, reward, cost, after.terminated, after.truncated, infos


class SafetySyncVectorEnv(VectorEnv):
    """Any environments with six values, stepped one after another; see `VectorEnv`.

    Args:
        env_fns: one function per environment that makes it.

    Raises:
        ValueError: there are none, or their spaces differ.
    """

    def __init__(self, env_fns: Iterable[Callable[[], gymnasium.Env]]):
        self.envs = [make() for make in env_fns]
        if not self.envs:
            raise ValueError("A vector needs at least one environment; pass one function for each.")
        first = self.envs[0]
        for env in self.envs[1:]:
            if (env.observation_space, env.action_space) != (first.observation_space, first.action_space):
                raise ValueError(f"{env} and {first} have different spaces; a vector needs equal ones.")
        super().__init__(len(self.envs), first.observation_space, first.action_space)

    def reset(self, *, seed: Any = None, options: Info | None = None) -> tuple[np.ndarray, Info]:
        """Begins an episode in every environment; see `SafetyVectorEnv.reset`."""
        if isinstance(seed, (Sequence, np.ndarray)):
            seeds = list(seed)
        else:
            seeds = [None if seed is None else int(seed) + i for i in range(self.num_envs)]
        if len(seeds) != self.num_envs:
            raise ValueError(f"{len(seeds)} seeds for {self.num_envs} environments; pass one for each, or one s.")
        starts = [env.reset(seed=s, options=options) for env, s in zip(self.envs, seeds, strict=True)]
        return np.stack([obs for obs, _ in starts]), _collected([info for _, info in starts])

    def step(self, action: Any) -> Step:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One control step in every environment; see `SafetyVectorEnv.step`."""
        if len(action) != self.num_envs:
            raise ValueError(f"{len(action)} actions for {self.num_envs} environments; pass one for each.")
        rows = [self._step(env, a) for env, a in zip(self.envs, action, strict=True)]
        obs, reward, cost, terminated, truncated, infos = zip(*rows, strict=True)
        ends = np.array(terminated, bool), np.array(truncated, bool)
        return np.stack(obs), np.array(reward, np.float64), np.array(cost, np.float64), *ends, _collected(infos)

    @staticmethod
    def _step(env: Any, action: Any) -> tuple[Any, ...]:
        obs, reward, cost, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            final = {"final_observation": obs, "final_info": info}
            obs, info = env.reset()
            info = info | final
        return obs, reward, cost, terminated, truncated, info

    def render(self) -> UInt8[np.ndarray, "H W 3"]:
        """The pictures of all environments, row by row in a grid that is as square as it can be."""
        pictures = np.stack([np.asarray(env.render()) for env in self.envs])
        count, height, width, _ = pictures.shape
        across = math.ceil(math.sqrt(count))
        down = math.ceil(count / across)
        padded = np.concatenate([pictures, np.zeros((across * down - count, height, width, 3), np.uint8)])
        return padded.reshape(down, across, height, width, 3).swapaxes(1, 2).reshape(down * height, across * width, 3)

    def close(self) -> None:
        """Closes all environments."""
        for env in self.envs:
            env.close()


class SafetyAsyncVectorEnv(SafetySyncVectorEnv):
    """The same as `SafetySyncVectorEnv`: an environment is a compiled program, and processes would not hasten it."""


def make(
    env_id: str | Env,
    num_envs: int = 1,
    asynchronous: bool = True,
    wrappers: Callable[[Any], gymnasium.Env] | Iterable[Callable[[Any], gymnasium.Env]] | None = None,
    disable_env_checker: bool | None = None,
    **kwargs: Any,
) -> VectorEnv:
    """A vector like ``safety_gymnasium.vector.make``'s: `SafetyVectorEnv`, or slower with wrappers or pictures.

    Args:
        env_id: one of ``envs_mjx.ids()``, or an environment, such as one from `envs_mjx.transforms`.
        num_envs: how many.
        asynchronous: has no effect.
        wrappers: one or several to put around each environment; these are then stepped one after another.
        disable_env_checker: has no effect, nothing is checked at run time.
        kwargs: as for `environment.make`; with a ``render_mode`` environments are stepped one after another, too.

    Raises:
        ValueError: as for `environment.make`, or there are no environments.
    """
    if wrappers is None and kwargs.get("render_mode") is None:
        used = {name: kwargs.pop(name, None) for name in ("engine", "max_episode_steps")}
        for name in ("render_mode", "camera_id", "camera_name", "width", "height", "autoreset"):
            kwargs.pop(name, None)  # there are no pictures, and episodes always begin anew
        if kwargs:
            raise TypeError(f"make() got an unexpected keyword argument {next(iter(kwargs))!r}")
        return SafetyVectorEnv(env_id, num_envs, **used)
    chain = [] if wrappers is None else [wrappers] if callable(wrappers) else list(wrappers)

    def create() -> gymnasium.Env:
        env = environment.make(env_id, **kwargs)
        for wrapper in chain:
            env = wrapper(env)
        return env

    return (SafetyAsyncVectorEnv if asynchronous else SafetySyncVectorEnv)([create] * num_envs)


def _collected(infos: Sequence[Info]) -> Info:
    """Arrays over the environments with masks ``_name``, of objects for what is not a number."""
    out: Info = {}
    for name in dict.fromkeys(name for info in infos for name in info):
        mask = np.array([name in info for info in infos])
        values = [info.get(name) for info in infos]
        kind = type(next(value for value, there in zip(values, mask, strict=True) if there))
        if issubclass(kind, (bool, int, float, np.number)):
            column = np.array([value if there else 0 for value, there in zip(values, mask, strict=True)], kind)
        else:
            column = host.rows(values, mask)
        out |= {name: column, f"_{name}": mask}
    return out
