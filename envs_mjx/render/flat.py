"""Flat pictures, drawn by matplotlib without OpenGL: navigation worlds from above, velocity robots from the side."""

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from envs_mjx.render.episode import Frame, labels
from envs_mjx.render.gl import HALO_RADIUS
from envs_mjx.render.outline import outline
from envs_mjx.render.stage import Stage, stage

WIDTH, HEIGHT, HEADER = 448, 480, 40  # pixels; the header is above the drawing
MARGIN = 8  # pixels, on the other sides
HALF, FOLLOW = 2.0, 4.0  # m, half of the visible side: the usual one, and from where on the picture follows the robot
_FLAT_HALF = 1.7  # m, half of the visible side where robots are seen from the side
_NOSE = np.array([(0.15, 0), (0.01, 0.06), (0.01, -0.06)])  # m, outline of the arrow on a robot that heads along +x
_TRAIL = 50  # frames
_FADE = [to_rgba("0.3", alpha) for alpha in np.linspace(0, 0.6, _TRAIL)]  # oldest first
_RED = "#D81E2C"


def plot(env_id: str, state: Any, cost: float = 0.0) -> UInt8[np.ndarray, "H W 3"]:
    """A flat picture of a state, without OpenGL.

    Args:
        env_id: one of `envs_mjx.ids()`.
        state: of that environment, one, not a batch.
        cost: of the last step; above 0 a red circle surrounds the robot.

    Raises:
        ValueError: unknown id, or a state of another environment.
    """
    return Flat(env_id, [Frame(state, 0, 0.0, 0.0, cost)])(0)


class Flat:
    """Draws the frames of an episode, moving the same artists every time."""

    def __init__(self, env_id: str, frames: Sequence[Frame]):
        self._stage, self._frames = stage(env_id), frames
        model = self._stage.model
        self._data = mujoco.MjData(model)
        self._track = self._follow()
        self._half, self._follows = self._view()
        self._canvas = FigureCanvasAgg(Figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100, facecolor="white"))
        width, height = (WIDTH - 2 * MARGIN) / WIDTH, (HEIGHT - HEADER - MARGIN) / HEIGHT
        self._axes = self._canvas.figure.add_axes((MARGIN / WIDTH, MARGIN / HEIGHT, width, height))
        _decorate(self._axes, self._stage, self._track, self._half)
        self._look_at(np.zeros(2))
        robot = _is_robot(self._stage)
        solid = model.geom_type != mujoco.mjtGeom.mjGEOM_PLANE.value
        self._things, self._robot = np.flatnonzero(solid & ~robot), np.flatnonzero(solid & robot)
        self._halo = Circle((0, 0), HALO_RADIUS, facecolor=to_rgba("red", 0.35), edgecolor=_RED, zorder=6)
        self._axes.add_patch(self._halo)
        self._layers = PolyCollection([], linewidth=0.6), PolyCollection([], linewidth=0.6)
        self._trail = LineCollection([], linewidth=2.5, capstyle="butt")
        self._nose = PolyCollection([], facecolor="white", edgecolor="black")
        for above, layer in enumerate((self._layers[0], self._trail, self._layers[1], self._nose)):
            layer.set_zorder(3 + 2 * above)  # lines, as of the grid, are at 2
            self._axes.add_collection(layer)
        self._texts = [
            self._axes.text(x, 1.018, "", transform=self._axes.transAxes, fontsize=11, ha=align)
            for x, align in ((0.0, "left"), (0.42, "left"), (1.0, "right"))
        ]

    def __call__(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """The picture of a frame."""
        frame, axes = self._frames[index], self._stage.axes
        self._stage.place(self._data, frame.state)
        if self._follows:
            self._look_at(self._track[index])
        for layer, geoms in zip(self._layers, (self._things, self._robot), strict=True):
            self._fill(layer, geoms)
        violating = frame.cost > 0
        self._halo.set_center(self._data.xpos[self._stage.root][list(axes)].tolist())
        self._halo.set_visible(violating)
        self._nose.set_verts(self._arrow())
        past = self._track[max(0, index - _TRAIL) : index + 1]
        self._trail.set_segments(list(np.stack([past[:-1], past[1:]], axis=1)))
        self._trail.set_color(_FADE[_TRAIL + 1 - len(past) :])
        for text, label in zip(self._texts, labels(frame), strict=True):
            text.set_text(" ".join(label))
        self._texts[1].set_color(_RED if violating else "black")
        self._canvas.draw()
        return np.asarray(self._canvas.buffer_rgba())[..., :3].copy()

    def _follow(self) -> np.ndarray:
        """Where the robot is in every frame, [F, 2]."""
        track = np.empty((len(self._frames), 2))
        for i, frame in enumerate(self._frames):
            self._stage.place(self._data, frame.state)
            track[i] = self._data.xpos[self._stage.root][list(self._stage.axes)]
        return track

    def _view(self) -> tuple[float, bool]:
        """Half of the visible side, and whether the picture follows the robot."""
        if self._stage.axes != (0, 1) or self._stage.model.nmocap == 0:
            return _FLAT_HALF, True
        pose = self._stage.pose(self._frames[0].state)
        reach = max(np.abs(pose.pos[:, :2]).max(), np.abs(self._track).max()) + 0.4
        return (HALF, True) if reach > FOLLOW else (max(HALF, float(reach)), False)

    def _look_at(self, centre: np.ndarray) -> None:
        x, y = centre
        if self._stage.axes == (0, 2):  # the floor stays where it is
            y = 0.6 * self._half
        self._axes.set(xlim=(x - self._half, x + self._half), ylim=(y - self._half, y + self._half))

    def _fill(self, layer: PolyCollection, geoms: np.ndarray) -> None:
        """Puts shapes into a layer, nearest to the eye last."""
        axes, model = self._stage.axes, self._stage.model
        depth = 3 - sum(axes)
        towards = self._data.geom_xpos[geoms, depth] * (1 if depth == 2 else -1)
        order = geoms[np.argsort(towards, kind="stable")]
        layer.set_verts([outline(model, self._data, int(geom), axes) for geom in order])
        colours = model.geom_rgba[order]
        layer.set_facecolor(colours)
        layer.set_edgecolor(colours * (0.6, 0.6, 0.6, 1.0))

    def _arrow(self) -> list[np.ndarray]:
        """Outline of the arrow on a robot that has a nose."""
        if self._stage.forward is None:
            return []
        nose = self._data.xmat[self._stage.root].reshape(3, 3) @ self._stage.forward
        ahead = nose[:2] / max(float(np.hypot(*nose[:2])), 1e-9)
        return [self._data.xpos[self._stage.root][:2] + _NOSE @ np.array([ahead, (-ahead[1], ahead[0])])]


def _is_robot(stage: Stage) -> np.ndarray:
    """Which geoms belong to the robot."""
    return np.asarray(stage.model.body_rootid)[stage.model.geom_bodyid] == stage.root


def _decorate(axes: Axes, stage: Stage, track: np.ndarray, half: float) -> None:
    """Background, a line every 0.5 m, and the ground where it is seen from the side."""
    axes.set(xticks=[], yticks=[], facecolor="#F7F6F3")
    axes.spines[:].set_color("0.75")
    low, high = track.min(axis=0) - 2 * half, track.max(axis=0) + 2 * half
    low, high = np.minimum(low, -2 * half), np.maximum(high, 2 * half)
    for draw, i in ((axes.vlines, 0), (axes.hlines, 1)):
        lines = np.arange(np.ceil(2 * low[i]), 2 * high[i] + 1) / 2
        draw(lines, low[1 - i], high[1 - i], color="0.88", linewidth=0.8)
    if stage.axes == (0, 2):
        axes.axhspan(-100, float(stage.model.geom("floor").pos[2]), color="#DBD7C3", zorder=1)
