"""Pictures in perspective, drawn by MuJoCo's own renderer on the CPU or GPU of the host.

It needs an OpenGL library that works without a screen:

    Debian   apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri   (EGL, taken by default without a display)
             apt-get install libosmesa6, and MUJOCO_GL=osmesa       (pure software)
    Colab    the first line; with an NVIDIA GPU the driver may bring EGL along (not tested)

MUJOCO_GL=egl, osmesa or glfw chooses one, as everywhere in MuJoCo. `envs_mjx.render.plot` needs none.
"""

import atexit
import contextlib
import functools
import importlib
import os
import sys
import threading
import warnings
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import mujoco
import numpy as np
from jaxtyping import UInt8

from envs_mjx.render.stage import Stage, stage

Label = tuple[str, str]

HALO_RADIUS = 0.25  # m, of the sphere around a robot that violates a constraint
_HALO = np.array([1.0, 0.0, 0.0, 0.5])
_RING_RADIUS, _RING_HEIGHT, _RING_STEP, _BEAD = 0.15, 0.5, 0.06, 0.025  # m, of the lidars' beads around the robot


class GLUnavailable(RuntimeError):  # noqa: N818
    """No OpenGL context can be made on this machine."""


def picture(
    env_id: str,
    state: Any,
    width: int = 256,
    height: int = 256,
    camera: str = "track",
    cost: float = 0.0,
    obs: Any = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """A picture of a state, in perspective.

    Args:
        env_id: one of `envs_mjx.ids()`.
        state: of that environment, one, not a batch.
        width: pixels.
        height: pixels.
        camera: ``"track"``, ``"fixednear"``, ``"fixedfar"`` or ``"vision"``, see `envs_mjx.render.cameras`.
        cost: of the last step; above 0 a red sphere surrounds the robot.
        obs: the observation, whose lidars are then drawn as rings of beads above the robot, brighter where something
            is near; None draws none.

    Returns:
        Red, green, blue, row 0 on top.

    Raises:
        GLUnavailable: no OpenGL context can be made; `plot` needs none.
        ValueError: unknown id or camera, no pixels, or a state or observation of another environment.
    """
    return canvas(env_id, width, height).draw(state, camera, cost, obs)


def canvas(env_id: str, width: int, height: int) -> "Canvas":
    """What draws an environment at a size; the last few are kept open, for each thread its own.

    Raises:
        GLUnavailable: no OpenGL context can be made.
        ValueError: unknown id, or no pixels.
    """
    if min(width, height) < 1:
        raise ValueError(f"{env_id}: a picture of {width} x {height} pixels cannot be drawn; choose 1 or more.")
    return _canvas(env_id, width, height, threading.get_ident())


@functools.lru_cache(maxsize=4)
def _canvas(env_id: str, width: int, height: int, thread: int) -> "Canvas":
    del thread
    return Canvas(stage(env_id), width, height)


class Canvas:
    """An OpenGL context that draws the states of one environment at one size."""

    def __init__(self, stage: Stage, width: int, height: int):
        self._stage, self._viewport = stage, mujoco.MjrRect(0, 0, width, height)
        model = stage.model
        model.vis.global_.offwidth, model.vis.global_.offheight = width, height
        with _gl_unavailable():
            self._context = gl_context(width, height)
            self._resources = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        weakref.finalize(self, _free, self._context, self._resources).atexit = False
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._resources)
        self._data, self._option, self._camera = mujoco.MjData(model), mujoco.MjvOption(), mujoco.MjvCamera()
        self._option.sitegroup[:] = 0
        self._scene = mujoco.MjvScene(model, maxgeom=1000)

    def draw(
        self, state: Any, camera: str, cost: float = 0.0, obs: Any = None, labels: Sequence[Label] = ()
    ) -> UInt8[np.ndarray, "H W 3"]:
        """A picture of a state, with names and values in its upper left corner; see `picture`."""
        model, data, scene = self._stage.model, self._data, self._scene
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED.value
        self._camera.fixedcamid = self._stage.camera(camera)
        self._stage.place(data, state)
        self._context.make_current()
        mujoco.mjv_updateScene(model, data, self._option, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL.value, scene)
        if cost > 0:
            _add_ball(scene, HALO_RADIUS, data.xpos[self._stage.root], _HALO)
        if obs is not None:
            _add_rings(scene, self._stage, data, np.asarray(obs))
        mujoco.mjr_render(self._viewport, scene, self._resources)
        if labels:
            font, corner = mujoco.mjtFont.mjFONT_NORMAL.value, mujoco.mjtGridPos.mjGRID_TOPLEFT.value
            names, values = zip(*labels, strict=True)
            mujoco.mjr_overlay(font, corner, self._viewport, "\n".join(names), "\n".join(values), self._resources)
        picture = np.empty((self._viewport.height, self._viewport.width, 3), np.uint8)
        mujoco.mjr_readPixels(picture, None, self._viewport, self._resources)
        return np.ascontiguousarray(picture[::-1])


def _add_rings(scene: mujoco.MjvScene, stage: Stage, data: mujoco.MjData, obs: np.ndarray) -> None:
    """Beads above the robot, a ring for each lidar, as opaque as the lidar's reading."""
    start = len(obs) - sum(bins for bins, _ in stage.rings.values())  # lidars end an observation
    if obs.ndim != 1 or start < 0:
        raise ValueError(f"{stage.id}: obs has shape {obs.shape}; pass one flat observation of this environment.")
    for level, (bins, colour) in enumerate(stage.rings.values()):
        angle = (np.arange(bins) + 0.5) * (2 * np.pi / bins)
        ring = _RING_RADIUS * np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
        centre = data.xpos[stage.root] + [0, 0, _RING_HEIGHT + _RING_STEP * level]
        beads = centre + ring @ data.xmat[stage.root].reshape(3, 3).T
        for place, reading in zip(beads, obs[start : start + bins], strict=True):
            _add_ball(scene, _BEAD, place, np.append(colour[:3], min(1.0, float(reading) + 0.1)))
        start += bins


def _add_ball(scene: mujoco.MjvScene, radius: float, place: np.ndarray, colour: np.ndarray) -> None:
    geom = scene.geoms[scene.ngeom]
    kind, upright = mujoco.mjtGeom.mjGEOM_SPHERE.value, np.eye(3).ravel()
    mujoco.mjv_initGeom(geom, kind, np.full(3, radius), place, upright, colour.astype(np.float32))
    scene.ngeom += 1


def gl_context(width: int, height: int) -> Any:
    """Make an OpenGL context current, of the library that MUJOCO_GL names or else of one that suits this machine."""
    library = os.environ.get("MUJOCO_GL", "").strip().lower()
    has_display = not sys.platform.startswith("linux") or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()
    if not library and not has_display:
        library = "egl"
    module = f"mujoco.{library}" if library in ("egl", "osmesa") else "mujoco.gl_context"
    context = importlib.import_module(module).GLContext(width, height)
    _close_at_exit()
    context.make_current()
    if type(context).__module__ == "mujoco.glfw":
        import glfw

        if not glfw.get_current_context():  # GLFW only warns, and MuJoCo aborts at its second try without a context
            raise RuntimeError("GLFW made no window")
    return context


@functools.cache
def _close_at_exit() -> None:
    """Has all contexts closed when Python ends, before the library closes itself."""
    atexit.register(_canvas.cache_clear)


def _free(context: Any, resources: Any) -> None:
    context.make_current()
    resources.free()
    context.free()


@contextlib.contextmanager
def _gl_unavailable() -> Iterator[None]:
    """Turn whatever goes wrong into GLUnavailable, since each OpenGL library fails in its own way."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # GLFW warns of a missing display before it fails
            yield
    except Exception as error:
        raise GLUnavailable(
            f"MuJoCo cannot open an OpenGL context ({type(error).__name__}: {error}): install the Debian packages "
            'libegl1, libegl-mesa0 and libgl1-mesa-dri, or libosmesa6 with MUJOCO_GL=osmesa, or draw with "plot", '
            "which needs no OpenGL."
        ) from error
