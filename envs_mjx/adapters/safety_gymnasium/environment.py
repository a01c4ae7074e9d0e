"""One environment with Safety-Gymnasium's interface."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import HumanRendering, RenderCollection

from envs_mjx import transforms
from envs_mjx.adapters.gymnasium import Environment as GymnasiumEnvironment
from envs_mjx.adapters.gymnasium import Info
from envs_mjx.adapters.safety_gymnasium import wrappers
from envs_mjx.api import Env


class Environment(GymnasiumEnvironment):
    """One environment whose ``step`` returns six values, the cost after the reward.

    Args and errors are those of `envs_mjx.adapters.gymnasium.Environment`.
    """

    dtype: type = np.float64

    def step(self, action: Any) -> tuple[np.ndarray, float, float, bool, bool, Info]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One control step; actions are clipped to the action space.

        Args:
            action: ``[A]``.

        Returns:
            Observation ``[O]``, reward, cost (0.0 or 1.0), terminated, truncated, and info: ``cost_sum``, each cost by
            its name, and ``goal_met`` in the step that reached a goal.

        Raises:
            ValueError: the action has the wrong shape or is not finite.
            host.EpisodeNotStartedError: no episode is under way.
        """
        after = self._single.step(action)
        ends = bool(after.terminated), bool(after.truncated)
        return after.obs.astype(self.dtype), float(after.reward), float(after.cost), *ends, after.lane_info()


def make(
    id: str | Env,
    max_episode_steps: int | None = None,
    autoreset: bool = False,
    disable_env_checker: bool | None = None,
    render_mode: str | None = None,
    camera_id: int | None = None,
    **kwargs: Any,
) -> gymnasium.Env:
    """An environment like ``safety_gymnasium.make``'s.

    Args:
        id: one of ``envs_mjx.ids()``, or an environment, such as one from `envs_mjx.transforms`.
        max_episode_steps: an earlier time limit than the environment's own, steps.
        autoreset: begin the next episode in the step that ends one, see `wrappers.SafeAutoResetWrapper`.
        disable_env_checker: has no effect, nothing is checked at run time.
        render_mode: None, ``"rgb_array"``, ``"rgb_array_list"`` or ``"human"``.
        camera_id: not supported, use ``camera_name``.
        kwargs: ``width``, ``height``, ``camera_name``, ``engine``, see `Environment`.

    Raises:
        ValueError: unknown id, engine or render mode, a camera by number, or a time limit below one step.
    """
    name = id if isinstance(id, str) else id.spec.id
    if camera_id is not None:
        raise ValueError(f"{name}: camera_id={camera_id}; cameras have no numbers here, pass camera_name.")
    if render_mode not in (None, "rgb_array", "rgb_array_list", "human"):
        raise ValueError(
            f"{name}: unknown render_mode {render_mode!r}; use None, 'rgb_array', 'rgb_array_list' or 'human'."
        )
    inner = None if render_mode is None else "rgb_array"
    base = Environment(id, inner, max_episode_steps=max_episode_steps, **kwargs)
    env: gymnasium.Env = base
    known, _ = transforms.base(name, None)
    env.spec = EnvSpec(
        known, make, max_episode_steps=base.max_episode_steps, kwargs={"render_mode": render_mode, **kwargs}
    )
    if autoreset:
        env = wrappers.SafeAutoResetWrapper(env)
    if render_mode == "human":
        return HumanRendering(env)
    return RenderCollection(env) if render_mode == "rgb_array_list" else env
