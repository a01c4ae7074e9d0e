"""The robots' numbers against the compiled models of Safety-Gymnasium, and their motion against its recordings."""

import copy

import mujoco
import numpy as np
import pytest

from envs_mjx import models

NAVIGATION = ("car", "racecar", "ant", "ant_v1", "doggo")
VELOCITY = tuple(f"velocity_{name}" for name in ("ant", "half_cheetah", "hopper", "walker2d", "swimmer", "humanoid"))
ROBOTS = NAVIGATION + VELOCITY
KINDS = ("body", "jnt", "geom", "site", "actuator")
ELSEWHERE = {  # recorded fields that mjModel keeps under another name
    ("jnt", "damping"): lambda model: model.dof_damping[model.jnt_dofadr],
    ("jnt", "armature"): lambda model: model.dof_armature[model.jnt_dofadr],
    ("jnt", "frictionloss"): lambda model: model.dof_frictionloss[model.jnt_dofadr],
    ("site", "radius"): lambda model: model.site_size[:, 0],
    ("actuator", "trnid"): lambda model: model.actuator_trnid[:, 0],
    ("geom", "margin"): lambda model: 2 * model.geom_margin,  # two geoms' margins are summed now, were not then
}


@pytest.fixture(scope="module")
def compiled():
    return {name: models.compile_alone(name) for name in ROBOTS}


@pytest.fixture(scope="module")
def constants(golden):
    with np.load(golden / "robot_models.npz") as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def steps(golden):
    with np.load(golden / "robot_steps.npz") as archive:
        return dict(archive)


def element_names(model, kind):
    count = {"body": model.nbody, "jnt": model.njnt, "geom": model.ngeom, "site": model.nsite, "actuator": model.nu}
    access = getattr(model, kind)
    return [access(i).name for i in range(count[kind])]


def compiled_field(model, kind, field):
    """A field of mjModel in the width of the recording; the world is not one of the bodies."""
    if (kind, field) in ELSEWHERE:
        return ELSEWHERE[kind, field](model)
    value = getattr(model, f"{kind}_{field}")
    return value[1:] if kind == "body" else value


# --- constants


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ROBOTS)
def test_constants_are_those_of_the_original(compiled, constants, name, kind):
    model, recorded = compiled[name], constants[f"{name}/{kind}"]
    mesh = recorded["type"] == mujoco.mjtGeom.mjGEOM_MESH if kind == "geom" else np.zeros(len(recorded), bool)
    for field in set(recorded.dtype.names) - {"name"}:
        expected, value = recorded[field], compiled_field(model, kind, field)
        assert len(value) == len(expected), field
        if field in ("gainprm", "biasprm"):
            assert not np.any(value[:, 3:])
            value = value[:, :3]
        if field in ("contype", "conaffinity") and name == "velocity_swimmer":
            expected = np.zeros_like(expected)  # the original switches contacts off by an option that is gone
        if field in ("size", "pos", "quat"):  # a mesh is compared by its vertices, below
            value, expected = value[~mesh], expected[~mesh]
        if field == "invweight0":  # a derived number that the whole tree enters; the original puts the centre of a
            value, expected = value[model.body_mass[1:] > 0], expected[recorded["mass"] > 0]  # massless body anywhere
        np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-12, err_msg=field)


@pytest.mark.parametrize("name", ROBOTS)
def test_options_couplings_and_start_pose_are_those_of_the_original(compiled, constants, name):
    model, robot = compiled[name], models.load(name)
    option, couplings = constants[f"{name}/opt"], constants[f"{name}/eq"]
    for field in option.dtype.names:
        np.testing.assert_allclose(getattr(model.opt, field), option[field], rtol=1e-12, err_msg=field)
    assert model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_AUTORESET
    assert model.neq == len(couplings)
    for field in couplings.dtype.names:
        value = getattr(model, f"eq_{field}")
        if field == "data":
            value = value[:, :5]
        np.testing.assert_allclose(value, couplings[field], err_msg=field)
    expected = {(min(a, b) << 16) + max(a, b) for a, b in constants[f"{name}/exclude"].tolist()}
    assert set(model.exclude_signature.tolist()) == expected
    start, spring = constants[f"{name}/qpos"]
    np.testing.assert_allclose(model.qpos0, start, rtol=1e-12)
    np.testing.assert_allclose(model.qpos_spring, spring, rtol=1e-12)
    np.testing.assert_allclose(robot.qpos0, start, rtol=1e-12)


def test_the_racecar_has_the_couplings_that_the_test_above_compares(constants):
    assert len(constants["racecar/eq"]) == 1
    assert len(constants["racecar/exclude"]) == 2


def test_chassis_hull_lies_where_the_original_has_it(compiled, constants):
    """Compiling moves a mesh into its inertia frame, so vertices are compared in the frame of the body."""
    model = compiled["racecar"]
    geom = model.geom("car_body_0")
    recorded = constants["racecar/geom"][geom.id]
    mesh = model.mesh(geom.dataid[0])
    vertices = model.mesh_vert[mesh.vertadr[0] : mesh.vertadr[0] + mesh.vertnum[0]]
    ours = place(vertices, geom.pos, geom.quat)
    original = place(constants["racecar/hull"], recorded["pos"], recorded["quat"])
    assert ours.shape == original.shape == (78, 3)
    distance = np.linalg.norm(ours[:, None] - original[None], axis=2)
    assert distance.min(axis=1).max() < 1e-7  # float32
    assert distance.min(axis=0).max() < 1e-7


def place(points, pos, quat):
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quat)
    return points @ matrix.reshape(3, 3).T + pos


@pytest.mark.parametrize("name", ROBOTS)
def test_everything_has_a_name_and_the_original_one_where_it_had_one(compiled, constants, name):
    model = compiled[name]
    for kind in KINDS:
        ours, original = element_names(model, kind), constants[f"{name}/{kind}"]["name"].tolist()
        ours = ours[1:] if kind == "body" else ours
        assert all(ours), kind
        assert len(set(ours)) == len(ours)
        if name in NAVIGATION and kind == "jnt":
            assert ours[0] == "root"
            assert model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE
            ours, original = ours[1:], original[1:]
        assert all(mine == theirs for mine, theirs in zip(ours, original, strict=True) if theirs), kind
    assert models.load(name).root == model.body(1).name
    assert model.body(1).name == ("agent" if name in NAVIGATION else "torso")


@pytest.mark.parametrize("name", ROBOTS)
def test_sizes_and_bounds_of_the_robot_are_those_of_the_model(compiled, name):
    model, robot = compiled[name], models.load(name)
    assert (robot.nq, robot.nv, robot.nu) == (model.nq, model.nv, model.nu)
    np.testing.assert_array_equal(np.stack([robot.ctrl_low, robot.ctrl_high], axis=1), model.actuator_ctrlrange)
    assert robot.timestep == model.opt.timestep
    assert getattr(mujoco.mjtIntegrator, f"mjINT_{robot.integrator.upper()}") == model.opt.integrator


def test_the_two_ants_differ_in_their_ankles_only():
    light, heavy = models.load("ant"), models.load("ant_v1")
    changed = [a.name for a, b in zip(light.bodies, heavy.bodies) if a != b]
    assert changed == ["front_left_foot", "front_right_foot", "left_back_foot", "right_back_foot"]
    assert light._replace(name="", source="", bodies=()) == heavy._replace(name="", source="", bodies=())
    assert sum(body.mass for body in light.bodies) == pytest.approx(0.0142325, rel=1e-5)
    assert sum(body.mass for body in heavy.bodies) == pytest.approx(42.255, rel=1e-5)


# --- motion


def replay(model, steps, name):
    """Largest error per recorded control step in coordinates and velocities, and whether the robot touched itself."""
    data, floor = mujoco.MjData(model), model.geom("floor").id
    recorded = {field: steps[f"{name}/{field}"] for field in ("qpos", "qvel", "action", "next_qpos", "next_qvel")}
    errors, touched = [], []
    for qpos, qvel, action, next_qpos, next_qvel in zip(*recorded.values()):
        mujoco.mj_resetData(model, data)
        data.qpos, data.qvel, data.ctrl = qpos, qvel, action
        own = False
        for _ in range(steps[f"{name}/substeps"]):
            mujoco.mj_step(model, data)
            own |= bool((data.contact.geom != floor).all(axis=1).any())
        errors.append([np.abs(data.qpos - next_qpos).max(), np.abs(data.qvel - next_qvel).max()])
        touched.append(own)
    assert np.abs(recorded["next_qpos"] - recorded["qpos"]).max() > 0.05
    return *np.transpose(errors), np.array(touched)


@pytest.mark.parametrize(("name", "bound"), [("car", 1e-12), ("ant", 1e-8), ("ant_v1", 1e-12), ("doggo", 1e-11)])
def test_control_steps_of_navigation_robots(compiled, steps, name, bound):
    """Ten physics steps each, on the floor. Measured: 2e-13 (car), 4e-9 (ant), 3e-13 (ant_v1), 2e-12 (doggo).

    The ant weighs 14 g and its motors have the inertia of 1 kg m^2: its contact problem is ill-conditioned.
    """
    position, velocity, touched = replay(compiled[name], steps, name)
    assert len(position) == 30
    assert not touched.any()
    assert position.max() < bound
    assert np.quantile(position, 0.9) < 1e-11
    assert velocity.max() < 100 * bound


def test_control_steps_of_the_racecar(compiled, steps):
    """Its front wheels touch its own bumper when it steers hard: two convex shapes, where engines differ.

    The original repeats its own recordings of such steps to 2.5e-3 only, as the contact solver's memory is not part of
    the state. Measured: 2e-10 and, where the wheels touch, 3e-3.
    """
    position, velocity, touched = replay(compiled["racecar"], steps, "racecar")
    assert 3 < touched.sum() < 10
    assert position[~touched].max() < 1e-9
    assert velocity[~touched].max() < 1e-7
    assert np.median(position[touched]) < 1e-4
    assert position[touched].max() < 5e-3


@pytest.mark.parametrize("name", ["velocity_ant", "velocity_half_cheetah", "velocity_hopper"])
def test_control_steps_of_velocity_robots(compiled, steps, name):
    """One control step each. Measured: 4e-12 (Ant), 2e-12 (HalfCheetah), 3e-14 (Hopper)."""
    position, velocity, _ = replay(compiled[name], steps, name)
    assert len(position) == 40
    assert position.max() < 1e-11
    assert velocity.max() < 1e-9


def test_control_steps_of_the_humanoid(compiled, steps):
    """Its solver, PGS with 50 iterations, does not converge, so the last digits depend on the engine's version.

    Measured: median 4e-13, 99 % 1.9e-7; one step in which capsules of the robot touch each other 2e-3.
    """
    position, _, _ = replay(compiled["velocity_humanoid"], steps, "velocity_humanoid")
    assert len(position) == 110
    assert np.median(position) < 1e-9
    assert np.quantile(position, 0.99) < 2e-7


@pytest.mark.parametrize(("masks", "touches"), [(0, False), (1, True)])
def test_the_swimmer_touches_nothing(masks, touches):
    """With the floor raised into its body; the second case shows that geoms that could touch would."""
    robot, spec = models.load("velocity_swimmer"), world()
    floor = robot.floor._replace(pos=(0.0, 0.0, 0.0), contype=robot.floor.contype + masks)
    geoms = tuple(geom._replace(conaffinity=geom.conaffinity + masks) for geom in robot.geoms)
    models.add_floor(spec, robot._replace(floor=floor))
    models.attach(spec, robot._replace(geoms=geoms))
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    assert (data.ncon > 0) == touches


# --- adding a robot to a world


def world():
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    return spec


def test_masks_given_to_attach_replace_those_of_the_file():
    robot = models.load("ant")
    silent = robot.geoms[0]._replace(contype=0, conaffinity=0)
    spec = world()
    models.attach(spec, robot._replace(geoms=(silent, *robot.geoms[1:])), contype=4, conaffinity=2)
    model = spec.compile()
    np.testing.assert_array_equal(model.geom_contype, [0] + [4] * 12)
    np.testing.assert_array_equal(model.geom_conaffinity, [0] + [2] * 12)
    spec = world()
    models.attach(spec, models.load("velocity_ant"), contype=8)
    model = spec.compile()
    np.testing.assert_array_equal(model.geom_contype, 8)
    np.testing.assert_array_equal(model.geom_conaffinity, 0)  # the file's


def test_attach_leaves_the_rest_of_the_world_alone():
    spec = world()
    box = spec.worldbody.add_body(name="box", pos=[3, 0, 1])
    box.add_freejoint()
    box.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.1, 0.1, 0.1], density=500)
    models.attach(spec, models.load("racecar"))
    model = spec.compile()
    assert model.body("box").mass[0] == pytest.approx(4.0)
    assert model.body("agent").subtreemass[0] == pytest.approx(2.15607, rel=1e-5)
    assert model.opt.timestep == 0.002
    assert "floor" not in element_names(model, "geom")


def test_a_world_in_degrees_is_refused():
    with pytest.raises(ValueError, match=r"'ant'.*degrees.*degree = False"):
        models.attach(mujoco.MjSpec(), models.load("ant"))


# --- wrong files


def test_an_unknown_robot_names_the_known_ones():
    assert set(models.names()) == set(ROBOTS)
    with pytest.raises(ValueError, match=r"no robot 'cat'.*ant, ant_v1, car, doggo, racecar, velocity_ant"):
        models.load("cat")


SMALL = {
    "option": {"timestep": 0.01, "integrator": "Euler"},
    "floor": {"size": [1.0, 1.0, 0.1]},
    "bodies": [{"name": "ball", "parent": "world", "mass": 1.0, "inertia": [1.0, 1.0, 1.0]}],
    "joints": [{"name": "root", "body": "ball", "type": "free"}],
}


def test_a_right_file_is_read():
    robot = models.parse("small", SMALL)
    assert robot.bodies == (models.Body("ball", "world", 1.0, inertia=(1.0, 1.0, 1.0)),)
    assert (robot.nq, robot.nv, robot.nu, robot.qpos0) == (7, 6, 0, (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("tendons", [], r"'small': unknown sections \['tendons'\]"),
        ("option", {"timestep": 0.01}, r"option.*missing fields \['integrator'\]"),
        ("joints", [{"name": "a", "body": "ball", "type": "free", "dmping": 1.0}], r"joints, 'a'.*\['dmping'\]"),
        ("joints", [{"name": "a", "body": "ball", "type": "hinge", "axis": [1.0]}], r"'a': axis has 1 numbers; give 3"),
        ("joints", [{"name": "a", "body": "bell", "type": "free"}], r"joint 'a' is 'bell', which does not exist"),
        ("joints", SMALL["joints"] * 2, r"joints: \['root'\] occur more than once"),
        ("actuators", [{"name": "m", "joint": "x", "gear": 1.0, "ctrlrange": [-1.0, 1.0]}], r"actuator 'm' is 'x'"),
        ("excludes", [["ball", "bat"]], r"exclude is 'bat'"),
    ],
)
def test_a_wrong_file_is_explained(section, change, message):
    document = copy.deepcopy(SMALL) | {section: change}
    with pytest.raises(ValueError, match=message):
        models.parse("small", document)
