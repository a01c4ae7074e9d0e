"""What both engines need to know of a robot that is simulated alone."""

from typing import NamedTuple

import mujoco
import numpy as np

from envs_mjx import models
from envs_mjx.models import RobotModel

SENSES = ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")
"""Per body (the world first) composite inertia and mass, ``[10]``, spatial velocity, ``[6]``; per degree of freedom the
actuators' force; per body the force of contacts, ``[6]``: MuJoCo's fields of these names, in its units."""

MEASURES = ("coordinates", "root", "mass")


class RobotSetup(NamedTuple):
    """A robot, how it is stepped, and what is read after a step; see `robot_alone.make`.

    Attributes:
        robot: the robot.
        frame_skip: physics steps in a control step.
        measure: whose speed counts.
        senses: whether `SENSES` are computed.
        free: whether the first joint is a free one.
        planar: how many coordinates, the first ones, say where the root is in the plane: 1 or 2.
    """

    robot: RobotModel
    frame_skip: int
    measure: str
    senses: bool
    free: bool
    planar: int

    @classmethod
    def of(cls, robot: RobotModel, frame_skip: int, measure: str, senses: bool) -> "RobotSetup":
        """Checks the arguments and derives the rest.

        Raises:
            ValueError: see `robot_alone.make`; or joints after the first that have more than one coordinate.
        """
        if measure not in MEASURES:
            raise ValueError(f"{robot.name}: unknown measure {measure!r}; choose one of: {', '.join(MEASURES)}.")
        kinds = [joint.type for joint in robot.joints]
        if {"free", "ball"} & {*kinds[1:]} or kinds[0] == "ball":
            raise ValueError(f"{robot.name}: only the first joint may have several coordinates; it must then be free.")
        free = kinds[0] == "free"
        root = [joint for joint in robot.joints if joint.body == robot.root and joint.type == "slide"]
        planar = 2 if free else sum(joint.axis[2] == 0 for joint in root)
        if not planar:
            raise ValueError(f"{robot.name}: its root cannot move in the plane; give it a free or a sliding joint.")
        return cls(robot, frame_skip, measure, senses, free, planar)

    @property
    def nv(self) -> int:
        """Degrees of freedom."""
        return self.robot.nv

    @property
    def sense_sizes(self) -> tuple[int, ...]:
        """Length of each of `SENSES`; empty without senses."""
        bodies = len(self.robot.bodies) + 1
        return (10 * bodies, 6 * bodies, self.nv, 6 * bodies) if self.senses else ()

    @property
    def body_mass(self) -> np.ndarray:
        """Share of each body, the world first, in the robot's mass."""
        mass = np.array([0.0, *(body.mass for body in self.robot.bodies)])
        return mass / mass.sum()

    def build(self, with_forces: bool = False) -> mujoco.MjModel:
        """The compiled model. Without islands: they change no result, but cost 5 %.

        Args:
            with_forces: add a sensor, because MuJoCo computes ``cfrc_ext`` only for those who need it.
        """
        spec = mujoco.MjSpec()
        spec.compiler.degree = False
        models.set_options(spec, self.robot)
        spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_ISLAND
        models.add_floor(spec, self.robot)
        models.attach(spec, self.robot)
        if with_forces:
            kind, body = mujoco.mjtSensor.mjSENS_FRAMELINACC, mujoco.mjtObj.mjOBJ_BODY
            spec.add_sensor(name="acceleration", type=kind, objtype=body, objname=self.robot.root)
        return spec.compile()
