"""Videos of an episode: from above, drawn by matplotlib, or in perspective, drawn by MuJoCo.

The perspective needs OpenGL, the view from above does not; `video` takes what the machine can do.
"""

import contextlib
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import EllipseCollection, LineCollection, PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image

from envs_mjx.agents import POINT

if TYPE_CHECKING:
    import mujoco

Draw = Callable[[int], np.ndarray]  # index of a frame -> RGB picture, shape (height, width, 3), uint8

_ROBOT, _NOSE, _NOSE_AHEAD, _GOAL, _GOAL_HALF, _HAZARD, _VASE = 0.1, 0.05, 0.1, 0.3, 0.15, 0.2, 0.1  # metres
_ORANGE, _RED, _GREEN, _BLUE, _CYAN = "#E07B00", "#D81E2C", "#2CA02C", "#3B5BDB", "#17BECF"
_SQUARE = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)])  # outline of half size 1
_ARROW = np.array([(1.5, 0), (0.1, 0.6), (0.1, -0.6)])  # outline, pointing along +x, for a robot of radius 1
_FADE = [to_rgba("0.3", alpha) for alpha in np.linspace(0, 0.6, 50)]  # colours of the trail, oldest step first
_PALETTE = 128  # colours of a GIF
_STAGE = """
<mujoco>
  <visual><headlight ambient="0.45 0.45 0.45" diffuse="0.25 0.25 0.25"/></visual>
  <asset>
    <texture name="sky" type="skybox" builtin="flat" rgb1="1 1 1" rgb2="1 1 1" width="32" height="32"/>
    <texture name="floor" type="2d" builtin="checker" rgb1="0.95 0.95 0.95" rgb2="0.8 0.8 0.8" width="64" height="64"/>
    <material name="floor" texture="floor" texuniform="true" texrepeat="2 2"/>
  </asset>
  <worldbody>
    <light type="directional" dir="-0.2 0.2 -1" diffuse="0.35 0.35 0.35" specular="0.1 0.1 0.1" castshadow="false"/>
  </worldbody>
</mujoco>
"""


class Frame(NamedTuple):
    """What one time step of an episode looks like; numpy arrays, lengths in metres."""

    agent_xy: np.ndarray  # position of the robot, shape (2,)
    agent_yaw: float  # heading of the robot in radians, 0 along +x
    goal_xy: np.ndarray  # centre of the goal, shape (2,)
    hazards_xy: np.ndarray  # centres of the hazards, shape (hazards, 2)
    vases_pos: np.ndarray  # centres of the vases, shape (vases, 3)
    vases_quat: np.ndarray  # orientations of the vases, w x y z, shape (vases, 4)
    episode_return: float  # sum of the rewards of the episode so far
    episode_cost: float  # sum of the costs of the episode so far
    cost: float  # of this step; above 0 the robot violates a constraint and is drawn red


def frames(states: Any, reward: np.ndarray, cost: np.ndarray, stride: int = 1) -> list[Frame]:
    """Frames of a recorded navigation episode, every `stride`-th step.

    Args:
        states: states of `envs_mjx.navigation` stacked over time, [T].
        reward: of every step, [T].
        cost: of every step, [T]; the worst within a stride is shown.
        stride: steps per frame.
    """
    qpos = np.asarray(states.physics.qpos)
    boxes = qpos[:, POINT.nq :].reshape(len(qpos), -1, 7)
    returns, costs = np.cumsum(reward), np.cumsum(cost)
    return [
        Frame(
            agent_xy=qpos[t, :2],
            agent_yaw=float(qpos[t, 2]),
            goal_xy=np.asarray(states.points["goal"])[t, 0],
            hazards_xy=np.asarray(states.points["hazards"])[t],
            vases_pos=boxes[t, :, :3],
            vases_quat=boxes[t, :, 3:],
            episode_return=float(returns[t]),
            episode_cost=float(costs[t]),
            cost=float(cost[max(0, t - stride + 1) : t + 1].max()),
        )
        for t in range(0, len(qpos), stride)
    ]


class GLUnavailable(RuntimeError):  # noqa: N818
    """No OpenGL context can be made on this machine."""


def video(frames: Sequence[Frame], path: str | Path, fps: int = 25) -> str:
    """Write a video of one episode: in `perspective`, or `topdown` where there is no OpenGL.

    Args:
        frames: the episode, one frame per time step, all with as many hazards and vases.
        path: the file, replaced atomically; its suffix, .gif or .mp4, selects the format.
        fps: frames per second; a GIF rounds the time of a frame to 10 ms, at least 20.

    Returns:
        Which renderer drew it: "mujoco" or "matplotlib".

    Raises:
        ValueError: there are no frames, or the suffix is unknown.
        ImportError: an MP4 is asked for without the package imageio-ffmpeg.
    """
    try:
        perspective(frames, path, fps)
    except GLUnavailable:
        topdown(frames, path, fps)
        return "matplotlib"
    return "mujoco"


def topdown(frames: Sequence[Frame], path: str | Path, fps: int = 25, extent: float = 2.0) -> None:
    """Write a video of 448 x 480 pixels seen from above, without OpenGL.

    Args and errors are those of `video`, and `extent` is half the side, in metres, of the visible square around the
    origin.
    """
    path = _checked(frames, path)
    _save(frames, _Topdown(frames, extent), path, fps)


def perspective(frames: Sequence[Frame], path: str | Path, fps: int = 25, width: int = 480, height: int = 360) -> None:
    """Write a video of `width` x `height` pixels (even numbers for an MP4) in perspective, drawn by MuJoCo.

    Args and errors are those of `video`. The environment variable MUJOCO_GL selects the OpenGL library, as everywhere
    in MuJoCo; without it EGL is taken on Linux without a display, also when MuJoCo is imported already.

    Raises:
        GLUnavailable: no OpenGL context can be made.
    """
    path = _checked(frames, path)
    with _perspective(frames, width, height) as draw:
        _save(frames, draw, path, fps)


class _Topdown:
    """Draws a frame from above, moving the same artists every time."""

    def __init__(self, frames: Sequence[Frame], extent: float):
        self._frames = frames
        self._canvas = FigureCanvasAgg(Figure(figsize=(4.48, 4.8), dpi=100, facecolor="white"))
        axes = self._canvas.figure.add_axes((8 / 448, 8 / 480, 432 / 448, 432 / 480), facecolor="#F7F6F3")
        axes.set(xlim=(-extent, extent), ylim=(-extent, extent), xticks=[], yticks=[])
        axes.spines[:].set_color("0.75")
        grid = np.arange(np.ceil(-2 * extent), 2 * extent + 1) / 2  # a line every 0.5 m
        axes.vlines(grid, -extent, extent, color="0.88", linewidth=0.8)
        axes.hlines(grid, -extent, extent, color="0.88", linewidth=0.8)

        def discs(radius: float, **style: Any) -> EllipseCollection:
            size, at = 2 * radius, axes.transData
            return EllipseCollection(size, size, 0, units="xy", offsets=[(0, 0)], offset_transform=at, **style)

        self._hazards = discs(_HAZARD, facecolor=_BLUE, edgecolor=_BLUE, alpha=0.45)
        self._goal = discs(_GOAL, facecolor=_GREEN, edgecolor=_GREEN, alpha=0.45)
        self._vases = PolyCollection([], facecolor=_CYAN, edgecolor="#0B7A86")
        self._trail = LineCollection([], linewidth=2.5, capstyle="butt")
        self._robot = discs(_ROBOT, edgecolor="black", linewidth=0.8)
        self._arrow = PolyCollection([], facecolor="white", edgecolor="black")
        layers = (self._hazards, self._goal, self._vases, self._trail, self._robot, self._arrow)
        for above, layer in enumerate(layers, start=3):  # lines, as of the grid, are at 2
            layer.set_zorder(above)
            axes.add_collection(layer)
        self._texts = [
            axes.text(x, 1.018, "", transform=axes.transAxes, fontsize=11, ha=align)
            for x, align in ((0.0, "left"), (0.42, "left"), (1.0, "right"))
        ]

    def __call__(self, index: int) -> np.ndarray:
        frame = self._frames[index]
        violating = frame.cost > 0
        self._hazards.set_offsets(frame.hazards_xy)
        self._goal.set_offsets(frame.goal_xy)
        self._vases.set_verts(_corners(_SQUARE * _VASE, frame.vases_pos[:, :2], _yaw(frame.vases_quat)))
        self._robot.set_offsets(frame.agent_xy)
        self._robot.set_facecolor(_RED if violating else _ORANGE)
        self._arrow.set_verts(_corners(_ARROW * _ROBOT, frame.agent_xy[None], np.array([frame.agent_yaw])))
        track = np.array([past.agent_xy for past in self._frames[max(0, index - len(_FADE)) : index + 1]])
        self._trail.set_segments(list(np.stack([track[:-1], track[1:]], axis=1)))
        self._trail.set_color(_FADE[len(_FADE) + 1 - len(track) :])
        for text, label in zip(self._texts, _labels(frame, index), strict=True):
            text.set_text(" ".join(label))
        self._texts[1].set_color(_RED if violating else "black")
        self._canvas.draw()
        return np.asarray(self._canvas.buffer_rgba())[..., :3].copy()


def _yaw(quat: np.ndarray) -> np.ndarray:
    """Return the heading of each quaternion w, x, y, z in radians, shape (n, 4) -> (n,)."""
    w, x, y, z = np.moveaxis(quat, -1, 0)
    return np.arctan2(2 * (w * z + x * y), 1 - 2 * (y**2 + z**2))


def _corners(outline: np.ndarray, xy: np.ndarray, yaw: np.ndarray) -> list[np.ndarray]:
    """Turn and move an outline, shape (corners, 2), to each of the places, shapes (n, 2) and (n,)."""
    turned = outline @ (1, 1j) * np.exp(1j * yaw)[:, None]
    return list(xy[:, None] + np.stack([turned.real, turned.imag], axis=-1))


@contextlib.contextmanager
def _perspective(frames: Sequence[Frame], width: int, height: int) -> Iterator[Draw]:
    """Yield what draws a frame in perspective, as long as its OpenGL context is open."""
    with contextlib.ExitStack() as stack:
        with _gl_unavailable():
            import mujoco
        model = _scene(frames, width, height)
        with _gl_unavailable():
            context = _gl_context(width, height)
            stack.callback(context.free)
            resources = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
            stack.callback(resources.free)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, resources)
        data, option, camera = mujoco.MjData(model), mujoco.MjvOption(), mujoco.MjvCamera()
        scene, viewport = mujoco.MjvScene(model, maxgeom=1000), mujoco.MjrRect(0, 0, width, height)
        camera.lookat[:], camera.distance = (0, -0.15, 0), 2.4 * _reach(frames)
        camera.azimuth, camera.elevation = 90, -50
        robot = model.geom_bodyid == 1

        def draw(index: int) -> np.ndarray:
            frame = frames[index]
            data.mocap_pos, data.mocap_quat = _poses(frame)
            model.geom_rgba[robot] = to_rgba(_RED if frame.cost > 0 else _ORANGE)
            mujoco.mj_forward(model, data)
            mujoco.mjv_updateScene(model, data, option, None, camera, mujoco.mjtCatBit.mjCAT_ALL.value, scene)
            mujoco.mjr_render(viewport, scene, resources)
            font, corner = mujoco.mjtFont.mjFONT_NORMAL.value, mujoco.mjtGridPos.mjGRID_TOPLEFT.value
            names, values = zip(*_labels(frame, index), strict=True)
            mujoco.mjr_overlay(font, corner, viewport, "\n".join(names), "\n".join(values), resources)
            picture = np.empty((height, width, 3), np.uint8)
            mujoco.mjr_readPixels(picture, None, viewport, resources)
            return picture[::-1]

        yield draw


@contextlib.contextmanager
def _gl_unavailable() -> Iterator[None]:
    """Turn whatever goes wrong into GLUnavailable, since each OpenGL library fails in its own way."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # GLFW warns of a missing display before it fails
            yield
    except Exception as error:
        raise GLUnavailable(
            f"MuJoCo cannot open an OpenGL context ({type(error).__name__}: {error}): set MUJOCO_GL=egl or "
            "MUJOCO_GL=osmesa and install the Debian package libegl1 or libosmesa6"
        ) from error


def _gl_context(width: int, height: int) -> Any:
    """Make an OpenGL context current, of the library that MUJOCO_GL names or else of one that suits this machine."""
    library = os.environ.get("MUJOCO_GL", "").strip().lower()
    has_display = not sys.platform.startswith("linux") or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()
    if not library and not has_display:
        library = "egl"
    module = f"mujoco.{library}" if library in ("egl", "osmesa") else "mujoco.gl_context"
    context = importlib.import_module(module).GLContext(width, height)
    context.make_current()
    if type(context).__module__ == "mujoco.glfw":
        import glfw

        if not glfw.get_current_context():  # GLFW only warns, and MuJoCo aborts at its second try without a context
            raise RuntimeError("GLFW made no window")
    return context


def _scene(frames: Sequence[Frame], width: int, height: int) -> "mujoco.MjModel":
    """Build the floor and one mocap body for each thing, in the order of `_poses`."""
    import mujoco

    spec = mujoco.MjSpec.from_string(_STAGE)
    spec.visual.global_.offwidth, spec.visual.global_.offheight = width, height
    side = _reach(frames) + 0.5
    shapes = mujoco.mjtGeom
    spec.worldbody.add_geom(type=shapes.mjGEOM_PLANE, size=(side, side, 1), material="floor")

    def body(shape: mujoco.mjtGeom, size: tuple[float, ...], colour: str, alpha: float = 1) -> "mujoco.MjsBody":
        made = spec.worldbody.add_body(mocap=True)
        made.add_geom(type=shape, size=(*size, 0, 0)[:3], rgba=to_rgba(colour, alpha))
        return made

    robot = body(shapes.mjGEOM_SPHERE, (_ROBOT,), _ORANGE)
    robot.add_geom(type=shapes.mjGEOM_BOX, size=(_NOSE,) * 3, pos=(_NOSE_AHEAD, 0, 0), rgba=to_rgba(_ORANGE))
    body(shapes.mjGEOM_CYLINDER, (_GOAL, _GOAL_HALF), _GREEN, 0.25)
    for _ in frames[0].hazards_xy:
        body(shapes.mjGEOM_CYLINDER, (_HAZARD, 0.005), _BLUE, 0.35)
    for _ in frames[0].vases_pos:
        body(shapes.mjGEOM_BOX, (_VASE,) * 3, _CYAN)
    return spec.compile()


def _poses(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Return positions and quaternions of robot, goal, hazards and vases, shapes (things, 3) and (things, 4)."""
    flat = np.vstack([frame.agent_xy, frame.goal_xy, frame.hazards_xy])
    height = np.full(len(flat), 0.006)  # of the hazards, just above the floor
    height[:2] = _ROBOT, _GOAL_HALF
    quat = np.tile([1.0, 0, 0, 0], (len(flat), 1))
    quat[0] = np.cos(frame.agent_yaw / 2), 0, 0, np.sin(frame.agent_yaw / 2)
    return np.vstack([np.column_stack([flat, height]), frame.vases_pos]), np.vstack([quat, frame.vases_quat])


def _reach(frames: Sequence[Frame]) -> float:
    """Return how far from the origin things get along x or y, but at least 2 metres."""
    return max(2.0, *(float(np.abs(_poses(frame)[0][:, :2]).max()) for frame in frames))


def _labels(frame: Frame, index: int) -> list[tuple[str, str]]:
    return [("return", f"{frame.episode_return:.2f}"), ("cost", f"{frame.episode_cost:.0f}"), ("time step", f"{index}")]


def _checked(frames: Sequence[Frame], path: str | Path) -> Path:
    path = Path(path)
    if not frames:
        raise ValueError(f"no frames to write to {path}: record at least one time step")
    if path.suffix.lower() not in (".gif", ".mp4"):
        raise ValueError(f"cannot write a video to {path}: end its name in .gif or .mp4")
    return path


def _save(frames: Sequence[Frame], draw: Draw, path: Path, fps: int) -> None:
    """Write all frames beside `path`, then put the file in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        if path.suffix.lower() == ".gif":
            _write_gif(frames, draw, temporary, fps)
        else:
            _write_mp4(frames, draw, temporary, fps)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_gif(frames: Sequence[Frame], draw: Draw, path: Path, fps: int) -> None:
    """Write a GIF whose palette is taken from a few frames, among them the one of the highest cost."""
    costliest = int(np.argmax([frame.cost for frame in frames]))
    samples = {costliest, *np.linspace(0, len(frames) - 1, 4).astype(int).tolist()}
    montage = Image.fromarray(np.vstack([draw(index) for index in samples]))
    palette = montage.quantize(_PALETTE, method=Image.Quantize.MAXCOVERAGE, kmeans=1)  # keeps small spots of colour
    pictures = (
        Image.fromarray(draw(index)).quantize(palette=palette, dither=Image.Dither.NONE) for index in range(len(frames))
    )
    next(pictures).save(path, save_all=True, append_images=pictures, duration=max(10 * round(100 / fps), 20), loop=0)


def _write_mp4(frames: Sequence[Frame], draw: Draw, path: Path, fps: int) -> None:
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise ImportError(
            f"writing {path.suffix} needs the package imageio-ffmpeg: install it or write a .gif"
        ) from error
    height, width, _ = draw(0).shape
    writer = imageio_ffmpeg.write_frames(path, (width, height), fps=fps, macro_block_size=2, quality=7)
    writer.send(None)
    try:
        for index in range(len(frames)):
            writer.send(np.ascontiguousarray(draw(index)))
    finally:
        writer.close()
