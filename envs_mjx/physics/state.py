"""The state that every engine advances."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from envs_mjx.objects import Objects

SUBSTEPS = 10  # of the physics in one control step
HUGE = 1e10  # beyond which MuJoCo, too, calls a state bad


class PhysicsState(NamedTuple):
    """Generalised state of the robot and of ``D`` movable objects among ``B`` bodies, ``B - D`` of them fixed.

    Attributes:
        qpos: robot coordinates, then position (m) and quaternion (w, x, y, z) of every movable object, ``[nq + 7 D]``.
        qvel: robot velocities, then linear (world) and angular (body) velocity of those objects, ``[nv + 6 D]``.
        qacc: accelerations of the robot at this state under the last control, ``[nv]``.
        warmstart: accelerations of the last substep, where the contact solver starts, ``[nv + 6 D]``.
        touch: readings of the robot's touch sensors at this state, N, ``[T]``.
        home: poses of all bodies, movable ones first, at the start of the episode, ``[B, 7]``.
        steps: control steps since then; gives the time that drives orbiting objects.
    """

    qpos: Float[Array, "*batch Q"]
    qvel: Float[Array, "*batch N"]
    qacc: Float[Array, "*batch nv"]
    warmstart: Float[Array, "*batch N"]
    touch: Float[Array, "*batch T"]
    home: Float[Array, "*batch B 7"]
    steps: Int[Array, "*batch"]


class Bodies(NamedTuple):
    """The bodies of a world by number: movable ones first, in the order of the task, then fixed ones.

    Attributes:
        groups: groups in this order.
        starts: number of the first body of each group, and the number of all bodies.
        movable: how many bodies are movable.
        orbiting: whether each movable body orbits, ``[D]``.
        half: half-lengths of the box around each body, m, ``[B, 3]``.
    """

    groups: tuple[Objects, ...]
    starts: tuple[int, ...]
    movable: int
    orbiting: np.ndarray
    half: np.ndarray

    @classmethod
    def of(cls, objects: tuple[Objects, ...]) -> "Bodies":
        """Numbers the bodies of all groups that are no ghosts."""
        movable = tuple(group for group in objects if group.kind in ("free", "orbiting") and group.number)
        groups = movable + tuple(group for group in objects if group.kind == "fixed" and group.number)
        starts = tuple(np.cumsum([0, *(group.number for group in groups)]).tolist())
        each = [group for group in movable for _ in range(group.number)]
        orbiting = np.array([group.kind == "orbiting" for group in each], bool)
        half = np.array([group.half for group in groups for _ in range(group.number)], np.float32).reshape(-1, 3)
        return cls(groups, starts, len(each), orbiting, half)

    def slice(self, name: str) -> slice:
        """Numbers of the bodies of a group."""
        index = next(i for i, group in enumerate(self.groups) if group.name == name)
        return slice(self.starts[index], self.starts[index + 1])
