"""Push{0,1,2}: push a box to the goal, stay out of hazards, do not touch pillars.

With ``B`` the distance from robot to box and ``G`` the distance from box to goal, both in three dimensions:
``reward = (B_before - B) 1[B_before > 0] + G_before - G + 1[G <= 0.3]``. A reached goal is drawn anew. Costs
(indicators):

    cost_hazards   sum over hazards of max(0, 0.3 - planar distance)   levels 1, 2
    cost_pillars   number of pillars touching the robot                level 2
"""

import jax.numpy as jnp

from envs_mjx import objects
from envs_mjx.agents import Agent
from envs_mjx.tasks.base import Task, World, inside, redraw, touched

GOAL_RADIUS = 0.3  # m
HAZARD_RADIUS = 0.3  # m

_HALF_EXTENT = (1.0, 1.5, 2.0)
_HAZARDS = (0, 2, 4)
_PILLARS = (0, 1, 4)


def _distances(world: World):
    box = world.pos["push_box"][0]
    return jnp.stack([jnp.linalg.norm(box - world.agent.pos), jnp.linalg.norm(box - world.pos["goal"][0])])


def _reward(last, world: World):
    now = _distances(world)
    reached = now[1] <= GOAL_RADIUS
    progress = last - now
    return jnp.where(last[0] > 0, progress[0], 0.0) + progress[1] + reached, reached


def _hazard_costs(memory, world: World):
    return inside(world, "hazards", HAZARD_RADIUS)[None]


def _all_costs(memory, world: World):
    return jnp.stack([inside(world, "hazards", HAZARD_RADIUS), touched(world, "pillars")])


def push(agent: Agent, level: int) -> Task:
    """The Push task at level 0, 1 or 2, with a box that suits the robot."""
    extent = _HALF_EXTENT[level]
    target = objects.goal(extent, radius=GOAL_RADIUS)
    box = objects.push_box(extent, agent.box_half, keepout=agent.box_half, density=agent.box_density)
    obstacles = ()
    if level:
        hazards = objects.hazards(_HAZARDS[level], extent, keepout=0.4, radius=HAZARD_RADIUS)
        obstacles = (hazards, objects.pillars(_PILLARS[level], extent))
    task = Task(
        name=f"Push{level}",
        objects=(target, *obstacles, box),
        robot_area=extent,
        lidars=("goal", *(group.name for group in obstacles), "push_box"),
        reward=_reward,
        remember=lambda memory, world, reached: _distances(world),
        new_goal=redraw,
    )
    if level == 1:
        return task._replace(cost_names=("cost_hazards",), costs=_hazard_costs)
    if level == 2:
        return task._replace(cost_names=("cost_hazards", "cost_pillars"), costs=_all_costs, touches=("pillars",))
    return task
