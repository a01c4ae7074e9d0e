"""What a task must provide, and the parts that tasks share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from envs_mjx.api import PRNGKey
from envs_mjx.objects import Objects
from envs_mjx.sensors import BodyMotion

Place = tuple[Float[Array, "2"], Bool[Array, ""]]


class World(NamedTuple):
    """A snapshot that rewards, costs and lidars are computed from.

    Attributes:
        agent: kinematics of the robot.
        pos: centres of the objects by group, ``[n, 3]``, m.
        velocity: linear velocities of the objects that can move, by group, ``[n, 3]``, m/s.
        touching: which objects the robot touches, for the groups in ``Task.touches``, ``[n]``.
        senses: the robot's own observations beyond its root's motion, ``[E]``.
        orbit_centre: where orbiting objects started, by group, ``[n, 3]``, m.
    """

    agent: BodyMotion
    pos: dict[str, Float[Array, "_ 3"]]
    velocity: dict[str, Float[Array, "_ 3"]]
    touching: dict[str, Bool[Array, " _"]]
    senses: Float[Array, " E"]
    orbit_centre: dict[str, Float[Array, "_ 3"]]


def redraw(key: PRNGKey, world: World, free_place: Callable[[PRNGKey], Place]) -> Place:
    """A reached goal is put in a random free place."""
    return free_place(key)


def nothing(*_: Any) -> tuple[()]:
    """A task whose reward depends on the present state alone."""
    return ()


def all_visible(memory: Any) -> dict[str, Bool[Array, ""]]:
    """Every lidar always works."""
    return {}


class Task(NamedTuple):
    """A task.

    Attributes:
        name: as in environment ids, with the level, e.g. ``"Goal1"``.
        objects: groups of objects in placement order after the robot.
        robot_area: where the robot may start with its keep-out, see `objects.Objects.area`.
        robot_keepout: radius that placement keeps free around it; None: the robot's own, m.
        lidars: groups seen by the pseudo-lidar, in the order of the observation.
        cost_names: one per entry of ``costs``.
        reward: ``(memory, world)`` to ``(reward, goal reached)``.
        costs: ``(memory, world)`` to raw costs ``[K]``; an entry above zero is a violation.
        remember: ``(memory, world, reached)`` to what the next reward needs; the memory is None after a reset.
        new_goal: ``(key, world, free_place)`` to the next place of the group ``"goal"`` and whether there was one,
            where ``free_place(key)`` draws a place that keeps its distance from everything; None: no goal.
        touches: groups of which a touch is rewarded or costs.
        visible: ``memory`` to which lidars work; those not named do.
        lidar_range: m.
        reward_clip: largest absolute reward of a step.
        horizon: episode length in steps.
    """

    name: str
    objects: tuple[Objects, ...]
    robot_area: float | tuple[float, float, float, float]
    lidars: tuple[str, ...]
    reward: Callable[[Any, World], tuple[Float[Array, ""], Bool[Array, ""]]]
    cost_names: tuple[str, ...] = ()
    costs: Callable[[Any, World], Float[Array, " K"]] = lambda memory, world: jnp.zeros(0)
    remember: Callable[[Any, World, Bool[Array, ""]], Any] = nothing
    new_goal: Callable[[PRNGKey, World, Callable[[PRNGKey], Place]], Place] | None = None
    touches: tuple[str, ...] = ()
    visible: Callable[[Any], dict[str, Bool[Array, ""]]] = all_visible
    robot_keepout: float | None = None
    lidar_range: float = 3.0
    reward_clip: float = 10.0
    horizon: int = 1000


def planar_distance(world: World, name: str) -> Float[Array, " n"]:
    """Planar distance (m) from the robot to every object of a group."""
    return jnp.linalg.norm(world.agent.pos[:2] - world.pos[name][:, :2], axis=1)


def inside(world: World, name: str, radius: float) -> Float[Array, ""]:
    """How deep (m) the robot's origin is inside the discs of `radius` around a group's objects, summed over them."""
    return jnp.sum(jnp.maximum(radius - planar_distance(world, name), 0.0))


def touched(world: World, name: str) -> Float[Array, ""]:
    """Number of objects of a group that the robot touches."""
    return jnp.sum(world.touching[name], dtype=jnp.float32)
