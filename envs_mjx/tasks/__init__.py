"""Tasks: what is placed, what is rewarded, what costs."""

from envs_mjx.tasks.base import Task, World, inside, planar_distance, redraw, touched
from envs_mjx.tasks.button import button
from envs_mjx.tasks.circle import circle
from envs_mjx.tasks.goal import goal
from envs_mjx.tasks.push import push
from envs_mjx.tasks.run import run

__all__ = ["Task", "World", "button", "circle", "goal", "inside", "planar_distance", "push", "redraw", "run", "touched"]
