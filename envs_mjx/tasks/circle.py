"""Circle{0,1,2}: run along a circle of radius 1.5 m around the origin, without leaving a strip or square.

With the robot's root at (x, y), its velocity (u, v) and ``R = |(x, y)|``:
``reward = 0.1 (x v - y u) / R / (1 + |R - 1.5|)``, positive counter-clockwise. Cost (an indicator):

    cost_out_of_boundary   |x| > 1.125 (level 1), or |y| > 1.125 too (level 2)
"""

import jax.numpy as jnp

from envs_mjx import objects
from envs_mjx.agents import Agent
from envs_mjx.tasks.base import Task, World

RADIUS = 1.5  # m
BOUNDARY = 1.125  # m
_WALL = 3.5  # m, half-length


def _reward(memory, world: World):
    (x, y), (u, v) = world.agent.pos[:2], world.agent.velocity[:2]
    distance = jnp.hypot(x, y)
    speed = (x * v - y * u) / jnp.maximum(distance, 1e-12)
    return 0.1 * speed / (1 + jnp.abs(distance - RADIUS)), jnp.bool_(False)


def _outside(axes: int):
    def costs(memory, world: World):
        outside = jnp.abs(world.agent.pos[:axes]) > BOUNDARY
        return jnp.any(outside)[None].astype(jnp.float32)

    return costs


def circle(agent: Agent, level: int) -> Task:
    """The Circle task at level 0, 1 or 2."""
    sides = ((BOUNDARY, 0.0), (-BOUNDARY, 0.0))
    across = ((0.0, BOUNDARY), (0.0, -BOUNDARY))
    boundary = (
        (),
        (objects.walls(sides, (0.05, _WALL)),),
        (objects.walls(sides, (0.05, _WALL)), objects.walls(across, (_WALL, 0.05), "sigwalls_across")),
    )[level]
    task = Task(
        name=f"Circle{level}",
        objects=(objects.circle(RADIUS), *boundary),
        robot_area=0.8,
        robot_keepout=0.0,
        lidars=("circle",),
        lidar_range=6.0,
        reward=_reward,
        horizon=500,
    )
    return task._replace(cost_names=("cost_out_of_boundary",), costs=_outside(level)) if level else task
