"""Velocity environments against recordings of Safety-Gymnasium and against MuJoCo's own integrator."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

import envs_mjx
from envs_mjx import models, registry
from envs_mjx.parity import velocity as parity
from envs_mjx.parity.recording import Check, CorruptRecordingError, Spread
from envs_mjx.physics import make_alone
from envs_mjx.physics.runge_kutta import move
from envs_mjx.velocity import ROBOTS, Velocity

NAMES = tuple(robot.name for robot in ROBOTS)
IDS = tuple(f"Safety{name}Velocity-{version}" for name in NAMES for version in ("v0", "v1"))
LANES = 200


class Lanes:
    """An environment with engine "mujoco", compiled for `LANES` lanes, which is no power of two."""

    def __init__(self, name):
        self.builder = registry.builder(f"Safety{name}Velocity-v1", "mujoco")
        self.env, self.spec = self.builder.env, self.builder.spec
        self.reset, self.step = jax.jit(jax.vmap(self.env.reset)), jax.jit(jax.vmap(self.env.step))
        self.start, self.obs = self.reset(jax.random.split(jax.random.key(0), LANES))

    def act(self, value=0.0):
        return jnp.full((LANES, self.spec.action_size), value, jnp.float32)

    def random(self, seed):
        shape = (LANES, self.spec.action_size)
        return jax.random.uniform(
            jax.random.key(seed), shape, minval=self.spec.action_low[0], maxval=self.spec.action_high[0]
        )


@pytest.fixture(scope="module")
def lanes():
    made = {}

    def get(name):
        if name not in made:
            made[name] = Lanes(name)
        return made[name]

    return get


@pytest.fixture(scope="module")
def speeds(golden):
    """Velocities, costs and action bounds of all ids, made with the original."""
    with np.load(golden / "velocity_costs.npz") as archive:
        return dict(archive)


# --- against recordings


def passed(entries):
    """The entries by name, all checks among them passed."""
    assert not [entry for entry in entries if isinstance(entry, Check) and not entry.passed]
    return {entry.name: entry for entry in entries}


@pytest.mark.parametrize("name", NAMES)
def test_recorded_transitions(golden, name):
    """Measured: coordinates to 2e-7, the rounding of float32, with contact and without; the cheetah's to 5e-6."""
    env_id = f"Safety{name}Velocity-v1"
    found = passed(parity.replay(golden / f"{env_id}.npz", registry.builder(env_id, "mujoco")))
    for entry in found.values():
        if isinstance(entry, Spread) and "qpos" in entry.name:
            assert entry.steps > 5
            assert entry.median < 2e-7
            assert entry.maximum < (1e-5 if name == "HalfCheetah" else 3e-7)
    assert ("one-step qpos (mujoco), contact" in found) == (name != "Swimmer")
    if name == "Humanoid":
        assert found["one-step cfrc_ext, contact"].maximum < 1e-4
        assert found["one-step cvel, contact"].maximum < 1e-5


@pytest.mark.parametrize("name", ["Ant", "HalfCheetah", "Humanoid"])
def test_recorded_transitions_in_mjx(golden, name):
    """In float32; Humanoid with another solver. The Ant needs C's friction directions, or 2e-2 would be the maximum."""
    env_id = f"Safety{name}Velocity-v1"
    builder = registry.builder(env_id, "mjx")
    found = passed(parity.check_motion(parity.load(golden / f"{env_id}.npz", builder), builder))
    contact = found["one-step qpos (mjx), contact"]
    assert contact.median < 1e-6
    assert contact.maximum < 1e-3
    if name == "Humanoid":
        assert found["one-step cfrc_ext, contact"].median < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_the_recordings_hold_what_can_happen(golden, name):
    with np.load(golden / f"Safety{name}Velocity-v1.npz") as data:
        assert 0 < data["step_cost"].mean() < 1
        assert set(data["state_kind"]) == {0, 1, 2}
        assert (
            np.abs(data["step_action"]).max() > 1.2 * registry.builder(f"Safety{name}Velocity-v1").spec.action_high[0]
        )
        assert data["step_terminated"].any() == (name not in ("HalfCheetah", "Swimmer"))


@pytest.mark.parametrize("env_id", IDS)
def test_costs_and_bounds_of_every_id(speeds, env_id):
    builder = registry.builder(env_id, "mujoco")
    velocity, cost = speeds[f"{env_id}/velocity"], speeds[f"{env_id}/cost"]
    qpos = jnp.array(builder.physics.setup.robot.qpos0)
    qvel, action = jnp.zeros(builder.physics.setup.nv), jnp.zeros(builder.spec.action_size)
    moved = jnp.asarray(velocity * builder.spec.control_dt, jnp.float32)
    ours = jax.vmap(lambda m: builder.judge(m, qpos, qvel, action))(moved)
    assert 0 < cost.mean() < 1
    np.testing.assert_array_equal(ours.cost, cost)
    bounds = np.array([builder.spec.action_low, builder.spec.action_high], np.float32)
    np.testing.assert_array_equal(bounds, speeds[f"{env_id}/bounds"])
    assert env_id in envs_mjx.ids()
    assert envs_mjx.make(env_id, "mujoco").spec == builder.spec


def test_a_damaged_recording_is_refused(golden, tmp_path):
    builder = registry.builder("SafetyHopperVelocity-v1", "mujoco")
    with np.load(golden / "SafetyHopperVelocity-v1.npz") as archive:
        data = dict(archive)
    for change, message in (
        ({"state_obs": data["state_obs"][:, 1:]}, "state_obs has shape"),
        ({"step_s_to": data["step_s_to"] + 1000}, "step_s_to points outside"),
        ({"state_qvel": np.where(data["state_qvel"] > 0, np.nan, 0.0)}, "state_qvel holds a value"),
        ({"step_reward": data["step_reward"][:0]}, "holds no transitions"),
    ):
        np.savez(path := tmp_path / "SafetyHopperVelocity-v1.npz", **(data | change))
        with pytest.raises(CorruptRecordingError, match=message):
            parity.replay(path, builder)


def test_parity_notices_a_wrong_environment(golden):
    """The checks must be able to fail: the recording of v1 in the environment of v0, with a robot of another model."""
    builder = registry.builder("SafetyHopperVelocity-v0", "mujoco")
    data = parity.load(golden / "SafetyHopperVelocity-v1.npz", builder)
    failed = {check.name for check in parity.check_outcome(data, builder) if not check.passed}
    assert failed == {"cost_velocity"}
    other = builder.robot._replace(frame_skip=3)
    wrong = Velocity("SafetyHopperVelocity-v1", other, "v1", "mujoco")
    failed = {entry.name for entry in parity.check_motion(data, wrong) if isinstance(entry, Check) and not entry.passed}
    assert failed == {"one-step qpos (mujoco), no contact", "one-step displacement, no contact"}


# --- resets


@pytest.mark.parametrize("name", NAMES)
def test_start(lanes, name):
    """Noise as documented: uniform on coordinates; on velocities uniform or, for two robots, normal."""
    world = lanes(name)
    setup, robot = world.builder.physics.setup, world.builder.robot
    body, noise = world.start.physics, robot.reset_noise
    qpos = np.array(body.qpos, float)
    qpos[:, : setup.planar] = body.origin[:, : setup.planar]
    shift = qpos - setup.robot.qpos0
    if setup.free:
        np.testing.assert_allclose(np.linalg.norm(qpos[:, 3:7], axis=1), 1.0, atol=1e-6)
        shift = np.delete(shift, np.arange(3, 7), axis=1)
    assert np.abs(shift).max() <= noise * (1 + 1e-6)
    np.testing.assert_allclose(shift.std(), noise / np.sqrt(3), rtol=0.06)
    np.testing.assert_allclose(shift.mean(), 0.0, atol=0.1 * noise)
    spread = noise if name in ("Ant", "HalfCheetah") else noise / np.sqrt(3)
    np.testing.assert_allclose(np.std(body.qvel), spread, rtol=0.06)
    assert (np.abs(body.qvel).max() > noise * 1.5) == (name in ("Ant", "HalfCheetah"))
    assert world.obs.shape == (LANES, world.spec.obs_size)
    np.testing.assert_array_equal(body.qpos[:, : setup.planar], 0.0)


def test_humanoid_starts_with_everything_fresh(lanes):
    """Against MuJoCo at the same state."""
    world = lanes("Humanoid")
    model = models.compile_alone("velocity_humanoid")
    data = mujoco.MjData(model)
    data.qpos, data.qvel = world.start.physics.qpos[3], world.start.physics.qvel[3]
    mujoco.mj_forward(model, data)
    expected = [data.qpos[2:], data.qvel, data.cinert.ravel(), data.cvel.ravel(), np.zeros(model.nv + 6 * model.nbody)]
    np.testing.assert_allclose(world.obs[3], np.concatenate(expected), atol=1e-5)
    centre = data.xipos[:, :2].T @ model.body_mass / model.body_mass.sum()
    np.testing.assert_allclose(world.start.physics.point[3], centre, atol=1e-6)


# --- steps


@pytest.mark.parametrize("name", NAMES)
def test_lanes_do_not_depend_on_each_other(lanes, name):
    """Nor on the shape of the batch: one environment alone, 5 lanes, and 2 times 3 give the same numbers."""
    world = lanes(name)
    action = world.random(1)
    _, expected = world.step(world.start, action)
    five = jax.tree.map(lambda x: x[:5], (world.start, action))
    six = jax.tree.map(lambda x: x[:6].reshape(2, 3, *x.shape[1:]), (world.start, action))
    one = jax.tree.map(lambda x: x[4], (world.start, action))
    np.testing.assert_array_equal(jax.vmap(world.env.step)(*five)[1].obs, expected.obs[:5])
    np.testing.assert_array_equal(jax.vmap(jax.vmap(world.env.step))(*six)[1].obs.reshape(6, -1), expected.obs[:6])
    np.testing.assert_array_equal(world.env.step(*one)[1].obs, expected.obs[4])


@pytest.mark.parametrize("name", ["HalfCheetah", "Swimmer", "Hopper"])
def test_positions_are_the_sum_of_velocities(lanes, name):
    world, position = lanes(name), 0.0
    state, first = world.start, world.start.physics.origin
    for step in range(20):
        state, after = world.step(state, world.random(step))
        position += np.array([after.info["x_velocity"], after.info["y_velocity"]]).T * world.spec.control_dt
        np.testing.assert_array_equal(after.info["x_position"], state.physics.origin[:, 0])
    np.testing.assert_allclose(state.physics.origin - first, position, atol=1e-5)
    assert np.abs(position).max() > 0.01


@pytest.mark.parametrize("name", ["Ant", "Humanoid"])
def test_speed_does_not_lose_digits_far_away(lanes, name):
    """A kilometre from the origin a coordinate in float32 is known to 6e-5 m, 1e-3 m/s over a step of the Ant."""
    world = lanes(name)
    far = world.start._replace(physics=world.start.physics._replace(origin=jnp.full((LANES, 2), 1000.0)))
    _, near_step = world.step(world.start, world.random(0))
    state, far_step = world.step(far, world.random(0))
    np.testing.assert_array_equal(near_step.info["x_velocity"], far_step.info["x_velocity"])
    np.testing.assert_array_equal(near_step.obs, far_step.obs)
    assert np.abs(state.physics.origin - 1000.0).max() < 1.0


def test_stale_points_follow_each_other(lanes):
    """The Ant's displacements add up to that of its stale torso over two steps, each beginning where the last ended."""
    world = lanes("Ant")
    model = models.compile_alone("velocity_ant")
    qvel = world.start.physics.qvel.at[:, 0].set(4.0).at[:, 2].set(-8.0)  # it hits the floor: large accelerations
    state, total = world.start._replace(physics=world.start.physics._replace(qvel=qvel)), np.zeros((2, LANES))
    for step in range(2):
        state, after = world.step(state, world.random(step))
        total += world.spec.control_dt * np.array([after.info["x_velocity"], after.info["y_velocity"]])
    gaps = []
    for lane in range(10):
        data = mujoco.MjData(model)
        data.qpos, data.qvel = world.start.physics.qpos[lane], qvel[lane]
        for step in range(2):
            data.ctrl = world.random(step)[lane]
            mujoco.mj_step(model, data, 5)
        np.testing.assert_allclose(total[:, lane], data.xpos[1, :2], atol=2e-6)
        gaps.append(np.abs(data.xpos[1, :2] - data.qpos[:2]).max())
    assert np.median(gaps) > 5e-5


@pytest.mark.parametrize("name", NAMES)
def test_actions_are_clipped_by_the_actuators_but_cost_as_given(lanes, name):
    world = lanes(name)
    high = world.spec.action_high[0]
    state, at_bound = world.step(world.start, world.act(high))
    beyond, after = world.step(world.start, world.act(3 * high))
    np.testing.assert_array_equal(state.physics.qpos, beyond.physics.qpos)
    extra = world.builder.robot.control_cost * world.spec.action_size * 8 * high**2
    np.testing.assert_allclose(at_bound.reward - after.reward, extra, atol=1e-5)


def test_the_humanoid_falls_and_is_paid_for_its_last_step(lanes):
    world = lanes("Humanoid")
    height = world.start.physics.qpos.at[:, 2].set(jnp.where(jnp.arange(LANES) % 2, 0.9, 1.4))
    _, after = world.step(world.start._replace(physics=world.start.physics._replace(qpos=height)), world.act())
    np.testing.assert_array_equal(after.terminated, np.arange(LANES) % 2 == 1)
    np.testing.assert_allclose(after.reward - 1.25 * after.info["x_velocity"], 5.0, atol=1e-5)


def test_time_limit(lanes):
    world = lanes("Swimmer")
    state, after = world.step(world.start._replace(time=jnp.where(jnp.arange(LANES) < 2, 999, 998)), world.act())
    np.testing.assert_array_equal(after.truncated, np.arange(LANES) < 2)
    np.testing.assert_array_equal(state.time, np.where(np.arange(LANES) < 2, 1000, 999))


@pytest.mark.parametrize("name", ["HalfCheetah", "Humanoid"])
def test_a_diverged_simulation_is_flagged(lanes, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # C writes its warnings into a file there
    world = lanes(name)
    qvel = world.start.physics.qvel.at[0].set(1e9)
    start = world.start._replace(physics=world.start.physics._replace(qvel=qvel))
    state, after = world.step(start, world.act().at[1, 0].set(jnp.nan))
    bad = np.arange(LANES) < 2
    np.testing.assert_array_equal(after.info["diverged"], bad)
    np.testing.assert_array_equal(after.truncated, bad)
    np.testing.assert_array_equal(after.cost[:, 0][bad], 1.0)
    np.testing.assert_array_equal(after.info["cost"][bad], 1.0)
    np.testing.assert_array_equal(after.reward[bad], -10.0)
    np.testing.assert_array_equal(state.physics.qpos[bad], start.physics.qpos[bad])
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((state, after)))


# --- parts


@pytest.mark.parametrize("name", ["velocity_humanoid", "velocity_hopper"])
def test_moving_along_the_tangent_space(name):
    model = models.compile_alone(name)
    rng = np.random.default_rng(0)
    qpos, delta = rng.normal(size=(20, model.nq)), rng.normal(size=(20, model.nv))
    delta[0] = 0.0
    free = model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE
    if free:
        qpos[:, 3:7] /= np.linalg.norm(qpos[:, 3:7], axis=1, keepdims=True)
    expected = qpos.copy()
    for row, change in zip(expected, delta):
        mujoco.mj_integratePos(model, row, change, 1.0)
    np.testing.assert_allclose(move(np, qpos, delta, free), expected, atol=1e-14)
    np.testing.assert_allclose(move(jnp, jnp.asarray(qpos), jnp.asarray(delta), free), expected, atol=1e-5)


def test_wrong_arguments_are_explained(lanes):
    world = lanes("Hopper")
    one = jax.tree.map(lambda x: x[0], world.start)
    with pytest.raises(ValueError, match=r"SafetyHopperVelocity-v1: an action needs shape \(3,\), got \(2,\)"):
        world.env.step(one, jnp.zeros(2))
    with pytest.raises(ValueError, match="Unknown physics engine 'bullet'"):
        envs_mjx.make("SafetyHopperVelocity-v1", "bullet")
    with pytest.raises(ValueError, match="no threshold for version 'v2'; use v0, v1"):
        Velocity("SafetyHopperVelocity-v2", world.builder.robot, "v2", "mujoco")
    with pytest.raises(ValueError, match="unknown measure 'head'"):
        make_alone("velocity_hopper", 4, "head", False, "mujoco")
    with pytest.raises(ValueError, match="only the first joint may have several coordinates"):
        make_alone("car", 4, "root", False, "mujoco")
