"""Reads the files of the robots and adds a robot to a MuJoCo model."""

import functools
import importlib.resources
import json
from typing import Any

import mujoco

from envs_mjx.models.robot import ENTRIES, Actuator, Geom, Joint, JointEquality, RobotModel, parse

NEWTON_TOLERANCE = 1e-12


def names() -> tuple[str, ...]:
    """Robots that `load` knows."""
    files = importlib.resources.files("envs_mjx.models").iterdir()
    return tuple(sorted(file.name.removesuffix(".json") for file in files if file.name.endswith(".json")))


@functools.cache
def load(name: str) -> RobotModel:
    """The robot of that name, read once.

    Raises:
        ValueError: the name is not one of `names`, or the robot's file is wrong (see `parse`).
    """
    return parse(name, _document(name))


def _document(name: str) -> dict[str, Any]:
    """Contents of a robot's file, its base included."""
    if name not in names():
        raise ValueError(f"load: there is no robot {name!r}; use one of {', '.join(names())}")
    text = importlib.resources.files("envs_mjx.models").joinpath(f"{name}.json").read_text(encoding="utf-8")
    document = json.loads(text)
    if "base" not in document:
        return document
    merged = _document(document["base"]) | {"source": document["source"]}
    for section in ENTRIES:
        changes = {row["name"]: row for row in document.get(section, ())}
        merged[section] = [row | changes.pop(row["name"], {}) for row in merged.get(section, ())]
        if changes:
            raise ValueError(f"robot {name!r}, {section}: {sorted(changes)} are not in its base; correct the names")
    return merged


def set_options(spec: mujoco.MjSpec, robot: RobotModel) -> None:
    """Integrates a world as the original integrates the robot; a simulation that diverges does not reset itself.

    Two settings differ from the original's, so that the result does not. Convex shapes are collided by libccd, the only
    way in MuJoCo 2.3.3: the one that MuJoCo 3 prefers changes the racecar's wheels on its bumper by up to 0.2 in a
    control step, libccd by 4e-3. And Newton stops at 1e-12 instead of 1e-8, because MuJoCo 3.17 stops earlier than
    2.3.3 did at equal tolerance: the largest error of a control step of the ant falls from 1e-6 to 7e-9, for 10 % more
    time.
    """
    option = robot.option
    spec.option.timestep = option.timestep
    spec.option.integrator = getattr(mujoco.mjtIntegrator, f"mjINT_{option.integrator.upper()}")
    spec.option.solver = getattr(mujoco.mjtSolver, f"mjSOL_{option.solver.upper()}")
    spec.option.cone = mujoco.mjtCone.mjCONE_PYRAMIDAL
    spec.option.iterations = option.iterations
    spec.option.tolerance = min(option.tolerance, NEWTON_TOLERANCE) if option.solver == "Newton" else option.tolerance
    spec.option.density, spec.option.viscosity = option.density, option.viscosity
    spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET | mujoco.mjtDisableBit.mjDSBL_NATIVECCD


def add_floor(spec: mujoco.MjSpec, robot: RobotModel) -> None:
    """Adds the floor that the robot is recorded on, as geom ``"floor"``."""
    _add_geom(spec, robot.floor, robot.floor.contype, robot.floor.conaffinity)


def attach(spec: mujoco.MjSpec, robot: RobotModel, contype: int | None = None, conaffinity: int | None = None) -> None:
    """Adds the robot in its start pose to a world: bodies, joints, geoms, sites, actuators, equalities and excludes.

    Args:
        spec: the world; its angles must be in rad (``spec.compiler.degree`` False). Its options stay as they are.
        robot: whom to add.
        contype: collision mask of every geom that collides; None keeps that of the file.
        conaffinity: the other mask, likewise.

    Raises:
        ValueError: the world's angles are in degrees.
    """
    if spec.compiler.degree:
        raise ValueError(f"attach robot {robot.name!r}: the spec is in degrees; set spec.compiler.degree = False first")
    for body in robot.bodies:
        parent = spec.worldbody if body.parent == "world" else spec.body(body.parent)
        parent.add_body(
            name=body.name,
            pos=body.pos,
            quat=body.quat,
            explicitinertial=True,
            mass=body.mass,
            ipos=body.ipos,
            iquat=body.iquat,
            inertia=body.inertia,
        )
    for joint in robot.joints:
        _add_joint(spec, joint)
    for geom in robot.geoms:
        _add_geom(
            spec,
            geom,
            geom.contype if contype is None or not geom.collides else contype,
            geom.conaffinity if conaffinity is None or not geom.collides else conaffinity,
        )
    for site in robot.sites:
        spec.body(site.body).add_site(name=site.name, pos=site.pos, quat=site.quat, size=[site.size, 0, 0])
    for actuator in robot.actuators:
        _add_actuator(spec, actuator)
    for equality in robot.equalities:
        _add_equality(spec, equality)
    for first, second in robot.excludes:
        spec.add_exclude(bodyname1=first, bodyname2=second)


def compile_alone(name: str) -> mujoco.MjModel:
    """The robot on its own floor, integrated and colliding as in the original."""
    robot = load(name)
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    set_options(spec, robot)
    add_floor(spec, robot)
    attach(spec, robot)
    return spec.compile()


def _add_joint(spec: mujoco.MjSpec, joint: Joint) -> None:
    spec.body(joint.body).add_joint(
        name=joint.name,
        type=getattr(mujoco.mjtJoint, f"mjJNT_{joint.type.upper()}"),
        pos=joint.pos,
        axis=joint.axis,
        ref=joint.ref,
        springref=joint.springref,
        limited=joint.range is not None,
        range=joint.range or (0, 0),
        stiffness=(joint.stiffness, 0, 0),
        damping=(joint.damping, 0, 0),
        armature=joint.armature,
        margin=joint.margin,
        solref_limit=joint.solref_limit,
        solimp_limit=joint.solimp_limit,
    )


def _add_geom(spec: mujoco.MjSpec, geom: Geom, contype: int, conaffinity: int) -> None:
    body = spec.worldbody if geom.body == "world" else spec.body(geom.body)
    shape: dict[str, Any] = {"size": (*geom.size, 0, 0, 0)[:3]}
    if geom.vertices:
        spec.add_mesh(name=geom.name, uservert=[x for vertex in geom.vertices for x in vertex])
        shape["meshname"] = geom.name
    body.add_geom(
        name=geom.name,
        type=getattr(mujoco.mjtGeom, f"mjGEOM_{geom.type.upper()}"),
        pos=geom.pos,
        quat=geom.quat,
        friction=geom.friction,
        condim=geom.condim,
        contype=contype,
        conaffinity=conaffinity,
        solref=geom.solref,
        solimp=geom.solimp,
        margin=geom.margin,
        **shape,
    )


def _add_actuator(spec: mujoco.MjSpec, actuator: Actuator) -> None:
    bias = mujoco.mjtBias.mjBIAS_AFFINE if any(actuator.bias) else mujoco.mjtBias.mjBIAS_NONE
    spec.add_actuator(
        name=actuator.name,
        trntype=getattr(mujoco.mjtTrn, f"mjTRN_{actuator.transmission.upper()}"),
        target=actuator.joint,
        gear=[actuator.gear] + [0] * 5,
        gaintype=mujoco.mjtGain.mjGAIN_FIXED,
        gainprm=[actuator.gain] + [0] * 9,
        biastype=bias,
        biasprm=[*actuator.bias] + [0] * 7,
        ctrllimited=True,
        ctrlrange=actuator.ctrlrange,
        forcelimited=actuator.forcerange is not None,
        forcerange=actuator.forcerange or (0, 0),
    )


def _add_equality(spec: mujoco.MjSpec, equality: JointEquality) -> None:
    constraint = spec.add_equality(
        name=equality.name,
        type=mujoco.mjtEq.mjEQ_JOINT,
        objtype=mujoco.mjtObj.mjOBJ_JOINT,
        name1=equality.joint1,
        name2=equality.joint2,
        solref=equality.solref,
        solimp=equality.solimp,
    )
    constraint.data[: len(equality.polycoef)] = equality.polycoef
