"""The MuJoCo model of a world: robot, floor, and the objects around it that can be touched.

Ghosts (goals, hazards) collide with nothing and exist as coordinates in the environment state only. Of the other groups
as many are built as a step needs, see `physics`. Fixed and orbiting objects hang on mocap bodies, so that their places
are data and not part of the model.

MJX gets a model of its own. It allocates room for every contact that two geoms could have, so pairs are listed one by
one, and geoms whose collision MJX lacks or does coarsely are replaced by others with the same surface where it matters:

    box on floor              the box's eight corners as points: the contacts of MuJoCo's plane-box collision, where
                              MJX's own drops corners 1 mm or more above the deepest
    fixed cylinder            met at its side only, see `physics.mjx_as_c`: nothing here reaches its ends
    robot's cylinder on box   a prism of `PRISM_SIDES` sides with the cylinder's mean radius (error +-1 % of the radius)

and the robot does not collide with itself.
"""

import itertools
import math

import mujoco
import numpy as np

from envs_mjx.agents import Agent
from envs_mjx.models.loader import NEWTON_TOLERANCE
from envs_mjx.objects import Objects, Shape

CONDIM = 6  # the original gives every geom torsional and rolling friction
FRICTION = (1.0, 0.005, 0.0001)
FLOOR_MASKS = {"contype": 0, "conaffinity": 1}
MOVING_MASKS = {"contype": 3, "conaffinity": 2}
FIXED_MASKS = {"contype": 0, "conaffinity": 2}
PRISM_SIDES = 16
FLOOR_CONTACTS = 16  # of a robot, that MJX solves at once: the deepest
TETHER = {"solref": [0.02, 1.5]}  # of the spring that drags an orbiting object

_TYPES = {
    "sphere": mujoco.mjtGeom.mjGEOM_SPHERE,
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
}

Groups = tuple[tuple[Objects, int], ...]


def body_name(group: Objects, index: int) -> str:
    """Name of the body of an object."""
    return f"{group.name}_{index}"


def build(agent: Agent, groups: Groups = (), for_mjx: bool = False) -> mujoco.MjModel:
    """Compiles the robot on the floor with some objects.

    ``qpos`` is the robot's, then 7 numbers for every free or orbiting object in order. Mocap bodies are, in order, the
    fixed objects and the points that drag orbiting ones.

    Args:
        agent: robot.
        groups: groups of objects and how many of each.
        for_mjx: list contact pairs explicitly, with geoms that MJX can collide.
    """
    spec = _empty(agent.timestep, agent.integrator)
    agent.build(spec)
    for geom in spec.geoms:
        geom.condim = CONDIM
    spec.worldbody.add_geom(
        name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[3.5, 3.5, 0.1], condim=CONDIM, **FLOOR_MASKS
    )
    bodies = [(group, body_name(group, i)) for group, number in groups for i in range(number)]
    for i, (group, name) in enumerate(bodies):
        _add_object(spec, group, name, 10.0 + i)
    if for_mjx:
        _list_pairs(spec, agent, bodies)
    return spec.compile()


def build_alone(group: Objects, timestep: float, integrator: mujoco.mjtIntegrator) -> mujoco.MjModel:
    """Compiles one object of a group, and nothing else."""
    spec = _empty(timestep, integrator)
    _add_object(spec, group, body_name(group, 0), 0.0)
    return spec.compile()


def _empty(timestep: float, integrator: mujoco.mjtIntegrator) -> mujoco.MjSpec:
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    spec.option.timestep = timestep
    spec.option.integrator = integrator
    spec.option.solver = mujoco.mjtSolver.mjSOL_NEWTON
    spec.option.cone = mujoco.mjtCone.mjCONE_PYRAMIDAL
    # a diverged simulation must not look sane; and convex shapes meet as in MuJoCo 2.3.3, see `models.set_options`
    spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET | mujoco.mjtDisableBit.mjDSBL_NATIVECCD
    spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_ISLAND  # finding islands costs more than it saves here
    spec.option.iterations, spec.option.tolerance = 100, NEWTON_TOLERANCE
    return spec


def _add_object(spec: mujoco.MjSpec, group: Objects, name: str, x: float) -> None:
    fixed = group.kind == "fixed"
    body = spec.worldbody.add_body(name=name, pos=[x, 0, group.height], mocap=fixed)
    if not fixed:
        body.add_freejoint(name=name)
    for i, shape in enumerate(group.shapes):
        _add_shape(body, f"{name}_{i}", shape, density=group.density, **(FIXED_MASKS if fixed else MOVING_MASKS))
    if group.kind == "orbiting":
        spec.worldbody.add_body(name=f"{name}_target", pos=[x, 0, group.height], mocap=True)
        weld = spec.add_equality(
            name=name,
            type=mujoco.mjtEq.mjEQ_WELD,
            objtype=mujoco.mjtObj.mjOBJ_BODY,
            name1=f"{name}_target",
            name2=name,
            **TETHER,
        )
        weld.data = [0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0]  # anchor, relative position and rotation, torque scale


def _add_shape(body, name: str, shape: Shape, **kwargs) -> None:
    size = (*shape.size, 0.0, 0.0)[:3]
    body.add_geom(name=name, type=_TYPES[shape.kind], size=size, pos=shape.pos, condim=CONDIM, **kwargs)


def _list_pairs(spec: mujoco.MjSpec, agent: Agent, bodies: list[tuple[Objects, str]]) -> None:
    """Replaces collision masks by explicit pairs between geoms that MJX can collide, and caps their contacts."""
    robot = [geom for geom in spec.geoms if geom.contype and geom.name != "floor" and not _is_of(geom, bodies)]
    for geom in spec.geoms:
        geom.contype = geom.conaffinity = 0
    prisms = [_prism(spec, geom) if geom.type == _TYPES["cylinder"] else geom for geom in robot] if bodies else robot
    pairs = [("floor", geom.name) for geom in robot] if agent.on_floor else []
    contacts = FLOOR_CONTACTS if agent.on_floor else 0
    solids = {name: [f"{name}_{i}" for i in range(len(group.shapes))] for group, name in bodies}
    for group, name in bodies:
        boxes = group.kind != "fixed"
        if boxes:
            pairs += [("floor", corner) for corner in _add_corners(spec, group, name)]
            contacts += 4 * len(group.shapes)
        pairs += [(geom.name, part) for geom in (prisms if boxes else robot) for part in solids[name]]
        contacts += 5 * len(group.shapes)
    for (group, name), (other, other_name) in itertools.combinations(bodies, 2):
        if "fixed" in (group.kind, other.kind) and group.kind == other.kind:
            continue
        first, last = (other_name, name) if group.kind == "fixed" else (name, other_name)
        pairs += [(part, other_part) for part in solids[first] for other_part in solids[last]]
        contacts += 4
    for first, second in pairs:
        slide, spin, roll = np.maximum(spec.geom(first).friction, spec.geom(second).friction)
        spec.add_pair(geomname1=first, geomname2=second, condim=CONDIM, friction=[slide, slide, spin, roll, roll])
    if contacts:
        spec.add_numeric(name="max_contact_points", data=[contacts])


def _is_of(geom, bodies: list[tuple[Objects, str]]) -> bool:
    return any(geom.parent.name == name for _, name in bodies)


def _add_corners(spec: mujoco.MjSpec, group: Objects, name: str) -> list[str]:
    names = []
    for shape in group.shapes:
        for signs in itertools.product((-1, 1), repeat=3):
            x, y, z = (at + half * sign for at, half, sign in zip(shape.pos, shape.half, signs, strict=True))
            names.append(f"{name}_corner{len(names)}")
            corner = Shape("sphere", (1e-9,), (x, y, z))
            _add_shape(spec.body(name), names[-1], corner, density=0.0, contype=0, conaffinity=0)
    return names


def _prism(spec: mujoco.MjSpec, geom):
    """A prism beside a cylinder of the robot, of the same mean radius."""
    radius, half_height = geom.size[:2]
    angle = (np.arange(PRISM_SIDES) + 0.5) * (2 * np.pi / PRISM_SIDES)
    mean = radius * 2 / (1 + math.cos(math.pi / PRISM_SIDES))
    ring = mean * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points = [(*xy, sign * half_height) for sign in (-1, 1) for xy in ring]
    mesh = spec.add_mesh(name=f"{geom.name}_prism", uservert=np.ravel(points))
    return geom.parent.add_geom(
        name=mesh.name,
        type=mujoco.mjtGeom.mjGEOM_MESH,
        meshname=mesh.name,
        pos=geom.pos,
        quat=geom.quat,
        friction=geom.friction,
        condim=CONDIM,
        contype=0,
        conaffinity=0,
    )
