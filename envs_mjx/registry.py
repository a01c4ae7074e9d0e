"""Environment ids."""

import difflib

from envs_mjx import physics
from envs_mjx.agents import ANT, ANT_V1, CAR, DOGGO, POINT, RACECAR
from envs_mjx.api import Env
from envs_mjx.navigation import Navigation
from envs_mjx import tasks
from envs_mjx.velocity import ROBOTS, Velocity

_LEVELS = {tasks.goal: (0, 1, 2), tasks.push: (0, 1, 2), tasks.button: (0, 1, 2), tasks.circle: (0, 1, 2), tasks.run: (0,)}
_AGENTS = {"v0": (POINT, CAR, RACECAR, DOGGO, ANT), "v1": (ANT_V1,)}
_NAVIGATION = {
    f"Safety{agent.name}{task.__name__.capitalize()}{level}-{version}": (agent, task, level)
    for version, robots in _AGENTS.items()
    for agent in robots
    for task, levels in _LEVELS.items()
    for level in levels
}
_VELOCITY = {
    f"Safety{robot.name}Velocity-{version}": (robot, version) for robot in ROBOTS for version in robot.thresholds
}


def ids() -> tuple[str, ...]:
    """All environment ids, sorted."""
    return tuple(sorted({**_NAVIGATION, **_VELOCITY}))


def make(env_id: str, engine: str | None = None) -> Env:
    """The environment registered under `env_id`.

    Args:
        env_id: one of `ids()`, named as in Safety-Gymnasium.
        engine: ``"mjx"`` or ``"mujoco"`` (see `envs_mjx.physics`); by default the faster on this platform.

    Raises:
        ValueError: unknown id (the message suggests the nearest) or engine.
    """
    return builder(env_id, engine).env


def builder(env_id: str, engine: str | None = None) -> Navigation | Velocity:
    """What makes the environment, with the functions that parity checks call on recorded states; see `make`."""
    if env_id in _VELOCITY:
        robot, version = _VELOCITY[env_id]
        return Velocity(env_id, robot, version, engine or physics.default_engine())
    return navigation(env_id, engine)


def navigation(env_id: str, engine: str | None = None) -> Navigation:
    """The builder of a navigation environment."""
    if env_id.endswith(("Vision-v0", "Vision-v1")):
        raise ValueError(f"{env_id}: pictures are drawn on the host; make it with envs_mjx.vision.make({env_id!r}).")
    if env_id not in _NAVIGATION:
        near = difflib.get_close_matches(env_id, ids(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"Unknown environment id {env_id!r}.{hint} Known ids: {', '.join(ids())}.")
    agent, task, level = _NAVIGATION[env_id]
    return Navigation(env_id, agent, task(agent, level), engine or physics.default_engine())
