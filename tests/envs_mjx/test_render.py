"""Pictures and films show what the states say, whichever renderer draws them."""

import os
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageSequence
from probe_states import navigation, spread_state, velocity_state

from envs_mjx import render
from envs_mjx.render import Frame, GLUnavailable, flat, gl, picture, plot, video

pytestmark = pytest.mark.filterwarnings("ignore:Mesh .car_body_0. has a coplanar face")  # MJX, of the racecar

WORLDS = [
    f"Safety{agent}{task}-v0"
    for agent in ("Point", "Car", "Racecar", "Doggo", "Ant")
    for task in ("Goal2", "Push2", "Button2", "Circle2", "Run0")
]
RUNNERS = [f"Safety{robot}Velocity-v1" for robot in ("Ant", "HalfCheetah", "Hopper", "Humanoid", "Swimmer", "Walker2d")]
GOAL, GOAL2 = "SafetyPointGoal0-v0", "SafetyPointGoal2-v0"
CRIMSON, CYAN, PAPER = (189, 11, 47), (0, 255, 255), (247, 246, 243)


@pytest.fixture(scope="module")
def opengl():
    try:
        picture(GOAL, spread_state(GOAL)[0], 8, 8)
    except GLUnavailable as error:
        pytest.skip(str(error))


def frame(xy=(0.0, 0.0), cost=0.0, time=0, env_id=GOAL):
    return Frame(spread_state(env_id, xy)[0], time, episode_return=1.25, episode_cost=3.0, cost=cost)


def where(picture, colour, tolerance=12, half=2.0):
    """Places in metres of the pixels of a colour in a picture from above that shows `half` around the origin."""
    close = np.abs(picture.astype(int) - colour).max(axis=-1) <= tolerance
    close[: flat.HEADER] = False
    row, column = np.nonzero(close)
    scale = 432 / (2 * half)
    return np.column_stack([(column + 0.5 - 8) / scale - half, half - (row + 0.5 - 40) / scale])


def pixel(picture, xy, half=2.0):
    scale = 432 / (2 * half)
    return picture[int(40 + (half - xy[1]) * scale), int(8 + (xy[0] + half) * scale)].astype(int)


def seen_from(camera, target, point, fovy, size):
    """Row and column at which a pinhole camera, sky above, sees a point."""
    camera, target, point = (np.array(x, float) for x in (camera, target, point))
    ahead = (target - camera) / np.linalg.norm(target - camera)
    right = np.cross(ahead, [0, 0, 1])
    right /= np.linalg.norm(right)
    offset = point - camera
    x, y, depth = offset @ right, offset @ np.cross(right, ahead), offset @ ahead
    focal = size / 2 / np.tan(np.radians(fovy) / 2)
    return int(size / 2 - focal * y / depth), int(size / 2 + focal * x / depth)


def pictures(path):
    with Image.open(path) as gif:
        return [np.asarray(picture.convert("RGB")) for picture in ImageSequence.Iterator(gif)]


# Flat pictures


@pytest.mark.parametrize("env_id", [w for w in WORLDS if "Run" not in w])
def test_every_object_is_where_the_state_says_in_its_colour(env_id):
    state, places = spread_state(env_id)
    shown = plot(env_id, state)
    blank = plot(GOAL, spread_state(GOAL)[0])
    assert not np.array_equal(shown, blank)
    for group in navigation(env_id).task.objects:
        *colour, alpha = group.colour
        expected = alpha * 255 * np.array(colour) + (1 - alpha) * np.array(PAPER)
        if group.name in ("circle", "sigwalls", "sigwalls_across"):  # they overlap each other
            continue
        for xy in places[group.name]:
            assert np.abs(pixel(shown, np.array(xy) + 0.03) - expected).max() <= 4, (group.name, xy)


def test_the_ring_and_the_walls_are_drawn():
    state, _ = spread_state("SafetyPointCircle1-v0", (0.3, 0.0))
    shown = plot("SafetyPointCircle1-v0", state)
    paper, ring, wall = (pixel(shown, (0.05 + x, 0.1)) for x in (1.7, 0.9, 1.1))
    assert np.abs(paper - PAPER).max() <= 2
    assert np.abs(ring - (0.9 * np.array(PAPER) + [0, 25.5, 0])).max() <= 3
    assert np.abs(wall - (0.9 * ring + [25.5, 25.5, 0])).max() <= 3


def test_robot_is_where_the_state_says():
    for xy in ((-1.0, 0.4), (0.2, -0.3)):
        spot = where(plot(GOAL, spread_state(GOAL, xy, yaw=0.7)[0]), CRIMSON)
        assert np.abs(spot - xy).max() < 0.11
        assert 0.3 < len(spot) / (np.pi * 0.1**2 * 108**2) < 1  # a disc less the arrows and the edge


@pytest.mark.parametrize(
    ("robot", "nose"), [("Point", 0.0), ("Car", -np.pi / 2), ("Racecar", 0.0), ("Doggo", 0.0), ("Ant", np.pi / 2)]
)
def test_arrow_points_along_the_robots_nose(robot, nose):
    env_id = f"Safety{robot}Goal0-v0"
    for yaw in (0.0, 2.0):
        shown = plot(env_id, spread_state(env_id, (0, 0), yaw)[0])
        white = where(shown, (255, 255, 255), tolerance=0)
        white = white[np.abs(white).max(axis=1) < 0.3]
        ahead = np.array([np.cos(yaw + nose), np.sin(yaw + nose)])
        assert white.mean(axis=0) @ ahead > 0.03
        assert abs(white.mean(axis=0) @ (-ahead[1], ahead[0])) < 0.01


def test_vases_turn_with_their_quaternion():
    widths = []
    for turn in (0.0, np.pi / 4):
        state, places = spread_state("SafetyPointGoal1-v0")
        state.physics.qpos[-4:] = np.cos(turn / 2), 0, 0, np.sin(turn / 2)
        cyan = where(plot("SafetyPointGoal1-v0", state), CYAN)
        assert cyan.mean(axis=0) == pytest.approx(places["vases"][0], abs=0.01)
        widths.append(np.ptp(cyan[:, 0]))
    assert widths[0] == pytest.approx(0.2 - 0.03, abs=0.02)  # less the edge
    assert widths[1] == pytest.approx(widths[0] * np.sqrt(2), abs=0.02)


def test_a_violation_is_red():
    halo = 0.65 * np.array(PAPER) + 0.35 * np.array([255, 0, 0])
    for cost, count in ((0.0, 0), (1.0, 2)):
        shown = plot(GOAL, spread_state(GOAL, (0.5, 0.1))[0], cost)
        reds = [np.abs(pixel(shown, (0.5 + x, 0.1)) - halo).max() < 10 for x in (-0.18, 0.2)]
        assert sum(reds) == count


@pytest.mark.parametrize("env_id", ["SafetyHopperVelocity-v1", "SafetyWalker2dVelocity-v1"])
def test_velocity_robots_are_seen_from_the_side(env_id):
    def top(state):
        robot = np.abs(plot(env_id, state).astype(int) - (204, 153, 102)).max(axis=-1) < 12
        rows, columns = np.nonzero(robot[flat.HEADER :])
        return rows.min(), columns.mean()

    scale = 432 / (2 * 1.7)
    start, higher, further = (top(velocity_state(env_id, **q)) for q in ({}, {"q1": 1.45}, {"q0": 3.0}))
    assert start[0] - higher[0] == pytest.approx(0.2 * scale, abs=1.5)
    assert further == pytest.approx(start, abs=1.0), "the picture follows the robot"
    bent = top(velocity_state(env_id, q2=0.4))  # it leans towards +x about its hips, and the hips are what is followed
    assert bent[1] != pytest.approx(start[1], abs=3)


def test_swimmer_is_seen_from_above():
    env_id = "SafetySwimmerVelocity-v1"
    straight, turned = (
        np.abs(plot(env_id, velocity_state(env_id, q2=q)).astype(int) - (204, 153, 102)).max(axis=-1) < 12
        for q in (0.0, np.pi / 2)
    )
    assert np.ptp(np.nonzero(straight[40:])[1]) == pytest.approx(np.ptp(np.nonzero(turned[40:])[0]), abs=60)
    assert np.ptp(np.nonzero(straight[40:])[0]) < 40 < 200 < np.ptp(np.nonzero(turned[40:])[0])


# Films


def test_frames_add_up_and_show_the_worst_cost_of_a_stride():
    states = SimpleNamespace(physics={"qpos": np.arange(7)[:, None]}, points={})
    shown = render.frames(states, np.arange(7.0), np.array([0, 0, 1, 0, 0, 0, 1.0]), stride=2)
    assert [f.time for f in shown] == [1, 3, 5, 7]
    assert [f.state.physics["qpos"].item() for f in shown] == [0, 2, 4, 6]
    assert [f.episode_return for f in shown] == [0, 3, 10, 21]
    assert [f.episode_cost for f in shown] == [0, 1, 1, 2]
    assert [f.cost for f in shown] == [0, 1, 0, 1]


def test_trail_fades_and_follows_the_track():
    track = [frame((x, 0.0)) for x in np.linspace(-1.5, 1.0, 50)]
    draw = flat.Flat(GOAL, track)
    line = draw(49)[40 + 216, :].astype(int).sum(axis=-1)
    old, recent = (line[int(8 + (x + 2) * 108)] for x in (-1.2, 0.7))
    assert recent < old - 100
    assert draw(0).shape == (480, 448, 3)


def test_a_robot_that_runs_away_is_followed():
    track = [Frame(spread_state("SafetyPointRun0-v0", (0.0, y))[0], 0, 0.0, 0.0, 0.0) for y in (16.5, 10.0)]
    draw = flat.Flat("SafetyPointRun0-v0", track)
    for index in (0, 1):
        assert np.abs(where(draw(index), CRIMSON)).max() < 0.15
    wall = 0.9 * np.array(PAPER) + [25.5, 25.5, 0]
    assert np.abs(pixel(draw(1), (0.47, 1.2)) - wall).max() <= 3


def test_gif_has_the_frames_in_order_and_its_palette_keeps_the_violation(tmp_path):
    frames = [frame((-1.5 + 0.1 * i, 0.0), cost=float(i == 13)) for i in range(20)]
    assert video(GOAL, frames, tmp_path / "new" / "run.gif", 20, "plot") == "plot"
    shown = pictures(tmp_path / "new" / "run.gif")
    assert len(shown) == 20
    for i, drawn in enumerate(shown):
        spot = where(drawn, CRIMSON, tolerance=45)
        assert np.median(spot, axis=0) == pytest.approx(frames[i].state.physics.qpos[:2], abs=0.06)
        ring = where(drawn, (255, 160, 157), tolerance=30)
        assert (len(ring) > 500) == (i == 13)
    with Image.open(tmp_path / "new" / "run.gif") as gif:
        assert gif.info["duration"] == 50
    assert os.listdir(tmp_path / "new") == ["run.gif"]


def test_250_frames_are_quick_and_small(tmp_path):
    begin = time.process_time()
    frames = [frame((np.cos(i / 40), np.sin(i / 25))) for i in range(2)] * 125
    video(GOAL, frames, tmp_path / "run.gif", renderer="plot")
    assert time.process_time() - begin < 15
    assert (tmp_path / "run.gif").stat().st_size < 2e6


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:os.fork")
def test_mp4_is_written(tmp_path):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    video(GOAL, [frame()] * 10, tmp_path / "run.mp4", 5, "plot")
    reader = imageio_ffmpeg.read_frames(str(tmp_path / "run.mp4"))
    head = next(reader)
    shown = np.frombuffer(next(reader), np.uint8).reshape(480, 448, 3)
    reader.close()
    assert head["source_size"] == (448, 480)
    assert (head["fps"], head["duration"]) == (5, 2)
    assert np.abs(where(shown, CRIMSON, tolerance=40).mean(axis=0)).max() < 0.05
    assert os.listdir(tmp_path) == ["run.mp4"]


def test_mp4_without_its_package_says_which(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ImportError, match="imageio-ffmpeg"):
        video(GOAL, [frame()], tmp_path / "run.mp4", renderer="plot")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"frames": []}, "no frames"),
        ({"path": "run.avi"}, r"\.gif or \.mp4"),
        ({"renderer": "cairo"}, "'cairo': choose one of auto, gl, plot"),
        ({"camera": "top"}, "no camera 'top'; choose one of: fixednear, fixedfar, track, vision"),
        ({"env_id": "SafetyPontGoal0-v0"}, "Did you mean 'SafetyPointGoal0-v0'"),
        ({"frames": [frame(env_id=GOAL2)]}, r"shape \(73,\); pass one state of this environment \(shape \(3,\)\)"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        video(**({"env_id": GOAL, "frames": [frame()], "path": "run.gif", "renderer": "plot"} | arguments))
    assert os.listdir(tmp_path) == []


def test_without_opengl_the_film_is_flat_and_the_reason_is_told(tmp_path, monkeypatch):
    def no_context(width, height):
        raise OSError("no driver")

    gl._canvas.cache_clear()
    monkeypatch.setattr(gl, "gl_context", no_context)
    with pytest.raises(GLUnavailable, match=r"no driver.*libegl1, libegl-mesa0 and .* libosmesa6.*\"plot\""):
        picture(GOAL, frame().state)
    with pytest.raises(GLUnavailable, match="no driver"):
        video(GOAL, [frame()], tmp_path / "run.gif", renderer="gl")
    assert video(GOAL, [frame()], tmp_path / "run.gif") == "plot"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere GLFW needs no DISPLAY")
@pytest.mark.parametrize("library", ["disable", "glfw"])
def test_without_opengl_the_fallback_is_silent_every_time(tmp_path, library):
    code = (
        "import numpy as np; from envs_mjx.render import Frame, video; from types import SimpleNamespace as N;"
        "state = N(physics=N(qpos=np.zeros(3), home=np.zeros((0, 7))), points={'goal': np.ones((1, 2))});"
        "f = Frame(state, 0, 0.0, 0.0, 0.0);"
        f"print(*(video({GOAL!r}, [f, f], {str(tmp_path / 'run.gif')!r}) for _ in range(2)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=os.path.dirname(os.path.dirname(os.path.dirname(render.__file__))),
        env={k: v for k, v in os.environ.items() if not k.endswith("DISPLAY")} | {"MUJOCO_GL": library},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.splitlines()[-1], done.stderr) == ("plot plot", "")
    assert (tmp_path / "run.gif").exists()


# Perspective


@pytest.mark.parametrize(
    ("env_id", "group", "hue"),
    [
        ("SafetyPointGoal2-v0", "vases", (0, 1, 1)),
        ("SafetyCarPush2-v0", "push_box", (1, 1, 0)),
        ("SafetyRacecarButton2-v0", "buttons", (1, 0.5, 0)),
        ("SafetyAntButton2-v0", "gremlins", (0.5, 0, 1)),
        ("SafetyDoggoPush2-v0", "pillars", (0.5, 0.5, 1)),
    ],
)
def test_a_camera_sees_objects_where_a_pinhole_would(opengl, env_id, group, hue):
    state, places = spread_state(env_id, (0.0, 0.1))
    height = next(g.height for g in navigation(env_id).task.objects if g.name == group)
    shown = picture(env_id, state, 300, 300, "fixedfar")
    for xy in places[group]:
        row, column = seen_from((0, -5, 5), (0, 0, 0), (*xy, 0.4 * height), 45, 300)  # away from highlights
        colour = shown[row, column] / shown[row, column].max()
        assert colour == pytest.approx(hue, abs=0.22), xy  # full channels saturate in the light from above


@pytest.mark.parametrize("env_id", WORLDS)
def test_track_keeps_the_robot_in_the_middle(opengl, env_id):
    pictures = [picture(env_id, spread_state(env_id, xy, 1.0)[0], 200, 200) for xy in ((0.0, 0.1), (0.1, -0.2))]
    first, second = (p[85:115, 85:115].astype(int) for p in pictures)
    paper = np.array([219, 215, 195])
    for middle in (first, second):
        assert (np.abs(middle - paper).max(axis=-1) > 60).mean() > 0.1, "something stands there"
    assert (np.abs(first - second).max(axis=-1) < 60).mean() > 0.7, "the same, wherever it is"


def test_halo_and_beads(opengl):
    env_id = "SafetyPointGoal1-v0"
    state, _ = spread_state(env_id)
    obs = np.zeros(navigation(env_id).spec.obs_size)
    obs[12:28] = 1.0  # the goal's lidar
    plain, violating, ringed = (picture(env_id, state, **k) for k in ({}, {"cost": 1.0}, {"obs": obs}))
    centre = slice(108, 148)
    redder = (violating.astype(int) - plain)[centre, centre]
    assert (redder[..., 1] < -50).mean() > 0.3
    assert redder[..., 0].mean() > redder[..., 1].mean() + 40
    row, column = seen_from((0, 2, 2.1), (0, 0, 0.1), (0.147, 0.029, 0.6), 45, 256)
    green = ringed[row, column].astype(int)
    assert green[1] > 120 > 80 > max(green[0], green[2]), "a bead of the goal's colour"
    assert np.array_equal(plain, picture(env_id, state)), "and neither stays"
    with pytest.raises(ValueError, match=r"obs has shape \(28,\)"):
        picture(env_id, state, obs=obs[:28])


def test_worlds_of_different_sizes_do_not_disturb_each_other(opengl):
    drawn = {}
    for _ in range(2):
        for env_id, size in ((GOAL, (64, 48)), (GOAL2, (64, 64)), ("SafetyAntRun0-v0", (32, 64)), (GOAL, (128, 48))):
            shown = picture(env_id, spread_state(env_id, (0.0, 0.1))[0], *size)
            assert shown.shape == (size[1], size[0], 3)
            assert np.array_equal(drawn.setdefault((env_id, size), shown), shown)


@pytest.mark.parametrize("env_id", RUNNERS)
def test_velocity_robots_have_a_camera_beside_them(opengl, env_id):
    here, there = (picture(env_id, velocity_state(env_id, q0=x), 128, 128) for x in (0.0, 2.0))
    robot = np.abs(here[40:100, 30:100].astype(int) - (204, 153, 102)).max(axis=-1) < 80
    assert 20 < robot.sum() < 3000
    assert np.abs(here.astype(int) - there).mean() < 2, "2 m on, the same tiles: nothing has moved but the world"
    with pytest.raises(ValueError, match="no camera 'vision'"):
        picture(env_id, velocity_state(env_id), camera="vision")


def test_film_in_perspective_marks_the_violation(opengl, tmp_path):
    frames = [frame((-0.9, 0.1)), frame((0.9, 0.1), cost=1.0), frame((0.0, 0.9))]
    assert video(GOAL, frames, tmp_path / "run.gif") == "gl"
    shown = [p[60:].astype(int) for p in pictures(tmp_path / "run.gif")]  # below the numbers
    red = [(p[..., 0] > 150) & (p[..., 1] < 90) & (p[..., 2] < 110) for p in shown]
    assert red[1].sum() > 3 * max(red[0].sum(), red[2].sum())
    assert red[0].sum() > 20
    assert np.nonzero(red[0])[1].max() < 240 < np.nonzero(red[1])[1].min()
    assert np.nonzero(red[2])[0].mean() < np.nonzero(red[1])[0].mean()


def test_bad_pictures_are_refused():
    state, _ = spread_state(GOAL)
    with pytest.raises(ValueError, match="0 x 8 pixels"):
        picture(GOAL, state, 0, 8)
    with pytest.raises(ValueError, match=r"of a batch jax\.tree\.map"):
        plot(GOAL, SimpleNamespace(physics=SimpleNamespace(qpos=np.zeros((4, 3))), points={}))
