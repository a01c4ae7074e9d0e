"""Environment ids."""

import difflib

from envs_mjx import physics
from envs_mjx.agents import POINT
from envs_mjx.api import Env
from envs_mjx.navigation import Navigation
from envs_mjx.tasks import goal

_NAVIGATION = {f"SafetyPointGoal{level}-v0": (POINT, goal, level) for level in (0, 1, 2)}


def ids() -> tuple[str, ...]:
    """All environment ids, sorted."""
    return tuple(sorted(_NAVIGATION))


def make(env_id: str, engine: str | None = None) -> Env:
    """The environment registered under `env_id`.

    Args:
        env_id: one of `ids()`, named as in Safety-Gymnasium.
        engine: ``"mjx"`` or ``"mujoco"`` (see `envs_mjx.physics`); by default the faster on this platform.

    Raises:
        ValueError: unknown id (the message suggests the nearest) or engine.
    """
    return navigation(env_id, engine).env


def navigation(env_id: str, engine: str | None = None) -> Navigation:
    """The builder behind `make`, with the functions that parity checks call on recorded states."""
    if env_id not in _NAVIGATION:
        near = difflib.get_close_matches(env_id, ids(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"Unknown environment id {env_id!r}.{hint} Known ids: {', '.join(ids())}.")
    agent, task, level = _NAVIGATION[env_id]
    return Navigation(env_id, agent, task(level), engine or physics.default_engine())
