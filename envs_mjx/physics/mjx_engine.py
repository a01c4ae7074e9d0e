"""Engine "mjx": MuJoCo MJX, for GPU, TPU and CPU."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs_mjx import lanes, scene
from envs_mjx.agents import Agent
from envs_mjx.physics import planar
from envs_mjx.physics.mjx_as_c import as_c, mjx
from envs_mjx.physics.orbit import mocap_path
from envs_mjx.physics.state import SUBSTEPS, Bodies, PhysicsState

SLOTS = {"free": 3, "orbiting": 3, "fixed": 2}  # objects of a group that are simulated at once
SOLVER_ITERATIONS, LINE_SEARCH_ITERATIONS = 8, 10


def stepper(model: mujoco.MjModel, substeps: int = SUBSTEPS):
    """(qpos, qvel, warmstart, ctrl, mocap_pos [substeps + 1, M, 3], mocap_quat) -> (qpos, qvel, warmstart, qacc,
    touch).

    Advances by `substeps` and evaluates the forward dynamics once more, so that accelerations belong to the new state.
    """
    model.opt.iterations, model.opt.ls_iterations = SOLVER_ITERATIONS, LINE_SEARCH_ITERATIONS
    with as_c():
        device_model = mjx.put_model(model, impl="jax")
        blank = mjx.make_data(model, impl="jax")
    runge_kutta = model.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4
    integrate = mjx.rungekutta4 if runge_kutta else mjx.euler

    def substep(carry, inputs):
        last, mocap_pos, fixed = inputs
        with as_c():
            data = mjx.forward(device_model, blank.replace(**carry, **fixed, mocap_pos=mocap_pos))
            moved = integrate(device_model, data)
        carry = {name: jnp.where(last, value, getattr(moved, name)) for name, value in carry.items()}
        return carry, (data.qacc, data.sensordata)

    def run(qpos, qvel, warmstart, ctrl, mocap_pos, mocap_quat):
        carry = dict(qpos=qpos, qvel=qvel, qacc_warmstart=warmstart)
        fixed = dict(ctrl=ctrl, mocap_quat=mocap_quat)
        last = jnp.arange(substeps + 1) == substeps
        carry, (qacc, touch) = jax.lax.scan(lambda c, x: substep(c, (*x, fixed)), carry, (last, mocap_pos))
        return carry["qpos"], carry["qvel"], carry["qacc_warmstart"], qacc[-1], touch[-1]

    return run


def alone(agent: Agent, substeps: int = SUBSTEPS):
    """(qpos, qvel, warmstart, ctrl) -> the same as `stepper`, for the robot with no object near.

    In closed form where there is one, see `planar`.
    """
    model = scene.build(agent, for_mjx=True)
    if planar.fits(model):
        return planar.stepper(model, substeps)
    if not agent.on_floor:  # a few degrees of freedom without constraints: one fused loop, where dense calls LAPACK
        model.opt.jacobian = mujoco.mjtJacobian.mjJAC_SPARSE
    run = stepper(model, substeps)
    mocaps = jnp.zeros((substeps + 1, 0, 3)), jnp.zeros((0, 4))
    return lambda qpos, qvel, warmstart, ctrl: run(qpos, qvel, warmstart, ctrl, *mocaps)


def contact(agent: Agent, bodies: Bodies):
    """(base, state, ctrl, active, distance) -> state: `base` with what happens among the active bodies.

    Of more active objects than `SLOTS` of a group the nearest are simulated and the others pause for the step.
    """
    slots = tuple(min(group.number, SLOTS[group.kind]) for group in bodies.groups)
    together = _with_slots(agent, bodies, slots)

    def run(base: PhysicsState, state: PhysicsState, ctrl, active, distance):
        return lanes.where(active.any(), together, base, base, state, ctrl, active, distance)

    return run


def _with_slots(agent: Agent, bodies: Bodies, slots: tuple[int, ...]):
    """Contact step with so many places for the objects of each group."""
    nq, nv = agent.nq, agent.nv
    groups = tuple(zip(bodies.groups, slots, strict=True))
    advance = stepper(scene.build(agent, groups, for_mjx=True))
    kinds = [group.kind for group, n in groups for _ in range(n)]
    travel = np.array([group.travel for group, n in groups for _ in range(n) if group.kind == "orbiting"])
    orbits, obstacles = (np.array([k == kind for k in kinds], bool) for kind in ("orbiting", "fixed"))
    moving = np.flatnonzero(~obstacles)

    def run(base: PhysicsState, state: PhysicsState, ctrl, active, distance):
        rank = jnp.where(active, distance, jnp.inf)
        chosen = [
            start + jnp.argsort(rank[start:end])[:n]
            for start, end, n in zip(bodies.starts[:-1], bodies.starts[1:], slots, strict=True)
        ]
        chosen = jnp.concatenate(chosen)
        movers = chosen[moving]

        def gather(x, num, width):
            return jnp.concatenate([x[:num], x[num:].reshape(-1, width)[movers].reshape(-1)])

        def scatter(base, old, new, num, width):
            objects, old = base[num:].reshape(-1, width), old[num:].reshape(-1, width)
            paused = active[: bodies.movable].at[movers].set(False)
            objects = jnp.where(paused[:, None], old, objects)
            new_objects = jnp.where(active[movers, None], new[num:].reshape(-1, width), objects[movers])
            return jnp.concatenate([new[:num], objects.at[movers].set(new_objects).reshape(-1)])

        home = state.home[chosen]
        places = home[obstacles, :3]
        fixed_path = jnp.broadcast_to(places, (SUBSTEPS + 1, *places.shape))
        path = fixed_path
        if orbits.any():
            drag = mocap_path(home[orbits, :3], state.steps, agent.timestep, travel)
            path = jnp.concatenate([drag, fixed_path], axis=1)
        quat = jnp.concatenate([home[orbits, 3:], home[obstacles, 3:]])
        qpos, qvel, warmstart, qacc, touch = advance(
            gather(state.qpos, nq, 7), gather(state.qvel, nv, 6), gather(state.warmstart, nv, 6), ctrl, path, quat
        )
        return base._replace(
            qpos=scatter(base.qpos, state.qpos, qpos, nq, 7),
            qvel=scatter(base.qvel, state.qvel, qvel, nv, 6),
            warmstart=scatter(base.warmstart, state.warmstart, warmstart, nv, 6),
            qacc=qacc[:nv],
            touch=touch,
        )

    return run
