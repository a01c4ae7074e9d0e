"""Robots: a model, its kinematics and the shapes that can touch things."""

from envs_mjx.agents.base import Agent, Shape
from envs_mjx.agents.point import POINT

__all__ = ["POINT", "Agent", "Shape"]
