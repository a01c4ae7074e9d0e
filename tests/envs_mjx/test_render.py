"""Videos show what the frames say, whichever renderer draws them."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image, ImageSequence

from envs_mjx import render
from envs_mjx.render import Frame, GLUnavailable, perspective, topdown, video

RED, ORANGE, CYAN = (216, 30, 44), (224, 123, 0), (23, 190, 207)


def frame(agent=(0.0, 0.0), yaw=0.0, cost=0.0, hazards=((-1.5, 1.5),), vases=((1.5, 1.5),), vase_yaw=0.0):
    quat = [np.cos(vase_yaw / 2), 0.0, 0.0, np.sin(vase_yaw / 2)]
    vases = np.reshape(vases, (-1, 2))
    return Frame(
        agent_xy=np.array(agent),
        agent_yaw=yaw,
        goal_xy=np.array([1.5, -1.5]),
        hazards_xy=np.reshape(hazards, (-1, 2)).astype(float),
        vases_pos=np.column_stack([vases, np.full(len(vases), 0.1)]),
        vases_quat=np.tile(quat, (len(vases), 1)),
        episode_return=1.25,
        episode_cost=3.0,
        cost=cost,
    )


def drawn(*frames, index=-1):
    return render._Topdown(frames, 2.0)(range(len(frames))[index])


def where(picture, colour, tolerance=12):
    """Return x and y in metres of the pixels of a colour in a picture from above, shape (pixels, 2)."""
    close = np.abs(picture.astype(int) - colour).max(axis=-1) <= tolerance
    close[:40] = False  # the header
    row, column = np.nonzero(close)
    return np.column_stack([(column + 0.5 - 8) / 108 - 2, 2 - (row + 0.5 - 40) / 108])


def pictures(path):
    with Image.open(path) as gif:
        return [np.asarray(picture.convert("RGB")) for picture in ImageSequence.Iterator(gif)]


def test_robot_is_where_the_frame_says_in_the_colour_of_its_cost():
    for agent in ((-1.0, 0.5), (0.7, -1.2)):
        spot = where(drawn(frame(agent)), ORANGE)
        assert np.abs(spot - agent).max() < 0.11
        assert 0.4 < len(spot) / (np.pi * 0.1**2 * 108**2) < 1  # a disc less the arrow and the edge
    assert len(where(drawn(frame()), RED)) == 0
    assert len(where(drawn(frame(cost=1.0)), ORANGE)) == 0
    assert np.abs(where(drawn(frame(cost=1.0)), RED)).max() < 0.11


@pytest.mark.parametrize(("yaw", "ahead"), [(0.0, (1, 0)), (np.pi / 2, (0, 1)), (-3 * np.pi / 4, (-0.707, -0.707))])
def test_arrow_points_along_the_heading(yaw, ahead):
    picture = drawn(frame(yaw=yaw))
    white = where(picture, (255, 255, 255), tolerance=0)
    white = white[np.abs(white).max(axis=1) < 0.3]
    assert white.mean(axis=0) @ ahead > 0.03
    assert abs(white.mean(axis=0) @ (-ahead[1], ahead[0])) < 0.01


def test_vases_turn_with_their_quaternion():
    straight, turned = (np.ptp(where(drawn(frame(vase_yaw=yaw)), CYAN)[:, 0]) for yaw in (0.0, np.pi / 4))
    assert straight == pytest.approx(0.2 - 0.03, abs=0.02)  # less the edge
    assert turned == pytest.approx(straight * np.sqrt(2), abs=0.02)


def test_trail_fades_and_follows_the_track():
    track = [frame((x, 0.0)) for x in np.linspace(-1.5, 1.0, 50)]
    line = drawn(*track)[40 + 216, :].astype(int).sum(axis=-1)
    old, recent = (line[int(8 + (x + 2) * 108)] for x in (-1.2, 0.7))
    assert recent < old - 100
    assert drawn(*track, index=0).shape == (480, 448, 3)


def test_nothing_to_avoid_is_drawn_too():
    assert len(where(drawn(frame(hazards=(), vases=())), CYAN)) == 0


def test_gif_has_the_frames_in_order_and_its_palette_keeps_the_violation(tmp_path):
    frames = [frame((-1.5 + 0.1 * i, 0.0), cost=float(i == 13)) for i in range(30)]
    topdown(frames, tmp_path / "new" / "run.gif", fps=20)
    shown = pictures(tmp_path / "new" / "run.gif")
    assert len(shown) == 30
    for i, picture in enumerate(shown):
        spot = where(picture, RED if i == 13 else ORANGE, tolerance=40)
        assert spot.mean(axis=0) == pytest.approx(frames[i].agent_xy, abs=0.06)
    with Image.open(tmp_path / "new" / "run.gif") as gif:
        assert gif.info["duration"] == 50
    assert os.listdir(tmp_path / "new") == ["run.gif"]


def test_250_frames_are_quick_and_small(tmp_path):
    rng = np.random.default_rng(0)
    hazards, begin = rng.uniform(-1.8, 1.8, (8, 2)), time.process_time()
    frames = [frame((np.cos(i / 40), np.sin(i / 25)), i / 30, hazards=hazards) for i in range(250)]
    topdown(frames, tmp_path / "run.gif")
    assert time.process_time() - begin < 15
    assert (tmp_path / "run.gif").stat().st_size < 2e6


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:os.fork")
def test_mp4_is_written(tmp_path):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    topdown([frame()] * 10, tmp_path / "run.mp4", fps=5)
    reader = imageio_ffmpeg.read_frames(str(tmp_path / "run.mp4"))
    assert next(reader)["source_size"] == (448, 480)
    picture = np.frombuffer(next(reader), np.uint8).reshape(480, 448, 3)
    reader.close()
    assert np.abs(where(picture, ORANGE, tolerance=40).mean(axis=0)).max() < 0.05


def test_mp4_without_its_package_says_which(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ImportError, match="imageio-ffmpeg"):
        topdown([frame()], tmp_path / "run.mp4")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("write", [video, topdown, perspective])
def test_wrong_arguments_are_refused(write, tmp_path):
    with pytest.raises(ValueError, match="no frames"):
        write([], tmp_path / "run.gif")
    with pytest.raises(ValueError, match=r"\.gif or \.mp4"):
        write([frame()], tmp_path / "run.avi")


def test_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "run.gif"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="broadcast"):
        topdown([frame(), frame()._replace(vases_pos=np.zeros((3, 3)), vases_quat=np.ones((2, 4)))], path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["run.gif"]


def test_perspective_shows_place_and_violation(tmp_path):
    try:
        perspective([frame((-1, 0)), frame((1, 0.0), cost=1.0), frame((1, 0.8))], tmp_path / "run.gif")
    except GLUnavailable as error:
        pytest.skip(str(error))
    shown = [picture[90:].astype(int) for picture in pictures(tmp_path / "run.gif")]  # below the numbers
    is_red, is_orange = (
        [(p[..., 0] > 120) & (p[..., 2] < 60) & (low <= p[..., 1]) & (p[..., 1] < high) for p in shown]
        for low, high in ((0, 50), (60, 140))
    )
    assert [r.sum() > 30 for r in is_red] == [False, True, False]
    assert [o.sum() > 30 for o in is_orange] == [True, False, True]
    assert shown[0].shape == (270, 480, 3)
    assert np.nonzero(is_orange[0])[1].max() < 240 < np.nonzero(is_red[1])[1].min()
    assert np.nonzero(is_orange[2])[0].max() < np.nonzero(is_red[1])[0].min()


def test_video_says_which_renderer_drew_it(tmp_path, monkeypatch):
    def no_context(width, height):
        raise OSError("no driver")

    monkeypatch.setattr(render, "_gl_context", no_context)
    with pytest.raises(GLUnavailable, match=r"no driver.*MUJOCO_GL=egl.*libegl1 or libosmesa6"):
        perspective([frame()], tmp_path / "run.gif")
    assert video([frame()], tmp_path / "run.gif") == "matplotlib"
    monkeypatch.setattr(render, "perspective", topdown)
    assert video([frame()], tmp_path / "run.gif") == "mujoco"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere GLFW needs no DISPLAY")
@pytest.mark.parametrize("library", ["disable", "glfw"])
def test_without_opengl_the_fallback_is_silent_every_time(tmp_path, library):
    code = (
        "import numpy as np; from envs_mjx.render import Frame, video;"
        "f = Frame(np.zeros(2), 0.0, np.ones(2), np.zeros((0, 2)), np.zeros((0, 3)), np.zeros((0, 4)), 0.0, 0.0, 0.0);"
        f"print(*(video([f, f], {str(tmp_path / 'run.gif')!r}) for _ in range(2)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=os.path.dirname(os.path.dirname(render.__file__)),
        env={k: v for k, v in os.environ.items() if not k.endswith("DISPLAY")} | {"MUJOCO_GL": library},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("matplotlib matplotlib\n", "")
    assert (tmp_path / "run.gif").exists()
