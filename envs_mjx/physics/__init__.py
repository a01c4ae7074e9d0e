"""Physics behind one seam: the only package that calls an engine."""

from envs_mjx.physics.contact import RobotShapes, robot_shapes, touching
from envs_mjx.physics.recorded import touches_within_step
from envs_mjx.physics.robot_alone import RobotPhysics, RobotState
from envs_mjx.physics.robot_alone import make as make_alone
from envs_mjx.physics.robot_setup import SENSES
from envs_mjx.physics.state import HUGE, SUBSTEPS, PhysicsState
from envs_mjx.physics.world import ENGINES, Physics, default_engine, make

__all__ = [
    "ENGINES",
    "HUGE",
    "SENSES",
    "SUBSTEPS",
    "Physics",
    "PhysicsState",
    "RobotPhysics",
    "RobotShapes",
    "RobotState",
    "default_engine",
    "make",
    "make_alone",
    "robot_shapes",
    "touches_within_step",
    "touching",
]
