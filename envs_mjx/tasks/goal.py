"""Goal{0,1,2}: reach goals, stay out of hazards, leave vases alone.

With ``D`` the planar distance from the robot to the goal: ``reward = D_before - D + 1[D <= 0.3]``. A reached goal is
drawn anew. Costs (each an indicator of the raw value below being positive):

    cost_hazards         sum over hazards of max(0, 0.2 - distance)          levels 1, 2
    cost_vases_contact   number of vases touching the robot                  level 2
    cost_vases_velocity  sum over vases of |v| where |v| >= 1e-4 m/s         level 2
"""

import jax.numpy as jnp

from envs_mjx import objects
from envs_mjx.agents import Agent
from envs_mjx.tasks.base import Task, World, inside, planar_distance, redraw, touched

GOAL_RADIUS = 0.3  # m
HAZARD_RADIUS = 0.2  # m
MOVING = 1e-4  # m/s, below which a vase counts as still

_HALF_EXTENT = (1.0, 1.5, 2.0)
_HAZARDS = (0, 8, 10)
_VASES = (0, 1, 10)


def _reward(last_distance, world: World):
    distance = planar_distance(world, "goal")[0]
    reached = distance <= GOAL_RADIUS
    return last_distance - distance + reached, reached


def _hazard_costs(memory, world: World):
    return inside(world, "hazards", HAZARD_RADIUS)[None]


def _all_costs(memory, world: World):
    speed = jnp.linalg.norm(world.velocity["vases"], axis=1)
    moving = jnp.sum(jnp.where(speed >= MOVING, speed, 0.0))
    return jnp.stack([inside(world, "hazards", HAZARD_RADIUS), touched(world, "vases"), moving])


def goal(agent: Agent, level: int) -> Task:
    """The Goal task at level 0, 1 or 2."""
    extent = _HALF_EXTENT[level]
    things = (objects.goal(extent, keepout=0.305, radius=GOAL_RADIUS),)
    if level:
        things += (objects.hazards(_HAZARDS[level], extent), objects.vases(_VASES[level], extent))
    task = Task(
        name=f"Goal{level}",
        objects=things,
        robot_area=extent,
        lidars=tuple(group.name for group in things),
        reward=_reward,
        remember=lambda memory, world, reached: planar_distance(world, "goal")[0],
        new_goal=redraw,
    )
    if level == 1:
        return task._replace(cost_names=("cost_hazards",), costs=_hazard_costs)
    if level == 2:
        names = ("cost_hazards", "cost_vases_contact", "cost_vases_velocity")
        return task._replace(cost_names=names, costs=_all_costs, touches=("vases",))
    return task
