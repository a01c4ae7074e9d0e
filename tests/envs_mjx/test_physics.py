"""The two engines agree with each other, and with MuJoCo stepping everything all the time."""

import json

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from envs_mjx import objects, physics, scene
from envs_mjx.agents import POINT
from envs_mjx.physics import SUBSTEPS, PhysicsState, host_engine

VASES, NQ, NV = 10, POINT.nq, POINT.nv
VASE = objects.vases(VASES, 2.0)


def touching(bodies, action):
    return physics.touches_within_step(POINT, (VASE,), bodies, np.asarray(action))


# --- model


@pytest.mark.parametrize("for_mjx", [False, True])
def test_model_has_the_constants_of_the_original(golden, for_mjx):
    original = json.loads((golden / "model_point_vase.json").read_text())
    model = scene.build(POINT, ((VASE, 2),), for_mjx)
    assert POINT.timestep == original["opt"]["timestep"]
    for name in ("timestep", "iterations", "impratio", "gravity"):
        np.testing.assert_allclose(getattr(model.opt, name), original["opt"][name], err_msg=name)
    assert model.opt.tolerance <= original["opt"]["tolerance"]
    kinds = (mujoco.mjtIntegrator.mjINT_EULER, mujoco.mjtSolver.mjSOL_NEWTON, mujoco.mjtCone.mjCONE_PYRAMIDAL)
    assert (model.opt.integrator, model.opt.solver, model.opt.cone) == kinds

    own = {"agent": model.body("agent"), "vase0": model.body("vases_1")}
    for body in original["bodies"]:
        for name in ("mass", "inertia", "ipos"):
            ours = getattr(own[body["name"]], name)
            np.testing.assert_allclose(ours, np.atleast_1d(body[name]), rtol=1e-9, atol=1e-15)
    joints = [model.joint(name) for name in ("x", "y", "yaw")]
    for joint, recorded in zip(joints, original["joints"], strict=True):
        np.testing.assert_array_equal(model.dof_damping[joint.dofadr[0]], recorded["damping"])
        np.testing.assert_array_equal(joint.axis, recorded["axis"])
    for i, recorded in enumerate(original["actuators"]):
        assert model.actuator_gear[i, 0] == recorded["gear"][0]
        assert model.actuator_gainprm[i, 0] == recorded["gainprm"][0]
        np.testing.assert_array_equal(model.actuator_forcerange[i], recorded["forcerange"])
        np.testing.assert_array_equal(model.actuator_ctrlrange[i], recorded["ctrlrange"])
    np.testing.assert_array_equal(model.actuator_biasprm[1, :3], original["actuators"][1]["biasprm"])


def kind_of(geom):
    return "vase" if geom.startswith("vases") else geom


@pytest.fixture
def recorded_geoms(golden):
    names = {"floor": "floor", "agent": "ball", "pointarrow": "arrow", "vase0": "vase"}
    return {names[g["name"]]: g for g in json.loads((golden / "model_point_vase.json").read_text())["geoms"]}


@pytest.mark.parametrize("for_mjx", [False, True])
def test_geoms_have_the_form_of_the_original(recorded_geoms, for_mjx):
    model = scene.build(POINT, ((VASE, 2),), for_mjx)
    for name, geom in recorded_geoms.items():
        own = model.geom("vases_0_0" if name == "vase" else name)
        if name != "floor":
            np.testing.assert_array_equal(own.size[: np.count_nonzero(geom["size"])], [s for s in geom["size"] if s])
            np.testing.assert_array_equal(own.pos, geom["pos"])


def larger(recorded, kinds):
    """Of two geoms in contact the larger friction and dimension count."""
    one, other = (recorded[kind] for kind in kinds)
    slide, spin, roll = np.maximum(one["friction"], other["friction"])
    return [slide, slide, spin, roll, roll], max(one["condim"], other["condim"]), one["solref"], one["solimp"]


def test_listed_pairs_have_the_constants_of_the_original(recorded_geoms):
    """For MJX. The robot's floor, which carries nothing, is left out."""
    model, seen = scene.build(POINT, ((VASE, 2),), for_mjx=True), set()
    for i in range(model.npair):
        kinds = [kind_of(model.geom(int(geom)).name) for geom in (model.pair_geom1[i], model.pair_geom2[i])]
        seen.add(frozenset(kinds))
        friction, condim, solref, solimp = larger(recorded_geoms, kinds)
        np.testing.assert_array_equal(model.pair_friction[i], friction)
        assert model.pair_dim[i] == condim
        np.testing.assert_array_equal(model.pair_solref[i], solref)
        np.testing.assert_array_equal(model.pair_solimp[i], solimp)
        assert (model.pair_margin[i], model.pair_gap[i]) == (0, 0)
    assert seen == {frozenset(p) for p in (("floor", "vase"), ("ball", "vase"), ("arrow", "vase"), ("vase",))}
    assert not model.geom_contype.any()
    assert not model.geom_conaffinity.any()


def test_contacts_have_the_constants_of_the_original(recorded_geoms):
    """In C: ball and arrow in one vase, that one in another. The floor is touched by the ball too, but carries
    nothing."""
    model, seen = scene.build(POINT, ((VASE, 2),)), set()
    data = mujoco.MjData(model)
    data.qpos[:] = [0, 0, 0, *(0.17, 0.06, VASE.height, 1, 0, 0, 0), *(0.365, 0.06, VASE.height, 1, 0, 0, 0)]
    mujoco.mj_forward(model, data)
    for contact in data.contact:
        kinds = [kind_of(model.geom(int(geom)).name) for geom in contact.geom]
        seen.add(frozenset(kinds))
        friction, condim, solref, solimp = larger(recorded_geoms, kinds)
        np.testing.assert_array_equal(contact.friction, friction)
        assert contact.dim == condim
        np.testing.assert_array_equal(contact.solref, solref)
        np.testing.assert_array_equal(contact.solimp, solimp)
        assert contact.includemargin == 0
        if set(kinds) == {"floor", "ball"}:
            assert (contact.dist, contact.efc_address) == (0, -1)
    pairs = (("floor", "vase"), ("ball", "vase"), ("arrow", "vase"), ("vase",), ("floor", "ball"))
    assert seen == {frozenset(p) for p in pairs}


# --- engines


@pytest.fixture(scope="module")
def both(mjx_replay, goal2):
    """Recorded states and actions of Goal2 [T] one control step further in either engine, and whether boxes touched."""
    before, action = mjx_replay.physics.args
    mjx, host = jax.tree.map(np.asarray, mjx_replay.physics.out), goal2.step_bodies(before, action)
    return before, mjx, host, touching(jax.tree.map(np.asarray, before), action)


def test_engines_agree_where_nothing_touches(both):
    before, mjx, host, touched = both
    moved = np.abs(host.qpos - before.qpos)[~touched].max(axis=1)
    assert (~touched).sum() > 70
    assert (moved > 1e-3).sum() > 50
    np.testing.assert_allclose(mjx.qpos[~touched], host.qpos[~touched], atol=1e-5)
    np.testing.assert_allclose(mjx.qvel[~touched], host.qvel[~touched], atol=2e-3)  # a velocity is an error / 2 ms


def test_engines_agree_where_boxes_touch(both):
    """MJX finds the contacts of two boxes by another algorithm than C and iterates its solver 8 times, not 100.

    Measured here: robot median 2e-6 and maximum 6e-4, vases (pushed by up to 4 cm per step) median 4e-4 and maximum
    3e-3, which is also how far MuJoCo 3.17 is from the recorded MuJoCo 2.3.3 (4e-3).
    """
    before, mjx, host, touched = both
    error = np.abs(mjx.qpos - host.qpos)[touched]
    robot, vases = error[:, :NQ].max(axis=1), error[:, NQ:].max(axis=1)
    assert touched.sum() > 40
    assert np.median(robot) < 1e-5
    assert robot.max() < 2e-3
    assert np.median(vases) < 1e-3
    assert vases.max() < 6e-3
    pushed = np.abs(host.qpos - before.qpos)[touched][:, NQ:].max(axis=1)
    assert np.median(vases / np.maximum(pushed, 1e-3)) < 0.15


def test_mjx_pauses_the_moving_box_that_has_no_slot(mjx_replay):
    """Four boxes slide far from the robot: the three nearest go on, the fourth keeps its place and its velocity."""
    before, action = jax.tree.map(np.array, mjx_replay.physics.args)
    before.qpos[:, :NQ], before.qvel[:] = 0, 0
    boxes, velocity = before.qpos[:, NQ:].reshape(-1, VASES, 7), before.qvel[:, NV:].reshape(-1, VASES, 6)
    boxes[:] = [0, 0, VASE.height, 1, 0, 0, 0]
    boxes[..., 0] = 2.0 + np.arange(VASES)[np.random.default_rng(0).permutation(VASES)]
    number = np.arange(len(boxes)) % 6
    for lane, count in enumerate(number):
        velocity[lane, np.argsort(boxes[lane, :, 0])[:count], 1] = 0.5
    after = jax.tree.map(np.asarray, mjx_replay.physics.fun(before, action))
    new_boxes, new_velocity = after.qpos[:, NQ:].reshape(boxes.shape), after.qvel[:, NV:].reshape(velocity.shape)
    for lane, count in enumerate(number):
        order = np.argsort(boxes[lane, :, 0])
        slide = new_boxes[lane, order, 1]
        assert (slide[: min(count, 3)] > 0.005).all()
        np.testing.assert_array_equal(slide[min(count, 3) :], 0)
        paused = order[3:count]
        np.testing.assert_array_equal(new_boxes[lane, paused], boxes[lane, paused])
        np.testing.assert_array_equal(new_velocity[lane, paused], velocity[lane, paused])
        np.testing.assert_array_equal(new_velocity[lane, order[count:]], 0)


# --- freezing


def test_vases_far_away_rest_and_cost_nothing(goal2, monkeypatch):
    """Nothing moves, nothing costs, and the contact solver is not called."""
    calls = []
    original = host_engine.HostStepper._advance
    monkeypatch.setattr(
        host_engine.HostStepper, "_advance", lambda self, *args: (calls.append(len(args[5])), original(self, *args))[1]
    )
    draft = goal2.draft()
    draft.robot[:, :2] += 50
    draft.hazards[:] = 20
    draft.box_velocity[:] = np.random.default_rng(0).uniform(-5e-6, 5e-6, draft.box_velocity.shape)  # residues
    draft.robot[63, :2] = draft.boxes[63, 0, :2] - [0.22, 0]  # one lane does need it
    state = draft.state()
    for seed in range(20):
        action = jax.random.uniform(jax.random.key(seed), (goal2.size, 2), minval=-1.0, maxval=1.0)
        state, timestep = goal2.step(state, action)
        after = goal2.edit(state)
        np.testing.assert_array_equal(after.boxes[:63], draft.boxes[:63])
        np.testing.assert_array_equal(after.box_velocity[:63], 0)
        assert not np.any(timestep.cost[:63])
    assert np.linalg.norm(after.robot_velocity[:63], axis=1).min() > 0.01
    assert set(calls) == {1}


def scenes(env):
    """Robots on their way to vases, and vases on their way to others: contacts of all kinds."""
    draft = env.draft(5)
    rng = np.random.default_rng(0)
    spots = draft.boxes[..., :2]
    lanes = np.arange(env.size)
    nearest = np.linalg.norm(spots - draft.robot[:, None, :2], axis=2).argmin(axis=1)
    to = spots[lanes, nearest] - draft.robot[:, :2]
    to /= np.linalg.norm(to, axis=1, keepdims=True)
    draft.robot[:, :2] = spots[lanes, nearest] - 0.35 * to
    draft.robot[:, 2] = np.arctan2(to[:, 1], to[:, 0]) + rng.uniform(-0.3, 0.3, env.size)
    draft.robot_velocity[:, :2] = rng.uniform(0, 1.5, (env.size, 1)) * to
    second = (nearest + 1) % VASES  # behind the first, in every other lane, at a random yaw
    spots[lanes[::2], second[::2]] = (spots[lanes, nearest] + rng.uniform(0.29, 0.35, (env.size, 1)) * to)[::2]
    third = (nearest + 2) % VASES  # thrown at whatever is there
    draft.box_velocity[lanes[::4], third[::4], :2] = 3 * rng.normal(size=(env.size // 4, 2))
    return draft.state()


def test_freezing_what_cannot_be_touched_changes_nothing(goal2):
    """Every control step equals MuJoCo's with all vases simulated, from the same state.

    Compared step by step: the turn servo and contacts are chaotic (in float64 too, a change of 1e-15 in the yaw grows
    to 1e-2 within 50 steps of random actions). A vase asleep does not sink the last micrometre into the floor.
    """
    steps, watched = 60, 24
    model = scene.build(POINT, ((VASE, VASES),))
    data, state, rng = mujoco.MjData(model), scenes(goal2), np.random.default_rng(1)
    floor, robot = model.geom("floor").id, [model.geom(name).id for name in ("ball", "arrow")]
    robot_error, vase_error, robot_contacts, vase_contacts, asleep = [], [], 0, 0, 0
    action = np.zeros((goal2.size, 2), np.float32)
    for i in range(steps):
        if i % 10 == 0:
            action = rng.uniform((0, -1), (1, 1), (goal2.size, 2)).astype(np.float32)
        before = jax.tree.map(np.asarray, state.physics)
        state, _ = goal2.step(state, jnp.asarray(action))
        after = jax.tree.map(np.asarray, state.physics)
        for lane in range(watched):
            mujoco.mj_resetData(model, data)
            data.qpos, data.qvel = before.qpos[lane], before.qvel[lane]
            data.qacc_warmstart, data.ctrl = before.warmstart[lane], action[lane]
            mujoco.mj_step(model, data, SUBSTEPS)
            error = np.abs(data.qpos - after.qpos[lane])
            robot_error.append(error[:NQ].max())
            vase_error.append(error[NQ:].max())
            pair = data.contact.geom[(data.contact.geom != floor).all(axis=1)]
            on_robot = np.isin(pair, robot).any(axis=1)
            robot_contacts += on_robot.any()
            vase_contacts += (~on_robot).any()
            asleep += (after.qvel[lane, NV:].reshape(VASES, 6) == 0).all(axis=1).sum()
    assert robot_contacts > 100
    assert vase_contacts > 20
    assert 0.5 < asleep / (steps * watched * VASES) < 0.95
    assert max(robot_error) < 1e-4
    assert max(vase_error) < 1e-4
    assert np.median(robot_error) < 1e-6


def test_no_touch_is_missed_however_the_robot_moves(goal2):
    """One control step with the robot beside a vase, moving, spinning and turned at random, equals MuJoCo's.

    MuJoCo itself computes a touch; a step without one is float32's, whose rounding the servo's chatter enlarges.
    """
    model, rng = scene.build(POINT, ((VASE, 1),)), np.random.default_rng(0)
    data, touches, near = mujoco.MjData(model), 0, 0
    for seed in range(12):
        draft = goal2.draft(seed)
        draft.boxes[:, 1:, :2] += 50
        bearing, around = rng.uniform(0, 2 * np.pi, (2, goal2.size))
        away = rng.uniform(0.2, 0.36, (goal2.size, 1))
        draft.robot[:, :2] = draft.boxes[:, 0, :2] + away * np.column_stack([np.cos(bearing), np.sin(bearing)])
        draft.robot[:, 2] = rng.uniform(0, 2 * np.pi, goal2.size)
        speed = rng.uniform(0, 2, (goal2.size, 1))
        draft.robot_velocity[:, :2] = speed * np.column_stack([np.cos(around), np.sin(around)])
        draft.robot_velocity[:, 2] = rng.uniform(-10, 10, goal2.size)
        action = rng.uniform(-1, 1, (goal2.size, 2)).astype(np.float32)
        state = draft.state()
        before, (after, _) = jax.tree.map(np.asarray, state.physics), goal2.step(state, jnp.asarray(action))
        for lane in range(goal2.size):
            mujoco.mj_resetData(model, data)
            data.qpos, data.qvel = before.qpos[lane, : NQ + 7], before.qvel[lane, : NV + 6]
            data.qacc_warmstart, data.ctrl = before.warmstart[lane, : NV + 6], action[lane]
            mujoco.mj_forward(model, data)
            if np.any(data.contact.dist[(data.contact.geom != model.geom("floor").id).all(axis=1)] < 0):
                continue  # already inside one another
            mujoco.mj_step(model, data, SUBSTEPS)
            touched = np.abs(data.qvel[NV:]).max() > 1e-3
            touches += touched
            near += not touched
            found = np.asarray(after.physics.qpos)[lane, :NQ]
            np.testing.assert_allclose(found, data.qpos[:NQ], rtol=0, atol=1e-6 if touched else 5e-5)
    assert touches > 20
    assert near > 100


def test_pushed_vase_comes_to_rest_and_falls_asleep(goal2):
    draft = goal2.draft()
    draft.robot[:, :2] = 50
    draft.boxes[:, :, :2] = np.arange(VASES)[:, None] * 2.0
    draft.box_velocity[:, 0, :2] = np.random.default_rng(0).uniform(-1, 1, (goal2.size, 2))
    draft.box_velocity[:, 0, 5] = np.linspace(-5, 5, goal2.size)
    state, costs = draft.state(), []
    for _ in range(60):
        state, timestep = goal2.step(state, goal2.act())
        costs.append(np.asarray(timestep.cost[:, 2]))
    after = goal2.edit(state)
    assert np.mean(costs[0]) > 0.9
    np.testing.assert_array_equal(after.box_velocity, 0)
    np.testing.assert_array_equal(costs[-1], 0)
    assert np.abs(after.boxes[:, 0, 2] - 0.1).max() < 1e-3
    np.testing.assert_array_equal(after.boxes[:, 1:], draft.boxes[:, 1:])


def test_still_boxes_in_a_row_are_woken_by_a_push(goal2):
    """The robot hits the first of three vases that stand face to face: all three move within the step or two."""
    draft = goal2.draft()
    draft.robot[:] = 0
    draft.robot_velocity[:, 0] = 1.5
    draft.boxes[..., :2] = 20 + 2 * np.arange(VASES)[:, None]
    draft.boxes[..., 3:] = [1, 0, 0, 0]
    for i, x in enumerate((0.26, 0.461, 0.662)):
        draft.boxes[:, i, :2] = [x, 0]
    state = draft.state()
    for _ in range(3):
        state, _ = goal2.step(state, goal2.act(*[[1, 0]] * goal2.size))
    after = goal2.edit(state)
    assert (after.boxes[:, :3, 0] - draft.boxes[:, :3, 0]).min() > 1e-3
    assert np.diff(after.boxes[0, :3, 0]).min() > 0.19  # none inside another
    np.testing.assert_array_equal(after.boxes[:, 3:], draft.boxes[:, 3:])


# --- sorting recorded steps


def test_touches_within_a_step():
    qpos = np.zeros((8, NQ + 14))
    boxes = qpos[:, NQ:].reshape(8, 2, 7)
    boxes[:] = [0, 0, VASE.height, 1, 0, 0, 0]
    boxes[..., 0] = [5.0, 8.0]
    qvel, ctrl = np.zeros((8, NV + 12)), np.zeros((8, 2))
    expected = np.zeros(8, bool)
    boxes[1, 0, 0], expected[1] = 0.24, True  # the arrow is in the vase
    boxes[2, 0, 0] = 0.26  # 1 cm ahead, at rest
    boxes[3, 0, 0], qvel[3, 0], expected[3] = 0.26, 1.5, True  # 1 cm ahead, reached in 7 of 20 ms
    boxes[4, 0, 0], qvel[4, 0] = 0.29, 1.5  # 4 cm ahead: not within 3 cm
    boxes[5, 0, 0], qvel[5, 0] = 0.26, -1.5  # leaves
    boxes[6, 1, 0], expected[6] = 5.199, True  # two vases
    boxes[7, 0, 0], qvel[7, 0], ctrl[7, 0], expected[7] = 0.25 + 3e-4, 0.0, 1.0, True  # reached by thrust alone
    home = np.broadcast_to(boxes[:1], boxes.shape)
    bodies = PhysicsState(qpos, qvel, np.zeros((8, NV)), np.zeros_like(qvel), np.zeros((8, 0)), home, np.zeros(8, int))
    two = (objects.vases(2, 2.0),)
    np.testing.assert_array_equal(physics.touches_within_step(POINT, two, bodies, ctrl), expected)


def test_recorded_contacts_are_touches(recording, both):
    """States with a recorded contact begin or end steps that touch."""
    data, (*_, touched) = recording(2), both
    names, pair = data["geom_names"], data["contact_geom"]
    between = ~np.isin(pair, np.flatnonzero(names == "floor")).any(axis=1)
    rows = np.repeat(np.arange(len(data["contact_offset"]) - 1), np.diff(data["contact_offset"]))[between]
    recorded = np.isin(data["step_s_from"], rows) | np.isin(data["step_s_to"], rows)
    assert recorded.sum() > 40
    assert touched[recorded].mean() > 0.95
