"""Films of an episode, as GIF or MP4."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from envs_mjx.render.episode import Frame, labels
from envs_mjx.render.flat import Flat
from envs_mjx.render.gl import GLUnavailable, canvas
from envs_mjx.render.stage import FLOOR_HALF, stage

RENDERERS = ("auto", "gl", "plot")
SUFFIXES = (".gif", ".mp4")
WIDTH, HEIGHT = 480, 360  # pixels, of films in perspective
_PALETTE = 128  # colours of a GIF

Draw = Callable[[int], np.ndarray]  # number of a frame -> RGB picture, shape (height, width, 3), uint8


def video(
    env_id: str,
    frames: Sequence[Frame],
    path: str | Path,
    fps: int = 25,
    renderer: str = "auto",
    camera: str | None = None,
) -> str:
    """Write a film.

    Args:
        env_id: one of `envs_mjx.ids()`.
        frames: what it shows, see `frames`.
        path: the file, replaced atomically; its suffix, .gif or .mp4, selects the format.
        fps: frames per second; a GIF rounds the time of a frame to 10 ms, at least 20.
        renderer: ``"gl"``: MuJoCo's, in perspective; ``"plot"``: matplotlib's, flat; ``"auto"``: MuJoCo's where this
            machine can.
        camera: of MuJoCo's renderer; None: ``"fixedfar"`` while the robot stays near the origin, else ``"track"``.

    Returns:
        Which renderer drew it: ``"gl"`` or ``"plot"``.

    Raises:
        ValueError: there are no frames, or the suffix, renderer, camera or id is unknown.
        GLUnavailable: the renderer ``"gl"`` cannot work here.
        ImportError: an MP4 is asked for without the package imageio-ffmpeg.
        OSError: the file cannot be written.
    """
    path = check(env_id, path, renderer, camera)
    if not frames:
        raise ValueError(f"no frames to write to {path}: record at least one time step")
    if renderer != "plot":
        try:
            _save(frames, _perspective(env_id, frames, camera), path, fps)
            return "gl"
        except GLUnavailable:
            if renderer == "gl":
                raise
    _save(frames, Flat(env_id, frames), path, fps)
    return "plot"


def check(env_id: str, path: str | Path, renderer: str = "auto", camera: str | None = None) -> Path:
    """The path of a film, if it can be made; see `video`.

    Raises:
        ValueError: the suffix, renderer, camera or id is unknown.
        GLUnavailable: the renderer ``"gl"`` cannot work here.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"cannot write a film to {path}: end its name in {' or '.join(SUFFIXES)}")
    if renderer not in RENDERERS:
        raise ValueError(f"unknown renderer {renderer!r}: choose one of {', '.join(RENDERERS)}")
    if camera is not None:
        stage(env_id).camera(camera)
    if renderer == "gl":
        canvas(env_id, WIDTH, HEIGHT)
    return path


def _perspective(env_id: str, frames: Sequence[Frame], camera: str | None) -> Draw:
    painter = canvas(env_id, WIDTH, HEIGHT)
    camera = camera or _camera(env_id, frames)

    def draw(index: int) -> np.ndarray:
        frame = frames[index]
        return painter.draw(frame.state, camera, frame.cost, labels=labels(frame))

    return draw


def _camera(env_id: str, frames: Sequence[Frame]) -> str:
    scene = stage(env_id)
    if not scene.model.nmocap:
        return "track"
    reach = max(np.abs(scene.pose(frame.state).qpos[:2]).max() for frame in frames)  # of the robot's root, m
    return "fixedfar" if reach < FLOOR_HALF else "track"


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
    source = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {fps} -i -".split()
    codec = ["-an", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "20", "-movflags", "+faststart"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *source, *codec, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    ) as process:  # in a session of its own, so that Ctrl-C ends this loop and not the encoder
        assert process.stdin is not None
        assert process.stderr is not None
        with contextlib.suppress(BrokenPipeError):  # then the encoder says why
            for index in range(len(frames)):
                process.stdin.write(draw(index).tobytes())
            process.stdin.close()
        complaint = process.stderr.read().decode(errors="replace").strip()
    if process.returncode:
        raise OSError(f"ffmpeg could not write {path}: {complaint or process.returncode}")
