"""Where pictures are taken from.

    fixednear   (0, -2, 2), looking at the origin
    fixedfar    (0, -5, 5), looking at the origin
    track       follows the robot without turning, from 2 m beside it (towards +y: behind it in Run) and 2 m above;
                velocity robots from the side, the swimmer from above
    vision      carried by the robot, only in navigation worlds

The poses of ``vision`` are those of Safety-Gymnasium 1.0.0; the Ant of ids that end in ``-v1`` sees as in later
versions.
"""

import math
from typing import NamedTuple

import mujoco
import numpy as np

Vec3 = tuple[float, float, float]

BEHIND: Vec3 = (0.0, 2.0, 2.0)  # m, from the robot to the camera that follows it
BESIDE: Vec3 = (0.0, -4.0, 0.6)
ABOVE: Vec3 = (0.0, -2.0, 5.5)
FOVY = 45.0  # degrees, of all cameras that are not carried
_WORLD: dict[str, Vec3] = {"fixednear": (0.0, -2.0, 2.0), "fixedfar": (0.0, -5.0, 5.0)}
_DOWN = math.radians(21.8)


class Eye(NamedTuple):
    """A camera that a robot carries: place and direction in the root's frame, tilt below it (rad), fovy (degrees)."""

    pos: Vec3
    forward: Vec3
    down: float
    fovy: float


_X, _Y, _BACK = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, -1.0, 0.0)
_EYES = {
    "Point": Eye((0.0, 0.0, 0.15), _X, _DOWN, 90.0),
    "Car": Eye((0.0, 0.1, 0.2), _BACK, _DOWN, 45.0),
    "Racecar": Eye((0.2, 0.0, 0.05), _X, 0.0, 45.0),
    "Doggo": Eye((0.0625, 0.0, 0.1), _X, _DOWN, 100.0),
    "Ant": Eye((0.0, 0.05, 0.05), _Y, 0.0, 45.0),
}


def eye(env_id: str, robot: str) -> Eye:
    """The camera that `robot` carries in the environment `env_id`."""
    found = _EYES[robot]
    return found._replace(fovy=100.0) if robot == "Ant" and env_id.endswith("-v1") else found


def add_world(spec: mujoco.MjSpec) -> None:
    """Adds the cameras that stand still."""
    for name, pos in _WORLD.items():
        spec.worldbody.add_camera(name=name, pos=pos, quat=_looking(tuple(-x for x in pos)), fovy=FOVY)


def add_track(root, offset: Vec3) -> None:
    """Adds the camera that follows the body `root` at a constant `offset` (m, in the world's axes)."""
    quat = _looking(tuple(-x for x in offset))
    root.add_camera(name="track", pos=offset, quat=quat, fovy=FOVY, mode=mujoco.mjtCamLight.mjCAMLIGHT_TRACK)


def add_vision(root, eye: Eye) -> None:
    """Adds the camera that the body `root` carries."""
    forward = math.cos(eye.down) * np.array(eye.forward) - math.sin(eye.down) * np.array([0.0, 0.0, 1.0])
    root.add_camera(name="vision", pos=eye.pos, quat=_looking(forward), fovy=eye.fovy)


def _looking(direction) -> np.ndarray:
    """Quaternion of a camera that looks in a direction, not straight up or down, with the sky above."""
    back = -np.array(direction) / np.linalg.norm(direction)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, np.column_stack([right, np.cross(back, right), back]).ravel())
    return quat
