"""What a task must provide."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float

from envs_mjx.layout import Placement
from envs_mjx.scene import FreeBox
from envs_mjx.sensors import BodyMotion


class World(NamedTuple):
    """A snapshot that rewards, costs and lidars are computed from.

    Attributes:
        agent: kinematics of the robot.
        points: planar positions of ghost objects by group, ``[n, 2]``, m.
        box_pos: centres of the pushable boxes, ``[V, 3]``, m.
        box_mat: their rotations, ``[V, 3, 3]``.
        box_velocity: their linear velocities in the world, ``[V, 3]``, m/s.
    """

    agent: BodyMotion
    points: dict[str, Float[Array, "_ 2"]]
    box_pos: Float[Array, "V 3"]
    box_mat: Float[Array, "V 3 3"]
    box_velocity: Float[Array, "V 3"]


class Task(NamedTuple):
    """A task.

    Attributes:
        name: as in environment ids, with the level, e.g. ``"Goal1"``.
        ghosts: groups of objects without dynamics, in placement order after the robot.
        boxes: placement of the pushable boxes (placed last); their number may be 0.
        box: their physical description.
        half_extent: half-width of the square world in which things are placed, m.
        lidars: groups seen by the pseudo-lidar, in the order of the observation.
        lidar_range: m.
        cost_names: one per entry of ``costs``.
        memory: ``world`` to what the next reward must remember.
        reward: ``(memory, world)`` to ``(reward, goal reached)``.
        costs: ``(world, touching [V])`` to raw costs ``[K]``; an entry above zero is a violation. ``touching`` says
            which boxes touch the robot.
        horizon: episode length in steps.
    """

    name: str
    ghosts: tuple[Placement, ...]
    boxes: Placement
    box: FreeBox
    half_extent: float
    lidars: tuple[str, ...]
    lidar_range: float
    cost_names: tuple[str, ...]
    memory: Callable[[World], Any]
    reward: Callable[[Any, World], tuple[Float[Array, ""], Bool[Array, ""]]]
    costs: Callable[[World, Bool[Array, " V"]], Float[Array, " K"]]
    horizon: int = 1000
