"""A world that nobody has: a Car pushes a box to the goal while gremlins orbit."""

import jax.numpy as jnp

import envs_mjx
from envs_mjx import objects, tasks
from envs_mjx.agents import CAR

REACHED = 0.3  # m


def distances(world):
    """From the car to the box, and from the box to the goal, m."""
    box = world.pos["push_box"][0, :2]
    return jnp.stack([tasks.planar_distance(world, "push_box")[0], jnp.linalg.norm(box - world.pos["goal"][0, :2])])


def reward(last, world):
    """Progress of the car to the box and of the box to the goal, and 1 for arriving."""
    now = distances(world)
    reached = now[1] <= REACHED
    return jnp.sum(last - now) + reached, reached


TASK = tasks.Task(
    name="OrbitingPush",
    objects=(objects.goal(1.5), objects.gremlins(3, 1.5), objects.push_box(1.5, CAR.box_half, 0.2, CAR.box_density)),
    robot_area=1.5,
    lidars=("goal", "gremlins", "push_box"),
    reward=reward,
    remember=lambda last, world, reached: distances(world),
    new_goal=tasks.redraw,
    cost_names=("cost_gremlins",),
    costs=lambda last, world: tasks.touched(world, "gremlins")[None],
    touches=("gremlins",),
)

envs_mjx.register("CarOrbitingPush-v0", CAR, TASK)
