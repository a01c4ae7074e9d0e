"""Outlines of MuJoCo's shapes in a flat picture: the convex hull of what each covers along the line of sight."""

from collections.abc import Callable

import mujoco
import numpy as np
from jaxtyping import Float
from scipy.spatial import ConvexHull

Points = Float[np.ndarray, "n 3"]

_ANGLE = np.linspace(0, 2 * np.pi, 24, endpoint=False)
_RING = np.stack([np.cos(_ANGLE), np.sin(_ANGLE), 0 * _ANGLE], axis=1)
_CORNERS = np.stack(np.meshgrid(*[(-1.0, 1.0)] * 3), axis=-1).reshape(-1, 3)
_SEAM = np.array([(0.0, 0.0, -1.0), (0.0, 0.0, 1.0)])


def _cylinder(size: np.ndarray) -> Points:
    return np.concatenate([_RING * size[0] + end * size[1] for end in _SEAM])


def _ball(axes: tuple[int, int], radius: float) -> Points:
    """A circle of `radius` across the line of sight."""
    disc = np.zeros((len(_RING), 3))
    disc[:, axes] = radius * _RING[:, :2]
    return disc


_KINDS: dict[int, Callable[[np.ndarray], Points]] = {
    mujoco.mjtGeom.mjGEOM_BOX.value: lambda size: _CORNERS * size,
    mujoco.mjtGeom.mjGEOM_CYLINDER.value: _cylinder,
}


def outline(model: mujoco.MjModel, data: mujoco.MjData, geom: int, axes: tuple[int, int]) -> Float[np.ndarray, "k 2"]:
    """Corners of the shadow that a geom throws along the coordinate not in `axes`, m.

    Args:
        model: of the world.
        data: with the pose of the geom.
        geom: its number; a sphere, capsule, box, cylinder or convex mesh.
        axes: the two coordinates of the picture.
    """
    place, turn = data.geom_xpos[geom], data.geom_xmat[geom].reshape(3, 3)
    kind, size = int(model.geom_type[geom]), model.geom_size[geom]
    if kind == mujoco.mjtGeom.mjGEOM_SPHERE.value:
        return (place + _ball(axes, size[0]))[:, axes]
    if kind == mujoco.mjtGeom.mjGEOM_CAPSULE.value:
        ends = place + (_SEAM * size[1]) @ turn.T
        points = (ends[:, None] + _ball(axes, size[0])).reshape(-1, 3)
    elif kind == mujoco.mjtGeom.mjGEOM_MESH.value:
        start, number = (int(x[model.geom_dataid[geom]]) for x in (model.mesh_vertadr, model.mesh_vertnum))
        points = place + model.mesh_vert[start : start + number] @ turn.T
    else:
        points = place + _KINDS[kind](size) @ turn.T
    flat = points[:, axes]
    return flat[ConvexHull(flat, qhull_options="QJ").vertices]
