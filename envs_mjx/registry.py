"""Environment ids."""

import difflib
import functools
import importlib
import importlib.util
import re
from pathlib import Path

from envs_mjx import physics, tasks
from envs_mjx.agents import ANT, ANT_V1, CAR, DOGGO, POINT, RACECAR, Agent
from envs_mjx.api import Env
from envs_mjx.navigation import Navigation
from envs_mjx.tasks import Task
from envs_mjx.velocity import ROBOTS, Velocity

_LEVELS = {
    tasks.goal: (0, 1, 2),
    tasks.push: (0, 1, 2),
    tasks.button: (0, 1, 2),
    tasks.circle: (0, 1, 2),
    tasks.run: (0,),
}
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


_OWN: dict[str, tuple[Agent, Task]] = {}


def ids() -> tuple[str, ...]:
    """All environment ids, sorted."""
    return tuple(sorted({**_NAVIGATION, **_VELOCITY, **_OWN}))


def navigation_ids() -> tuple[str, ...]:
    """Those of `ids` in which a robot moves among objects, sorted."""
    return tuple(sorted({**_NAVIGATION, **_OWN}))


def register(env_id: str, agent: Agent, task: Task) -> None:
    """Gives a world of one's own an id, which `make` and every program that takes an id then knows.

    Args:
        env_id: new name, for example ``"SafetyCarOrbit-v0"``.
        agent: robot, one of `envs_mjx.agents` or another.
        task: what is placed, rewarded and costs; see `envs_mjx.tasks.Task`.

    Raises:
        ValueError: the id is taken or no name and version, or the task is impossible: objects that cannot fit, a group
            that does not exist, numbers that make no sense, rewards or costs of the wrong shape.
    """
    if env_id in {**_NAVIGATION, **_VELOCITY}:
        raise ValueError(f"The id {env_id!r} is one of Safety-Gymnasium's; choose another.")
    if not re.fullmatch(r"\w+-v\d+", env_id, re.ASCII):
        raise ValueError(
            f"The id {env_id!r} is not a name of letters, digits and _ with a version, such as 'MyWorld-v0'."
        )
    if _OWN.get(env_id, (agent, task)) != (agent, task):
        why = "is taken by another world, or an earlier run of the same file"
        raise ValueError(f"The id {env_id!r} {why}; choose another.")
    Navigation(env_id, agent, task, physics.default_engine()).check()
    _OWN[env_id] = (agent, task)


def make(env_id: str, engine: str | None = None) -> Env:
    """The environment registered under `env_id`.

    Args:
        env_id: one of `ids()`, named as in Safety-Gymnasium; ``"FILE.py:ID"`` or ``"MODULE:ID"`` first imports what
            registers the id.
        engine: ``"mjx"`` or ``"mujoco"`` (see `envs_mjx.physics`); by default the faster on this platform.

    Raises:
        ValueError: unknown id (the message suggests the nearest) or engine, or a file that cannot be imported.
    """
    return builder(env_id, engine).env


def builder(env_id: str, engine: str | None = None) -> Navigation | Velocity:
    """What makes the environment, with the functions that parity checks call on recorded states; see `make`."""
    env_id = bare(env_id)
    if env_id in _VELOCITY:
        robot, version = _VELOCITY[env_id]
        return Velocity(env_id, robot, version, engine or physics.default_engine())
    return navigation(env_id, engine)


def bare(env_id: str) -> str:
    """The id alone, after importing the file or module before its colon, if there is one.

    Raises:
        ValueError: the file or module cannot be imported.
    """
    where, _, name = env_id.rpartition(":")
    if where:
        _import(where)
    return name


def navigation(env_id: str, engine: str | None = None) -> Navigation:
    """The builder of a navigation environment."""
    engine = engine or physics.default_engine()
    if env_id in _OWN:
        return Navigation(env_id, *_OWN[env_id], engine)
    if env_id in _NAVIGATION:
        agent, task, level = _NAVIGATION[env_id]
        return Navigation(env_id, agent, task(agent, level), engine)
    if env_id.endswith(("Vision-v0", "Vision-v1")):
        raise ValueError(f"{env_id}: pictures are drawn on the host; make it with envs_mjx.vision.make({env_id!r}).")
    near = difflib.get_close_matches(env_id, ids(), n=1)
    hint = f"Did you mean {near[0]!r}? envs_mjx.ids() names all." if near else f"Known ids: {', '.join(ids())}."
    raise ValueError(f"Unknown environment id {env_id!r}. {hint}")


@functools.cache
def _import(where: str) -> None:
    """Imports a module by its name, or a file by its path."""
    try:
        if not where.endswith(".py"):
            importlib.import_module(where)
            return
        spec = importlib.util.spec_from_file_location(Path(where).stem, where)
        if spec is None or spec.loader is None:
            raise ImportError("it is no Python file")
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    except ValueError:
        raise  # of `register`, which says what is wrong
    except Exception as error:  # whatever a file of the user's does wrong
        raise ValueError(
            f"{where} cannot be imported ({type(error).__name__}: {error}); name a Python file or module that runs."
        ) from error
