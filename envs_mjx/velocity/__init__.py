"""Robots that run on an endless floor and must not run too fast."""

from envs_mjx.velocity.robots import ROBOTS, Robot
from envs_mjx.velocity.velocity import Outcome, State, Velocity

__all__ = ["ROBOTS", "Outcome", "Robot", "State", "Velocity"]
