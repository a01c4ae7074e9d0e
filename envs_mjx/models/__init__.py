"""Robots as numbers: one JSON file each, and what turns it into part of a MuJoCo model."""

from envs_mjx.models.loader import add_floor, attach, compile_alone, load, names, set_options
from envs_mjx.models.robot import (
    Actuator,
    Body,
    Geom,
    Joint,
    JointEquality,
    Options,
    RobotModel,
    Site,
    parse,
)

__all__ = [
    "Actuator",
    "Body",
    "Geom",
    "Joint",
    "JointEquality",
    "Options",
    "RobotModel",
    "Site",
    "add_floor",
    "attach",
    "compile_alone",
    "load",
    "names",
    "parse",
    "set_options",
]
