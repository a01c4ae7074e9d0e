"""Robots: a model, its kinematics and its sensors."""

from envs_mjx.agents.ant import ANT, ANT_V1
from envs_mjx.agents.base import ROBOT_MASKS, Agent
from envs_mjx.agents.car import CAR
from envs_mjx.agents.doggo import DOGGO
from envs_mjx.agents.point import POINT
from envs_mjx.agents.racecar import RACECAR

__all__ = ["ANT", "ANT_V1", "CAR", "DOGGO", "POINT", "RACECAR", "ROBOT_MASKS", "Agent"]
