"""Run0: run along an avenue, as fast as possible, without leaving it.

The reward is the change of the potential ``-60 |(x, y) - (0, -1000)|``, so +60 per metre towards -y. In float32 the
difference of two such numbers would be rounding error; with ``d0, d1`` the distances before and after it is computed as
``60 (d0^2 - d1^2) / (d0 + d1)`` and ``d0^2 - d1^2`` from the step itself. Cost (an indicator):

    cost_out_of_boundary   |x| > 0.5
"""

import jax.numpy as jnp

from envs_mjx import objects
from envs_mjx.agents import Agent
from envs_mjx.tasks.base import Task, World

BOUNDARY = 0.5  # m
_TARGET = (0.0, -1e3)  # m
_SCALE = 60.0  # per metre
_LENGTH = 17.5  # m, half of the avenue
_START = (-0.2, 16.5, 0.2, 16.5)  # m


def _reward(last_xy, world: World):
    before, now = last_xy - jnp.array(_TARGET), world.agent.pos[:2] - jnp.array(_TARGET)
    nearer = jnp.sum((last_xy - world.agent.pos[:2]) * (before + now))
    return _SCALE * nearer / (jnp.linalg.norm(before) + jnp.linalg.norm(now)), jnp.bool_(False)


def _costs(memory, world: World):
    return (jnp.abs(world.agent.pos[:1]) > BOUNDARY).astype(jnp.float32)


def run(agent: Agent, level: int) -> Task:
    """The Run task; it has the level 0 only."""
    return Task(
        name=f"Run{level}",
        objects=(objects.walls(((BOUNDARY, 0.0), (-BOUNDARY, 0.0)), (0.05, _LENGTH)),),
        robot_area=_START,
        robot_keepout=0.0,
        lidars=(),
        reward=_reward,
        remember=lambda memory, world, reached: world.agent.pos[:2],
        cost_names=("cost_out_of_boundary",),
        costs=_costs,
        reward_clip=float("inf"),
        horizon=500,
    )
