"""What is known of a robot: bodies, joints, geoms, actuators, and how the original integrates them.

A file holds the constants that Safety-Gymnasium's own model has once compiled: masses and inertias are given, never
derived from geoms. A field that is absent has MuJoCo's default, which is the default of the class below; the
``defaults`` of a file are those of a whole section. A file with a ``base`` is that other robot with some entries, found
by their name, changed. Lengths are in m, angles in rad, masses in kg, quaternions in the order w, x, y, z.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

_SOLREF, _SOLIMP = (0.02, 1.0), (0.9, 0.95, 0.001, 0.5, 2.0)
_ORIGIN, _IDENTITY = (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0)
_WIDTH = {"free": 7, "ball": 4}  # coordinates; a hinge or slide has one
_FREEDOM = {"free": 6, "ball": 3}


class Options(NamedTuple):
    """How the original integrates the robot: time step (s), solver, and the medium's density (kg/m^3) and viscosity."""

    timestep: float
    integrator: str
    solver: str = "Newton"
    iterations: int = 100
    tolerance: float = 1e-8
    density: float = 0.0
    viscosity: float = 0.0


class Body(NamedTuple):
    """A rigid body: pose in its parent, mass, and principal inertia (kg m^2) in the frame ``ipos``, ``iquat``."""

    name: str
    parent: str
    mass: float
    pos: tuple[float, ...] = _ORIGIN
    quat: tuple[float, ...] = _IDENTITY
    ipos: tuple[float, ...] = _ORIGIN
    iquat: tuple[float, ...] = _IDENTITY
    inertia: tuple[float, ...] = _ORIGIN


class Joint(NamedTuple):
    """A joint; ``ref`` is its coordinate in the start pose, ``range`` is None if unlimited."""

    name: str
    body: str
    type: str
    pos: tuple[float, ...] = _ORIGIN
    axis: tuple[float, ...] = (0.0, 0.0, 1.0)
    ref: float = 0.0
    springref: float = 0.0
    range: tuple[float, ...] | None = None
    stiffness: float = 0.0
    damping: float = 0.0
    armature: float = 0.0
    margin: float = 0.0
    solref_limit: tuple[float, ...] = _SOLREF
    solimp_limit: tuple[float, ...] = _SOLIMP


class Geom(NamedTuple):
    """A shape: half-lengths or radius as MuJoCo wants them, friction (slide, torsion in m, roll in m), collision masks.

    A mesh has no size but ``vertices`` [V, 3] of its convex hull, in the frame of the geom.
    """

    name: str
    body: str
    type: str
    size: tuple[float, ...]
    pos: tuple[float, ...] = _ORIGIN
    quat: tuple[float, ...] = _IDENTITY
    friction: tuple[float, ...] = (1.0, 0.005, 0.0001)
    condim: int = 3
    contype: int = 1
    conaffinity: int = 1
    solref: tuple[float, ...] = _SOLREF
    solimp: tuple[float, ...] = _SOLIMP
    margin: float = 0.0
    vertices: tuple[tuple[float, ...], ...] = ()

    @property
    def collides(self) -> bool:
        """Whether it can touch anything."""
        return bool(self.contype or self.conaffinity)


class Site(NamedTuple):
    """A sphere where sensors sit."""

    name: str
    body: str
    size: float
    pos: tuple[float, ...] = _ORIGIN
    quat: tuple[float, ...] = _IDENTITY


class Actuator(NamedTuple):
    """Joint force = gear * clip(gain * ctrl + bias . (1, gear q, gear dq/dt), forcerange), ctrl in ``ctrlrange``."""

    name: str
    joint: str
    gear: float
    ctrlrange: tuple[float, ...]
    forcerange: tuple[float, ...] | None = None
    gain: float = 1.0
    bias: tuple[float, ...] = _ORIGIN
    transmission: str = "joint"


class JointEquality(NamedTuple):
    """Soft constraint: coordinate of ``joint1`` = polynomial (constant first) of that of ``joint2``."""

    name: str
    joint1: str
    joint2: str
    polycoef: tuple[float, ...]
    solref: tuple[float, ...] = _SOLREF
    solimp: tuple[float, ...] = _SOLIMP


ENTRIES: dict[str, Any] = {
    "bodies": Body,
    "joints": Joint,
    "geoms": Geom,
    "sites": Site,
    "actuators": Actuator,
    "equalities": JointEquality,
}
_HEADER = ("source", "option", "floor", "defaults", "excludes")


class RobotModel(NamedTuple):
    """A robot in its start pose: at the world origin with identity orientation, at its start height.

    Attributes:
        name: of its file, e.g. ``"car"``.
        source: where its numbers come from.
        option: how the original integrates it.
        floor: the floor it is recorded on; `add_floor` puts it into a world.
        bodies: parents before children.
        joints: in the order of ``qpos``.
        geoms: in the order of the bodies; those of a navigation robot all collide.
        sites: where its sensors sit.
        actuators: in the order of the action.
        equalities: couplings of joints.
        excludes: pairs of bodies that never touch each other.
    """

    name: str
    source: str
    option: Options
    floor: Geom
    bodies: tuple[Body, ...]
    joints: tuple[Joint, ...]
    geoms: tuple[Geom, ...]
    sites: tuple[Site, ...]
    actuators: tuple[Actuator, ...]
    equalities: tuple[JointEquality, ...]
    excludes: tuple[tuple[str, ...], ...]

    @property
    def root(self) -> str:
        """Name of the body that hangs in the world."""
        return self.bodies[0].name

    @property
    def timestep(self) -> float:
        """Of the original's physics, s."""
        return self.option.timestep

    @property
    def integrator(self) -> str:
        """``"Euler"`` or ``"RK4"``."""
        return self.option.integrator

    @property
    def nq(self) -> int:
        """Length of ``qpos``."""
        return sum(_WIDTH.get(joint.type, 1) for joint in self.joints)

    @property
    def nv(self) -> int:
        """Length of ``qvel``."""
        return sum(_FREEDOM.get(joint.type, 1) for joint in self.joints)

    @property
    def nu(self) -> int:
        """Number of actuators."""
        return len(self.actuators)

    @property
    def ctrl_low(self) -> tuple[float, ...]:
        """Lowest control per actuator."""
        return tuple(actuator.ctrlrange[0] for actuator in self.actuators)

    @property
    def ctrl_high(self) -> tuple[float, ...]:
        """Highest control per actuator."""
        return tuple(actuator.ctrlrange[1] for actuator in self.actuators)

    @property
    def qpos0(self) -> tuple[float, ...]:
        """Coordinates of the start pose."""
        poses = {body.name: body.pos + body.quat for body in self.bodies}
        start = {joint.name: {"free": poses[joint.body], "ball": _IDENTITY} for joint in self.joints}
        return tuple(x for joint in self.joints for x in start[joint.name].get(joint.type, (joint.ref,)))


def parse(name: str, document: Mapping[str, Any]) -> RobotModel:
    """Makes a robot of the contents of its file.

    Args:
        name: of the robot.
        document: what the file holds, its ``base`` resolved.

    Raises:
        ValueError: a section or field is unknown or missing, a vector has a wrong length, a name is used twice, or an
            entry refers to something that does not exist.
    """
    unknown = sorted(set(document) - set(ENTRIES) - set(_HEADER))
    if unknown:
        raise ValueError(f"robot {name!r}: unknown sections {unknown}; remove them or use {[*_HEADER, *ENTRIES]}")
    defaults = document.get("defaults", {})
    sections = {
        section: tuple(_entry(kind, {**defaults.get(section, {}), **row}, f"robot {name!r}, {section}") for row in rows)
        for section, kind in ENTRIES.items()
        for rows in [document.get(section, ())]
    }
    floor = {"name": "floor", "body": "world", "type": "plane", **document.get("floor", {})}
    robot = RobotModel(
        name=name,
        source=document.get("source", ""),
        option=_entry(Options, document.get("option", {}), f"robot {name!r}, option"),
        floor=_entry(Geom, floor, f"robot {name!r}, floor"),
        excludes=_frozen(document.get("excludes", [])),
        **sections,
    )
    _check_references(robot)
    return robot


def _entry(kind, fields: Mapping[str, Any], where: str):
    """One entry as a `kind`; `where` is for the message if it is wrong."""
    label = f"{where}, {fields.get('name', 'entry')!r}"
    unknown = sorted(set(fields) - set(kind._fields))
    missing = [field for field in kind._fields if field not in fields and field not in kind._field_defaults]
    if unknown or missing:
        raise ValueError(f"{label}: unknown fields {unknown}, missing fields {missing}; the fields are {kind._fields}")
    for field, default in kind._field_defaults.items():
        length = len(default) if isinstance(default, tuple) else 0
        if length and len(fields.get(field, default)) != length:
            raise ValueError(f"{label}: {field} has {len(fields[field])} numbers; give {length}")
    return kind(**{field: _frozen(value) for field, value in fields.items()})


def _frozen(value):
    return tuple(_frozen(x) for x in value) if isinstance(value, list) else value


def _check_references(robot: RobotModel) -> None:
    known = {section: [entry.name for entry in getattr(robot, section)] for section in ENTRIES}
    for section, entries in known.items():
        twice = sorted({name for name in entries if entries.count(name) > 1})
        if twice:
            raise ValueError(f"robot {robot.name!r}, {section}: {twice} occur more than once; rename all but one")
    bodies, joints = {"world", *known["bodies"]}, set(known["joints"])
    references = [
        *((f"the parent of body {body.name!r}", body.parent, bodies) for body in robot.bodies),
        *((f"the body of joint {joint.name!r}", joint.body, bodies) for joint in robot.joints),
        *((f"the body of geom {geom.name!r}", geom.body, bodies) for geom in robot.geoms),
        *((f"the body of site {site.name!r}", site.body, bodies) for site in robot.sites),
        *((f"the joint of actuator {actuator.name!r}", actuator.joint, joints) for actuator in robot.actuators),
        *(
            (f"a joint of equality {eq.name!r}", name, joints)
            for eq in robot.equalities
            for name in (eq.joint1, eq.joint2)
        ),
        *(("a body of an exclude", name, bodies) for pair in robot.excludes for name in pair),
    ]
    for what, name, valid in references:
        if name not in valid:
            raise ValueError(
                f"robot {robot.name!r}: {what} is {name!r}, which does not exist; use one of {sorted(valid)}"
            )
