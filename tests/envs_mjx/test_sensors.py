"""Sensors against their definitions, restated as plain loops."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from envs_mjx.agents.base import free_motion
from envs_mjx.geometry import rotation_z
from envs_mjx.sensors import BodyMotion, proprioception, pseudo_lidar

BINS, WIDTH = 16, 2 * np.pi / 16


def loop_lidar(points, pos, mat, max_dist):
    out = [0.0] * BINS
    for point in points:
        v = mat.T @ (np.array([*point, 0.0]) - pos)
        closeness = max(0.0, max_dist - np.hypot(v[0], v[1])) / max_dist
        theta = np.arctan2(v[1], v[0]) % (2 * np.pi)
        b = int(np.floor(theta / WIDTH))
        f = theta / WIDTH - b
        for i, value in ((b, closeness), (b + 1, f * closeness), (b - 1, (1 - f) * closeness)):
            out[i % BINS] = max(out[i % BINS], value)
    return np.array(out)


compiled_lidar = jax.jit(pseudo_lidar, static_argnums=3)


def at(angle, distance=1.0):
    return np.array([[distance * np.cos(angle), distance * np.sin(angle)]])


def lidar(points, pos=(0.0, 0.0, 0.1), mat=None, max_dist=3.0):
    mat = np.eye(3) if mat is None else mat
    return np.asarray(compiled_lidar(*map(jnp.float32, (points, pos, mat)), max_dist))


@pytest.mark.parametrize("tilted", [False, True])
@pytest.mark.parametrize("count", [1, 2, 10])
def test_lidar_equals_the_loop(tilted, count):
    rng, runs = np.random.default_rng(count), 400
    rotations = Rotation.random(runs, rng=rng) if tilted else Rotation.from_euler("z", rng.uniform(-7, 7, (runs, 1)))
    points = rng.uniform(-3, 3, (runs, count, 2)).astype(np.float32)
    pos = np.column_stack([rng.uniform(-2, 2, (runs, 2)), rng.uniform(0, 0.5, runs)]).astype(np.float32)
    mat, max_dist = rotations.as_matrix().astype(np.float32), 3.0
    out = jax.jit(jax.vmap(lambda *args: pseudo_lidar(*args, max_dist)))(points, pos, mat)
    expected = np.array([loop_lidar(*args, max_dist) for args in zip(*map(np.float64, (points, pos, mat)))])
    # near the robot the bearing of an object is known to 1e-7 m / distance only
    local = np.einsum("rij,rni->rnj", mat, np.dstack([points, np.zeros((runs, count))]) - pos[:, None])
    clear = np.hypot(local[..., 0], local[..., 1]).min(axis=1) > 0.05
    assert clear.mean() > 0.9
    np.testing.assert_allclose(out[clear], expected[clear], atol=2e-5)
    assert (expected > 0).any(axis=0).all()


def test_lidar_of_an_object_splits_over_three_bins():
    reading = lidar(at(3.25 * WIDTH, 0.6))
    expected = np.zeros(BINS)
    expected[[2, 3, 4]] = 0.75 * 0.8, 0.8, 0.25 * 0.8
    np.testing.assert_allclose(reading, expected, atol=1e-6)


def test_lidar_keeps_the_nearest_object_whatever_their_order():
    points = np.concatenate([at(0.3, 1.0), at(0.31, 2.0), at(3.0, 2.5), at(5.0, 9.0)])
    reading = lidar(points)
    np.testing.assert_allclose(reading, loop_lidar(points, np.array([0, 0, 0.1]), np.eye(3), 3.0), atol=1e-6)
    np.testing.assert_array_equal(lidar(points[::-1]), reading)
    np.testing.assert_array_equal(lidar(points[:3]), reading)  # what is out of range is not seen


def test_lidar_wraps_around_at_two_pi():
    below = lidar(at(-0.25 * WIDTH, 1.5))
    expected = np.zeros(BINS)
    expected[[14, 15, 0]] = 0.25 * 0.5, 0.5, 0.75 * 0.5
    np.testing.assert_allclose(below, expected, atol=1e-6)
    above = lidar(at(0.25 * WIDTH, 1.5))
    expected = np.zeros(BINS)
    expected[[15, 0, 1]] = 0.75 * 0.5, 0.5, 0.25 * 0.5
    np.testing.assert_allclose(above, expected, atol=1e-6)


@pytest.mark.parametrize("y", [-1e-30, -1e-12, -1e-9, -0.0, 0.0, 1e-12])
def test_lidar_straight_ahead_from_either_side(y):
    """An angle that rounds to 2 pi would index bin 16; it must read like an angle of zero."""
    expected = np.zeros(BINS)
    expected[[15, 0]] = 0.5
    np.testing.assert_allclose(lidar([[1.5, y]]), expected, atol=1e-6)


def test_lidar_turns_with_the_robot():
    points = np.random.default_rng(0).uniform(-1, 1, (4, 2))
    turned = lidar(points, mat=np.asarray(rotation_z(jnp.float32(3 * WIDTH))))
    np.testing.assert_allclose(turned, np.roll(lidar(points), -3), atol=1e-5)


def test_lidar_of_nothing_and_of_what_is_too_far_is_zero():
    np.testing.assert_array_equal(lidar(np.zeros((0, 2))), np.zeros(BINS))
    np.testing.assert_array_equal(lidar(at(1.0, 3.0001)), np.zeros(BINS))
    assert lidar(at(1.0, 2.999)).max() == pytest.approx(0.001 / 3, rel=1e-2)
    assert lidar(np.zeros((1, 2))).max() == 1.0  # an object below the robot


def motion(**kwargs):
    vectors = ("pos", "velocity", "spin", "acceleration", "spin_rate")
    rest = dict(mat=jnp.eye(3), **{name: jnp.zeros(3) for name in vectors})
    return BodyMotion(**(rest | {name: jnp.asarray(value, jnp.float32) for name, value in kwargs.items()}))


def test_accelerometer_at_rest_and_in_free_fall():
    np.testing.assert_allclose(proprioception(motion())[:3], [0, 0, 9.81], rtol=1e-6)
    np.testing.assert_allclose(proprioception(motion(acceleration=[0, 0, -9.81]))[:3], 0, atol=1e-6)


def test_proprioception_is_in_the_frame_of_the_body():
    rotation = Rotation.from_euler("xyz", [0.3, -0.8, 2.0])
    velocity, spin, acceleration = [1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [0.7, -0.8, 0.9]
    out = proprioception(motion(mat=rotation.as_matrix(), velocity=velocity, spin=spin, acceleration=acceleration))
    expected = [
        *rotation.inv().apply(np.add(acceleration, [0, 0, 9.81])),
        *rotation.inv().apply(velocity),
        *spin,  # is given in the body frame
        *rotation.inv().apply([0, -0.5, 0]),
    ]
    np.testing.assert_allclose(out, expected, atol=2e-6)


@pytest.mark.parametrize("site", [(0.0, 0.0, 0.0), (0.02, 0.0, 0.0), (0.3, -0.2, 0.1)])
def test_proprioception_is_what_sensors_of_mujoco_read(site):
    """A tumbling body with the four sensors at a site away from its origin; every body of a robot moves like that."""
    spec = mujoco.MjSpec()
    spec.option.magnetic = [0, -0.5, 0]
    body = spec.worldbody.add_body(name="body")
    body.add_freejoint()
    body.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.1, 0.2, 0.3], pos=[0.05, 0.02, -0.1])
    body.add_site(name="site", pos=site)
    for kind in ("ACCELEROMETER", "VELOCIMETER", "GYRO", "MAGNETOMETER"):
        sensor = getattr(mujoco.mjtSensor, f"mjSENS_{kind}")
        spec.add_sensor(type=sensor, objtype=mujoco.mjtObj.mjOBJ_SITE, objname="site", name=kind)
    model, rng = spec.compile(), np.random.default_rng(0)
    data = mujoco.MjData(model)
    for quat in Rotation.random(20, rng=rng).as_quat(scalar_first=True):
        data.qpos, data.qvel = [*rng.normal(size=3), *quat], 2 * rng.normal(size=6)
        data.xfrc_applied[1] = 100 * rng.normal(size=6)
        mujoco.mj_forward(model, data)
        coordinates = (jnp.asarray(x, jnp.float32) for x in (data.qpos, data.qvel, data.qacc))
        out = proprioception(free_motion(*coordinates), site)
        np.testing.assert_allclose(out, data.sensordata, rtol=2e-5, atol=2e-5)
