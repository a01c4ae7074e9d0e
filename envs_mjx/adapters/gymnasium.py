"""Gymnasium's interface: importing this module registers every environment with Gymnasium.

    import gymnasium, envs_mjx.adapters.gymnasium
    env = gymnasium.make("SafetyPointGoal1-v0")                    # also as SafetyPointGoal1Gymnasium-v0
    envs = gymnasium.make_vec("SafetyPointGoal1-v0", num_envs=64)  # one compiled program for all of them

The compiled vector begins a new episode in the step that ends one (``AutoresetMode.SAME_STEP``) and draws no pictures.
``vectorization_mode="async"`` forks a process in which JAX has threads, and hangs; where it must be, pass
``vector_kwargs={"context": "spawn"}``. Gymnasium calls Ant's ``-v0`` out of date because there is a ``-v1``; it is the
robot of the published results, see ``docs/worlds.md``.

``step`` returns five values. ``info["cost"]`` is 1.0 if any constraint was violated; ``info["cost_hazards"]`` and so on
say which, and ``info["goal_met"]`` is there when a goal was reached, as in Safety-Gymnasium. The episode limit is the
environment's own (``env.unwrapped.env_spec.horizon``), so nothing is registered as ``max_episode_steps``.

Observations are float32, because that is the precision they are computed in. Render mode ``"human"`` is Gymnasium's own
window (pygame) around ``"rgb_array"``; Gymnasium says so in a warning.

Randomness: see `envs_mjx.adapters.host`. Interface: https://gymnasium.farama.org (1.x). For Safety-Gymnasium's six
values see `envs_mjx.adapters.safety_gymnasium`.
"""

from typing import Any, SupportsFloat

import numpy as np
from jaxtyping import Bool, Float32, UInt8

import envs_mjx
from envs_mjx.adapters import host
from envs_mjx.api import Env, EnvSpec

try:
    import gymnasium
    from gymnasium.vector import AutoresetMode, VectorEnv
    from gymnasium.vector.utils import batch_space
except ImportError as error:
    raise ImportError(f'{__name__} needs the package gymnasium (1.x): pip install "jaxalign[gymnasium]"') from error

Info = dict[str, Any]


def register() -> None:
    """Registers all of ``envs_mjx.ids()`` with Gymnasium, each also with ``Gymnasium`` before its version."""
    single, vector = f"{__name__}:Environment", f"{__name__}:VectorEnvironment"
    for env_id in envs_mjx.ids():
        name, version = env_id.rsplit("-", 1)
        for spelling in (env_id, f"{name}Gymnasium-{version}"):
            known = gymnasium.registry.get(spelling)
            if known is None or known.entry_point != single:
                gymnasium.register(spelling, entry_point=single, vector_entry_point=vector, kwargs={"env": env_id})


class Environment(gymnasium.Env[np.ndarray, np.ndarray]):
    """One environment with Gymnasium's interface; ``copy.deepcopy`` makes a twin that goes on identically.

    Args:
        env: one of ``envs_mjx.ids()``, or an environment, such as one from `envs_mjx.transforms`.
        render_mode: None or ``"rgb_array"``.
        width: of the picture, pixels.
        height: of the picture, pixels.
        camera_name: see `envs_mjx.render.picture`; None: its default.
        engine: see `envs_mjx.make`; only with an id.
        max_episode_steps: an earlier time limit than the environment's own, steps.

    Raises:
        ValueError: unknown id, engine or render mode, or a time limit below one step.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012
    dtype: type = np.float32  # of observations and actions

    def __init__(
        self,
        env: str | Env,
        render_mode: str | None = None,
        width: int = 256,
        height: int = 256,
        camera_name: str | None = None,
        engine: str | None = None,
        max_episode_steps: int | None = None,
    ):
        self._single = host.Single(env, engine, max_episode_steps)
        self.env_spec, self.max_episode_steps = self._single.spec, self._single.limit
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"{self.env_spec.id}: unknown render_mode {render_mode!r}; use None or 'rgb_array'.")
        self.metadata = self.metadata | {"render_fps": round(1 / self.env_spec.control_dt)}
        self.render_mode = render_mode
        self.observation_space, self.action_space = spaces(self.env_spec, self.dtype)
        self._picture = (width, height, camera_name)

    def reset(self, *, seed: Any = None, options: Info | None = None) -> tuple[np.ndarray, Info]:
        """Begins an episode: the first one of `seed`, or without a seed the next one of the last.

        Args:
            seed: integer in [0, 2**32).
            options: none exist.

        Returns:
            The observation, ``[O]``, and an empty dictionary.

        Raises:
            ValueError: the seed is out of range, or there are options.
        """
        no_options(self.env_spec, options)
        obs = self._single.reset(seed)
        super().reset(seed=seed)
        return obs.astype(self.dtype), {}

    def step(self, action: Any) -> tuple[np.ndarray, SupportsFloat, bool, bool, Info]:
        """One control step; actions are clipped to the action space.

        Args:
            action: ``[A]``.

        Returns:
            Observation ``[O]``, reward, terminated, truncated, info; see the module docstring.

        Raises:
            ValueError: the action has the wrong shape or is not finite.
            host.EpisodeNotStartedError: no episode is under way.
        """
        after = self._single.step(action)
        info = {"cost": float(after.cost)} | after.lane_info()
        return after.obs, float(after.reward), bool(after.terminated), bool(after.truncated), info

    def render(self) -> UInt8[np.ndarray, "H W 3"] | None:
        """The picture of the present state with render mode ``"rgb_array"``, else None.

        Raises:
            host.EpisodeNotStartedError: no episode has begun.
            ValueError: unknown camera, or no pixels.
            envs_mjx.render.GLUnavailable: no OpenGL context can be made.
        """
        if self.render_mode is None:
            gymnasium.logger.warn(f'{self.env_spec.id}: render() needs render_mode="rgb_array" from the start.')
            return None
        return self._single.picture(*self._picture)


class VectorEnvironment(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Many environments stepped by one compiled program, with Gymnasium's vector interface.

    An environment whose episode ends begins the next in the same step (``AutoresetMode.SAME_STEP``): its row of the
    observation is the first of the new episode, and ``infos["final_obs"]`` (an object array, None in other rows) and
    ``infos["final_info"]`` hold what the finished one ended with. ``infos["cost"]`` and its like belong to the step
    just made in every row; Gymnasium's own vectors would drop them from rows that were reset.

    Args:
        env: as for `Environment`.
        num_envs: how many, ``B``.
        engine: see `envs_mjx.make`; only with an id.
        max_episode_steps: an earlier time limit than the environment's own, steps.

    Raises:
        ValueError: as for `Environment`, or there are no environments.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012
    dtype: type = np.float32  # of observations and actions

    def __init__(
        self, env: str | Env, num_envs: int = 1, engine: str | None = None, max_episode_steps: int | None = None
    ):
        self._batch = host.Batch(env, num_envs, engine, max_episode_steps)
        self.env_spec, self.num_envs = self._batch.spec, num_envs
        self.single_observation_space, self.single_action_space = spaces(self.env_spec, self.dtype)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: Any = None, options: Info | None = None) -> tuple[np.ndarray, Info]:
        """Begins an episode in every environment.

        Args:
            seed: ``s`` gives environment ``i`` the seed ``s + i``; a sequence gives each its own; None, there or in
                place of all, continues with the next episode of the last seed.
            options: none exist.

        Returns:
            The observations, ``[B, O]``, and an empty dictionary.

        Raises:
            ValueError: a seed is out of range, there are not as many as environments, or there are options.
        """
        no_options(self.env_spec, options)
        return self._batch.reset(seed).astype(self.dtype), {}

    def step(
        self, actions: Any
    ) -> tuple[
        Float32[np.ndarray, "B O"], Float32[np.ndarray, " B"], Bool[np.ndarray, " B"], Bool[np.ndarray, " B"], Info
    ]:
        """One control step in every environment; actions are clipped to the action space.

        Args:
            actions: ``[B, A]``.

        Returns:
            Observations ``[B, O]``, rewards, terminated, truncated, infos; see the class docstring.

        Raises:
            ValueError: the actions have the wrong shape or are not finite.
            host.EpisodeNotStartedError: no episode has begun.
        """
        obs, after = self._batch.step(actions)
        columns, everyone = {"cost": after.cost} | after.info, np.ones(self.num_envs, bool)
        infos = host.masked(columns, everyone)
        if after.over.any():
            infos |= {"final_obs": host.rows(after.obs, after.over), "_final_obs": after.over}
            infos |= {"final_info": host.masked(columns, after.over), "_final_info": after.over.copy()}
        return obs, after.reward, after.terminated, after.truncated, infos


def spaces(spec: EnvSpec, dtype: Any = np.float32) -> tuple[gymnasium.spaces.Box, gymnasium.spaces.Box]:
    """Spaces of observations, unbounded but for lidars in [0, 1], and of actions."""
    low, high = (bound.astype(dtype) for bound in host.bounds(spec))
    action_low, action_high = (
        np.array(bound, np.float32).astype(dtype) for bound in (spec.action_low, spec.action_high)
    )
    return gymnasium.spaces.Box(low, high, dtype=dtype), gymnasium.spaces.Box(action_low, action_high, dtype=dtype)


def no_options(spec: EnvSpec, options: Info | None) -> None:
    """Refuses options of a reset.

    Raises:
        ValueError: there are some.
    """
    if options:
        raise ValueError(f"{spec.id}: reset has no option {', '.join(map(repr, options))}; leave options empty.")


register()
