"""The MuJoCo model of a world: robot, floor and the objects that can be pushed.

Only what has dynamics is modelled. Hazards and goals are ghosts (they collide with nothing) and exist as coordinates in
the environment state. Contacts are listed pair by pair, so an engine allocates none that cannot occur.
"""

import itertools
from typing import NamedTuple

import mujoco
import numpy as np

from envs_mjx.agents import Agent, Shape

CONDIM = 6  # the original gives every geom torsional and rolling friction
FLOOR_FRICTION = (1.0, 0.005, 0.0001)


class FreeBox(NamedTuple):
    """A box that can be pushed.

    Attributes:
        half: half edge length, m.
        density: kg/m^3.
        height: start height of the centre, m.
        friction: sliding, torsional (m) and rolling (m) coefficient.
    """

    half: float
    density: float
    height: float
    friction: tuple[float, float, float] = (1.0, 0.005, 0.0001)

    @property
    def bounding_radius(self) -> float:
        """Radius of the sphere around the box, m."""
        return self.half * float(np.sqrt(3.0))


def build(agent: Agent, box: FreeBox | None, count: int, corner_points: bool = False) -> mujoco.MjModel:
    """Compiles the robot on the floor with ``count`` equal boxes; ``qpos`` is the robot's, then 7 per box.

    Args:
        agent: robot.
        box: what the boxes are like; may be None if there are none.
        count: number of boxes.
        corner_points: lets the floor see a box as its eight corners instead of as a box. The contacts are those of
            MuJoCo's plane-box collision, where MJX's own drops corners 1 mm or more above the deepest (measured: up to
            3 mm of error in a control step of a tumbling vase). At most four corners per box touch at a time, so the
            number of contacts is capped at what a box can have: four with the floor, five with the robot.
    """
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    spec.option.timestep = agent.timestep
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_EULER
    spec.option.solver = mujoco.mjtSolver.mjSOL_NEWTON
    spec.option.cone = mujoco.mjtCone.mjCONE_PYRAMIDAL
    spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET  # a diverged simulation must not look sane
    spec.option.iterations, spec.option.tolerance = 100, 1e-8
    agent.add_to(spec)
    spec.worldbody.add_geom(
        name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[3.5, 3.5, 0.1], contype=0, conaffinity=0
    )
    for shape in agent.shapes:
        _add_shape(spec.body("agent"), shape)
    boxes = [f"box{i}" for i in range(count)]
    for i, name in enumerate(boxes):
        assert box is not None
        body = spec.worldbody.add_body(name=name, pos=[10.0 + i, 0, box.height])
        body.add_freejoint()
        _add_shape(body, Shape(name, "box", (box.half,) * 3, (0.0, 0.0, 0.0), box.friction), box.density)
    if box is not None:
        for name in boxes:
            for geom in _add_corners(spec.body(name), box) if corner_points else [name]:
                _add_pair(spec, "floor", FLOOR_FRICTION, geom, box.friction)
            for shape in agent.shapes:
                _add_pair(spec, shape.name, shape.friction, name, box.friction)
        for first, second in itertools.combinations(boxes, 2):
            _add_pair(spec, first, box.friction, second, box.friction)
    if corner_points and count:
        contacts = 9 * count + 4 * (count * (count - 1) // 2)
        spec.add_numeric(name="max_contact_points", data=[contacts])
    return spec.compile()


def _add_corners(body, box: FreeBox) -> list[str]:
    names = []
    for signs in itertools.product((-1, 1), repeat=3):
        x, y, z = (box.half * sign for sign in signs)
        shape = Shape(f"{body.name}_corner{len(names)}", "sphere", (1e-9,), (x, y, z), box.friction)
        _add_shape(body, shape)
        names.append(shape.name)
    return names


def _add_shape(body, shape: Shape, density: float = 0.0) -> None:
    kinds = {"sphere": mujoco.mjtGeom.mjGEOM_SPHERE, "box": mujoco.mjtGeom.mjGEOM_BOX}
    size = list(shape.size) + [0.0] * (3 - len(shape.size))
    body.add_geom(
        name=shape.name, type=kinds[shape.kind], size=size, pos=shape.pos, density=density, contype=0, conaffinity=0
    )


def _add_pair(spec: mujoco.MjSpec, name_a: str, friction_a, name_b: str, friction_b) -> None:
    slide, spin, roll = np.maximum(friction_a, friction_b)
    spec.add_pair(geomname1=name_a, geomname2=name_b, condim=CONDIM, friction=[slide, slide, spin, roll, roll])
