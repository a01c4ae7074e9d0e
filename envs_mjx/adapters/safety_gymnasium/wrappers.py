"""Safety-Gymnasium's wrappers, around one environment or a vector of them.

A vector says so by ``is_vector_env``. Gymnasium's own wrappers know five values; put them in between with
`with_gymnasium_wrappers`.
"""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers.utils import RunningMeanStd

Step = tuple[Any, Any, Any, Any, Any, dict[str, Any]]


class _SafeWrapper(gymnasium.Wrapper):
    """A wrapper whose ``step`` returns six values; other attributes are those of the environment inside."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}.")
        return getattr(self.env, name)

    @property
    def is_vector_env(self) -> bool:
        """Whether the environment inside is a vector."""
        return getattr(self.env, "is_vector_env", False)

    def step(self, action: Any) -> Step:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step with six values."""
        return _six(self.env, action)

    def _rows(self, values: Any) -> np.ndarray:
        """`values` with a batch axis."""
        return np.asarray(values) if self.is_vector_env else np.asarray(values)[None]

    def _unrow(self, values: np.ndarray) -> Any:
        return values if self.is_vector_env else values[0]


class SafetyGymnasium2Gymnasium(_SafeWrapper):
    """Five values from six: the cost goes into ``info["cost"]``."""

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step with five values."""
        obs, reward, cost, terminated, truncated, info = _six(self.env, action)
        return obs, reward, terminated, truncated, info | {"cost": cost}


class Gymnasium2SafetyGymnasium(_SafeWrapper):
    """Six values from five: the cost is ``info["cost"]``."""

    def step(self, action: Any) -> Step:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step with six values.

        Raises:
            ValueError: there is no ``info["cost"]``.
        """
        obs, reward, terminated, truncated, info = self.env.step(action)
        if "cost" not in info:
            raise ValueError(f"{self.env}: its info has no 'cost', only {sorted(info)}; wrap an environment that has.")
        return obs, reward, info["cost"], terminated, truncated, info


def with_gymnasium_wrappers(env: gymnasium.Env, *wrappers: Callable[[Any], gymnasium.Env]) -> gymnasium.Env:
    """`env` in Gymnasium's own wrappers, the first innermost; it still returns six values."""
    for wrapper in (SafetyGymnasium2Gymnasium, *wrappers, Gymnasium2SafetyGymnasium):
        env = wrapper(env)
    return env


class SafeAutoResetWrapper(_SafeWrapper):
    """Begins the next episode in the step that ends one.

    The observation is then the first of the new episode; ``info`` is the reset's, with the last observation and info
    of the old episode as ``final_observation`` and ``final_info``.
    """

    def step(self, action: Any) -> Step:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step with six values."""
        obs, reward, cost, terminated, truncated, info = _six(self.env, action)
        if terminated or truncated:
            final = {"final_observation": obs, "final_info": info}
            obs, info = self.env.reset()
            info = info | final
        return obs, reward, cost, terminated, truncated, info


class SafeTimeLimit(_SafeWrapper):
    """Truncates episodes after `max_episode_steps`."""

    def __init__(self, env: gymnasium.Env, max_episode_steps: int):
        super().__init__(env)
        self._max_episode_steps, self._elapsed_steps = max_episode_steps, 0

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Begins an episode."""
        self._elapsed_steps = 0
        return self.env.reset(**kwargs)

    def step(self, action: Any) -> Step:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step with six values."""
        obs, reward, cost, terminated, truncated, info = _six(self.env, action)
        self._elapsed_steps += 1
        return obs, reward, cost, terminated, truncated or self._elapsed_steps >= self._max_episode_steps, info


class SafeRescaleAction(_SafeWrapper):
    """Actions in [`min_action`, `max_action`] are mapped linearly to the environment's range.

    Unlike the original, ``action_space`` is then the new range.
    """

    def __init__(self, env: gymnasium.Env, min_action: Any, max_action: Any):
        super().__init__(env)
        inner = env.action_space
        if not isinstance(inner, gymnasium.spaces.Box):
            raise ValueError(f"SafeRescaleAction needs a Box of actions; {env} has {inner}.")
        self._low, self._high = inner.low, inner.high
        self.min_action = np.broadcast_to(min_action, inner.shape).astype(inner.dtype)
        self.max_action = np.broadcast_to(max_action, inner.shape).astype(inner.dtype)
        if (self.min_action >= self.max_action).any():
            raise ValueError(f"SafeRescaleAction: min_action={min_action} must be below max_action={max_action}.")
        self.action_space = gymnasium.spaces.Box(self.min_action, self.max_action, dtype=inner.dtype.type)

    def step(self, action: Any) -> Step:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step with six values."""
        if np.shape(action) != self.action_space.shape:
            raise ValueError(
                f"SafeRescaleAction: an action needs shape {self.action_space.shape}, got {np.shape(action)}."
            )
        fraction = (action - self.min_action) / (self.max_action - self.min_action)
        return _six(self.env, self._low + (self._high - self._low) * fraction)


class SafeNormalizeObservation(_SafeWrapper):
    r"""Observations :math:`(o-\mu)/\sqrt{\sigma^2+\epsilon}` with the running moments of those seen so far."""

    def __init__(self, env: gymnasium.Env, epsilon: float = 1e-8):
        super().__init__(env)
        space = self.single_observation_space if self.is_vector_env else env.observation_space
        self.obs_rms, self.epsilon = RunningMeanStd(shape=space.shape, dtype=np.float64), epsilon

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Begins an episode."""
        obs, info = self.env.reset(**kwargs)
        return self._unrow(self.normalize(self._rows(obs))), info

    def step(self, action: Any) -> Step:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step with six values; ``final_observation`` is normalised, too."""
        obs, reward, cost, terminated, truncated, info = _six(self.env, action)
        obs = self._unrow(self.normalize(self._rows(obs)))
        if "final_observation" in info:
            final = info["final_observation"]
            info = info | {"original_final_observation": final, "final_observation": self._final(final)}
        return obs, reward, cost, terminated, truncated, info

    def _final(self, final: Any) -> Any:
        if not self.is_vector_env:
            return self.normalize(final[None])[0]
        ended, out = [i for i, obs in enumerate(final) if obs is not None], final.copy()
        for i, obs in zip(ended, self.normalize(np.stack(final[ended])), strict=True):
            out[i] = obs
        return out

    def normalize(self, obs: np.ndarray) -> np.ndarray:
        """Takes observations ``[B, O]`` into the moments, then normalises them."""
        self.obs_rms.update(obs)
        return (obs - self.obs_rms.mean) / np.sqrt(self.obs_rms.var + self.epsilon)


class _SafeNormalizeSum(_SafeWrapper):
    """Scales a signal by the running standard deviation of its discounted sum."""

    def __init__(self, env: gymnasium.Env, gamma: float = 0.99, epsilon: float = 1e-8):
        super().__init__(env)
        self.return_rms, self.gamma, self.epsilon = RunningMeanStd(shape=()), gamma, epsilon
        self.returns = np.zeros(self.num_envs if self.is_vector_env else 1)

    def _scaled(self, signal: Any, terminated: Any) -> Any:
        signal = self._rows(signal)
        self.returns = self.returns * self.gamma * (1 - self._rows(terminated)) + signal
        self.return_rms.update(self.returns)
        return self._unrow(signal / np.sqrt(self.return_rms.var + self.epsilon))


class SafeNormalizeReward(_SafeNormalizeSum):
    """Rewards over the running standard deviation of their discounted sum."""

    def step(self, action: Any) -> Step:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step with six values."""
        obs, reward, cost, terminated, truncated, info = _six(self.env, action)
        return obs, self._scaled(reward, terminated), cost, terminated, truncated, info


class SafeNormalizeCost(_SafeNormalizeSum):
    """Costs over the running standard deviation of their discounted sum."""

    def step(self, action: Any) -> Step:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step with six values."""
        obs, reward, cost, terminated, truncated, info = _six(self.env, action)
        return obs, reward, self._scaled(cost, terminated), terminated, truncated, info


class SafeUnsqueeze(_SafeWrapper):
    """One environment that looks like a vector of one: everything gets a leading axis."""

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        if self.is_vector_env:
            raise ValueError(f"SafeUnsqueeze: {env} is a vector already; leave the wrapper out.")

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Begins an episode."""
        obs, info = self.env.reset(**kwargs)
        return obs[None], _unsqueezed(info)

    def step(self, action: Any) -> Step:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step with six values."""
        *numbers, info = _six(self.env, action)
        obs, reward, cost, terminated, truncated = (np.asarray(x)[None] for x in numbers)
        return obs, reward, cost, terminated, truncated, _unsqueezed(info)


def _unsqueezed(info: dict[str, Any]) -> dict[str, Any]:
    return {name: value[None] if isinstance(value, np.ndarray) else value for name, value in info.items()}


def _six(env: gymnasium.Env, action: Any) -> Step:
    """The step of an environment with six values, which Gymnasium's types do not know."""
    result: Any = env.step(action)
    return result
