"""Tasks: what is placed, what is rewarded, what costs."""

from envs_mjx.tasks.base import Task, World
from envs_mjx.tasks.goal import goal

__all__ = ["Task", "World", "goal"]
