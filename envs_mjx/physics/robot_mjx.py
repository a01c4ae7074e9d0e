"""Engine "mjx" of `robot_alone`: MuJoCo MJX, for GPU, TPU and CPU."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs_mjx.physics.mjx_as_c import as_c, mjx
from envs_mjx.physics.mjx_engine import LINE_SEARCH_ITERATIONS, SOLVER_ITERATIONS
from envs_mjx.physics.robot_setup import RobotSetup
from envs_mjx.physics.runge_kutta import A, B, move


def functions(setup: RobotSetup):
    """What evaluates and what advances a robot; `robot_alone` explains the values.

    Returns:
        ``(qpos, qvel) -> (point, senses)`` and
        ``(qpos, qvel, warmstart, point, ctrl) -> (qpos, qvel, warmstart, point, shift, moved, senses)``; ``shift`` is
        how far the root has moved in the plane (m), and ``qpos`` has it at the origin again.
    """
    model = setup.build()
    runge_kutta = model.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4
    model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
    model.opt.iterations, model.opt.ls_iterations = SOLVER_ITERATIONS, LINE_SEARCH_ITERATIONS
    with as_c():
        device_model, blank = mjx.put_model(model, impl="jax"), mjx.make_data(model, impl="jax")

    def dynamics(qpos, qvel, warmstart, ctrl):
        data = blank.replace(qpos=qpos, qvel=qvel, qacc_warmstart=warmstart, ctrl=ctrl)
        with as_c():
            return mjx.forward(device_model, data)

    substeps = (_runge_kutta if runge_kutta else _euler)(setup, device_model, dynamics)

    def evaluate(qpos, qvel):
        if setup.measure != "mass" and not setup.senses:
            return jnp.zeros(2), jnp.zeros(0)
        data = mjx.kinematics(device_model, blank.replace(qpos=qpos, qvel=qvel))
        data = mjx.com_vel(device_model, mjx.com_pos(device_model, data))
        sensed = _senses(setup, data)
        if setup.senses:
            sensed = sensed.at[-setup.sense_sizes[-1] :].set(0.0)
        return _point(setup, data), sensed

    def advance(qpos, qvel, warmstart, point, ctrl):
        qpos, qvel, warmstart, after, sensed = substeps(qpos, qvel, warmstart, ctrl)
        shift = jnp.zeros(2).at[: setup.planar].set(qpos[: setup.planar])
        after = shift if setup.measure == "coordinates" else after
        qpos = qpos.at[: setup.planar].set(0.0)
        return qpos, qvel, warmstart, after - shift, shift, after - point, sensed

    return evaluate, advance


def _euler(setup: RobotSetup, model, dynamics):
    """(qpos, qvel, warmstart, ctrl) -> the same after a control step, the point whose speed counts, and the senses."""

    def run(qpos, qvel, warmstart, ctrl):
        def substep(carry, _):
            qpos, qvel, warmstart = carry[:3]
            data = dynamics(qpos, qvel, warmstart, ctrl)
            moved = mjx.euler(model, data)
            return (moved.qpos, moved.qvel, moved.qacc_warmstart, *_read(setup, model, data)), None

        start = (qpos, qvel, warmstart, jnp.zeros(2), jnp.zeros(sum(setup.sense_sizes)))
        return jax.lax.scan(substep, start, length=setup.frame_skip)[0]

    return run


def _runge_kutta(setup: RobotSetup, model, dynamics):
    """The same; all stages of all substeps are one loop, so that the dynamics are compiled once."""
    h, free = setup.robot.timestep, setup.free
    stages = jnp.tile(jnp.array([(*A[1:], 0.0), B, (0, 0, 0, 1)], jnp.float32), setup.frame_skip).T

    def run(qpos, qvel, warmstart, ctrl):
        def stage(carry, numbers):
            (qpos, qvel, warmstart), at, speed, travel, gain = carry[:5]
            a, b, last = numbers
            data = dynamics(at, speed, warmstart, ctrl)
            travel, gain = travel + b * speed, gain + b * data.qacc
            at = move(jnp, qpos, h * jnp.where(last, travel, a * speed), free)
            speed = qvel + h * jnp.where(last, gain, a * data.qacc)
            done = (at, speed, data.qacc)
            start = jax.tree.map(lambda new, old: jnp.where(last, new, old), done, (qpos, qvel, warmstart))
            sums = [jnp.where(last, 0.0, x) for x in (travel, gain)]
            return (start, at, speed, *sums, *_read(setup, model, data)), None

        zero, readings = jnp.zeros_like(qvel), (jnp.zeros(2), jnp.zeros(sum(setup.sense_sizes)))
        start = ((qpos, qvel, warmstart), qpos, qvel, zero, zero, *readings)
        body, *_, point, sensed = jax.lax.scan(stage, start, stages)[0]
        return *body, point, sensed

    return run


def _read(setup: RobotSetup, model, data):
    """What is read after a step, of an evaluation."""
    return _point(setup, data), _senses(setup, mjx.rne_postconstraint(model, data) if setup.senses else data)


def _point(setup: RobotSetup, data):
    if setup.measure == "coordinates":
        return jnp.zeros(2)
    if setup.measure == "root":
        return data.xpos[1, :2]
    return jnp.array(setup.body_mass.astype(np.float32)) @ data.xipos[:, :2]


def _senses(setup: RobotSetup, data):
    if not setup.senses:
        return jnp.zeros(0)
    fields = (data._impl.cinert, data.cvel, data.qfrc_actuator, data._impl.cfrc_ext)
    return jnp.concatenate([x.reshape(-1) for x in fields])
