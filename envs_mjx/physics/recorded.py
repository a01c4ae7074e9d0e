"""What happens inside a recorded control step, substep by substep in MuJoCo's C engine."""

import mujoco
import numpy as np
from jaxtyping import Bool

from envs_mjx import scene
from envs_mjx.agents import Agent
from envs_mjx.objects import Objects
from envs_mjx.physics.orbit import target
from envs_mjx.physics.state import SUBSTEPS, Bodies, PhysicsState


def touches_within_step(
    agent: Agent, objects: tuple[Objects, ...], state: PhysicsState, ctrl
) -> Bool[np.ndarray, " S"]:
    """Whether anything but the floor touches anything within the control step from `state` [S] under `ctrl` [S, A].

    All objects are simulated, none is asleep. Used to sort recorded transitions.
    """
    bodies = Bodies.of(objects)
    model = scene.build(agent, tuple((group, group.number) for group in bodies.groups))
    data, floor = mujoco.MjData(model), model.geom("floor").id
    orbits = [(i, g.travel) for i, g in enumerate(_each(bodies)) if g.kind == "orbiting"]
    mocaps = [i for i, group in enumerate(_each(bodies)) if group.kind != "free"]
    order = [i for i, _ in orbits] + [i for i in mocaps if i >= bodies.movable]
    touched = np.zeros(len(ctrl), bool)
    for s in range(len(ctrl)):
        mujoco.mj_resetData(model, data)
        data.qpos, data.qvel, data.qacc_warmstart = state.qpos[s], state.qvel[s], state.warmstart[s]
        data.ctrl = np.asarray(ctrl[s])
        places = state.home[s][order].astype(float)
        if order:
            data.mocap_pos, data.mocap_quat = places[:, :3], places[:, 3:]
        for substep in range(SUBSTEPS):
            time = (float(state.steps[s]) * SUBSTEPS + substep) * agent.timestep
            for row, (_, travel) in enumerate(orbits):
                data.mocap_pos[row] = places[row, :3] + target(np, np.asarray(time), travel)
            mujoco.mj_step(model, data)
            touched[s] |= (data.contact.geom != floor).all(axis=1).any()
        mujoco.mj_forward(model, data)
        touched[s] |= (data.contact.geom != floor).all(axis=1).any()
    return touched


def _each(bodies: Bodies) -> list[Objects]:
    return [group for group in bodies.groups for _ in range(group.number)]
