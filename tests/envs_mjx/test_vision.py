"""Robots see what those of Safety-Gymnasium see.

`golden/envs/vision.npz` holds starts of Safety-Gymnasium 1.0.0 (MuJoCo 2.3.3): the robot's coordinates, the poses of
all objects, and the picture, 96 x 96, that its renderer took with the camera ``"vision"``.
"""

from pathlib import Path

import jax
import numpy as np
import pytest
from probe_states import navigation_state

import envs_mjx
from envs_mjx import vision
from envs_mjx.render import GLUnavailable, picture

pytestmark = pytest.mark.filterwarnings("ignore:Mesh .car_body_0. has a coplanar face")  # MJX, of the racecar

RECORDED = [
    "SafetyPointGoal2-v0",
    "SafetyPointPush1-v0",
    "SafetyCarGoal2-v0",
    "SafetyCarPush2-v0",
    "SafetyRacecarButton2-v0",
    "SafetyDoggoGoal1-v0",
    "SafetyAntButton1-v0",
    "SafetyAntCircle2-v0",
]
SIZE = (48, 32)


@pytest.fixture(scope="module")
def env():
    try:
        return vision.make("SafetyPointGoal0Vision-v0", SIZE, engine="mujoco")
    except GLUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("env_id", RECORDED)
def test_pictures_are_those_of_the_original(golden, env_id):
    with np.load(golden / "vision.npz") as archive:
        start = {name.split("/")[1]: archive[name] for name in archive.files if name.startswith(env_id)}
    seen, qpos, root = (start.pop(name) for name in ("picture", "qpos", "root"))
    if "Point" in env_id:  # the original's slide joints start at zero in a turned frame
        qpos = np.array([*root[:2], 2 * np.arctan2(root[6], root[3])])
    try:
        shown = picture(env_id, navigation_state(env_id, qpos, start), 96, 96, "vision")
    except GLUnavailable as error:
        pytest.skip(str(error))
    off = np.abs(shown.astype(int) - seen).max(axis=-1)
    assert (off > 40).mean() < 0.01, "pixels of another colour, but for edges"
    assert off.mean() < 2
    assert np.std(seen) > 30, "and there is something to see"


def test_an_observation_holds_the_picture_and_every_block(env):
    plain = envs_mjx.make("SafetyPointGoal0-v0", "mujoco")
    key, action = jax.random.key(3), np.array([1.0, 0.5], np.float32)
    state, obs = env.reset(key)
    assert list(obs) == [name for name, _ in plain.spec.obs_blocks] + ["vision"]
    assert obs["vision"].shape == (32, 48, 3)
    assert obs["vision"].dtype == np.uint8
    flat = np.concatenate([obs[name] for name, _ in plain.spec.obs_blocks])
    expected_state, expected = jax.jit(plain.reset)(key)
    np.testing.assert_array_equal(flat, expected)
    assert np.array_equal(obs["vision"], picture("SafetyPointGoal0-v0", expected_state, *SIZE, "vision"))
    later, after = env.step(state, action)
    assert after.obs["goal_lidar"].shape == (16,)
    assert np.array_equal(after.obs["vision"], picture("SafetyPointGoal0-v0", later, *SIZE, "vision"))
    assert not np.array_equal(after.obs["vision"], obs["vision"])
    assert after.reward.shape == ()
    assert env.spec.id == "SafetyPointGoal0Vision-v0"


def test_a_batch_is_drawn_lane_by_lane(env):
    keys = jax.random.split(jax.random.key(0), 3)
    states, obs = env.reset(keys)
    assert obs["vision"].shape == (3, 32, 48, 3)
    assert obs["goal_lidar"].shape == (3, 16)
    for lane, key in enumerate(keys):
        assert np.array_equal(obs["vision"][lane], env.reset(key)[1]["vision"])
    _, after = env.step(states, np.ones((3, 2)))
    assert after.obs["vision"].shape == (3, 32, 48, 3)
    assert after.cost.shape == (3, 0)
    assert len(np.unique(after.obs["vision"], axis=0)) == 3


@pytest.mark.slow
def test_a_world_of_ones_own_is_seen():
    file = Path(__file__).parents[2] / "experiments" / "orbiting_push" / "world.py"
    try:
        own = vision.make(f"{file}:CarOrbitingPushVision-v0", SIZE, engine="mujoco")
    except GLUnavailable as error:
        pytest.skip(str(error))
    _, obs = own.reset(jax.random.key(0))
    assert own.spec.id == "CarOrbitingPushVision-v0"
    assert np.std(obs["vision"]) > 10


def test_ids_and_mistakes():
    assert "SafetyDoggoPush1Vision-v0" in vision.ids()
    assert len(vision.ids()) == sum("Velocity" not in env_id for env_id in envs_mjx.ids())
    with pytest.raises(ValueError, match=r"'SafetyPointGaol1Vision-v0'. Did you mean 'SafetyPointGoal1Vision-v0'"):
        vision.make("SafetyPointGaol1Vision-v0")
    with pytest.raises(ValueError, match=r"missing\.py cannot be imported"):
        vision.make("missing.py:NameVision-v0")
    with pytest.raises(ValueError, match="Unknown vision id 'SafetyPointGoal1-v0'"):
        vision.make("SafetyPointGoal1-v0")
    with pytest.raises(ValueError, match=r"envs_mjx\.vision\.make\('SafetyPointGoal1Vision-v0'\)"):
        envs_mjx.make("SafetyPointGoal1Vision-v0")
    with pytest.raises(ValueError, match="0 x 4 pixels"):
        vision.make("SafetyPointGoal1Vision-v0", (0, 4))
