"""Free motion of a rigid body in the plane, in closed form: what Point does while it touches nothing.

Coordinates ``(x, y, yaw)``, velocities in the body's own axes ``(u, v, w)``, centre of mass ``c`` in those axes, mass
``m``, moment of inertia ``I`` about the vertical through the body's origin. With ``f`` the actuators' forces and the
joints' damping, also in the body's axes,

    [  m     0   -m c_y ] [ u' ]   [ f_u + m w^2 c_x ]
    [  0     m    m c_x ] [ v' ] = [ f_v + m w^2 c_y ]
    [-m c_y  m c_x   I  ] [ w' ]   [ f_w             ]

where u' and v' are components of the acceleration, not derivatives of components. MuJoCo's Euler integrator adds
``timestep * damping`` to the diagonal before it solves for the change of velocity, and moves with the new velocity
(https://mujoco.readthedocs.io/en/stable/computation/index.html, "Numerical integration"). The numbers are read off the
compiled model. MJX's general recursion needs many times the operations to trace, compile and run.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np


class Actuator(NamedTuple):
    """Force ``clip(clip(ctrl) * gain + bias * velocity)`` along `moment`, in the body's axes."""

    moment: tuple[float, float, float]
    gain: float
    bias: float
    ctrl: tuple[float, float]
    force: tuple[float, float]


# Of the engine's switches, those that do not change how a body moves that touches nothing
_BIT, _BIAS = mujoco.mjtDisableBit, mujoco.mjtBias
_HARMLESS = int(_BIT.mjDSBL_ISLAND) | int(_BIT.mjDSBL_AUTORESET) | int(_BIT.mjDSBL_NATIVECCD)


def fits(model: mujoco.MjModel) -> bool:
    """Whether the model is one body that slides along x and y and turns about z, without anything else at work."""
    kinds = mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_HINGE
    joints = model.njnt == model.nv == 3 and model.nbody == 2 and tuple(model.jnt_type) == kinds
    if not joints or model.opt.integrator != mujoco.mjtIntegrator.mjINT_EULER:
        return False
    absent = model.jnt_stiffness, model.dof_armature, model.dof_frictionloss, model.jnt_limited, model.jnt_pos
    absent += model.dof_dampingpoly, model.jnt_actfrclimited, model.body_gravcomp, model.opt.gravity[:2]
    absent += model.actuator_dyntype, model.actuator_gainprm[:, 1:], model.actuator_biasprm[:, [0, 1]]
    affine, no_bias = (model.actuator_biastype == int(kind) for kind in (_BIAS.mjBIAS_AFFINE, _BIAS.mjBIAS_NONE))
    absent += model.actuator_gaintype, ~(affine | no_bias), model.actuator_biasprm[no_bias]
    absent += model.actuator_damping, model.actuator_dampingpoly, model.opt.density, model.opt.viscosity
    absent += (model.opt.disableflags & ~_HARMLESS,)
    return (
        all(not np.any(x) for x in absent)
        and model.na == model.neq == model.ntendon == model.npair == model.nsensor == 0
        and np.array_equal(model.jnt_axis, np.eye(3))
        and np.array_equal(model.body_quat[1], [1, 0, 0, 0])
        and bool(model.dof_damping[0] == model.dof_damping[1])
        and all(_moment(model, i) is not None for i in range(model.nu))
    )


def _moment(model: mujoco.MjModel, actuator: int) -> tuple[float, float, float] | None:
    """What a unit of force does along x, y and yaw of the body; None where that is not constant."""
    gear, target = model.actuator_gear[actuator], model.actuator_trnid[actuator, 0]
    kind, kinds = mujoco.mjtTrn(model.actuator_trntype[actuator]), mujoco.mjtTrn
    if kind in {kinds.mjTRN_JOINT, kinds.mjTRN_JOINTINPARENT} and target == 2:
        return 0.0, 0.0, float(gear[0])
    if kind == kinds.mjTRN_SITE and model.actuator_trnid[actuator, 1] == -1 and model.site_bodyid[target] == 1:
        turn = np.zeros(9)
        mujoco.mju_quat2Mat(turn, model.site_quat[target])
        force, torque = turn.reshape(3, 3) @ gear[:3], turn.reshape(3, 3) @ gear[3:]
        arm = model.site_pos[target]
        return float(force[0]), float(force[1]), float(arm[0] * force[1] - arm[1] * force[0] + torque[2])
    return None


def stepper(model: mujoco.MjModel, substeps: int):
    """(qpos, qvel, warmstart, ctrl) -> (qpos, qvel, warmstart, qacc, touch), as `mjx_engine.alone`."""
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, model.body_iquat[1])
    turn = turn.reshape(3, 3)
    mass, (c_x, c_y) = float(model.body_mass[1]), (float(x) for x in model.body_ipos[1, :2])
    inertia = float(turn[2] ** 2 @ model.body_inertia[1]) + mass * (c_x**2 + c_y**2)
    drag, turn_drag, h = float(model.dof_damping[0]), float(model.dof_damping[2]), float(model.opt.timestep)
    actuators = [_actuator(model, i) for i in range(model.nu)]

    def solve(f_u, f_v, f_w, extra, turn_extra):
        diagonal = mass + extra
        rest = inertia + turn_extra - mass**2 * (c_x**2 + c_y**2) / diagonal
        spin = (f_w + mass / diagonal * (c_y * f_u - c_x * f_v)) / rest
        return (f_u + mass * c_y * spin) / diagonal, (f_v - mass * c_x * spin) / diagonal, spin

    def forces(u, v, w, ctrl):
        f = [mass * w**2 * c_x - drag * u, mass * w**2 * c_y - drag * v, -turn_drag * w]
        for x, actuator in zip(ctrl, actuators, strict=True):
            velocity = sum(a * b for a, b in zip(actuator.moment, (u, v, w), strict=True) if a)
            force = jnp.clip(actuator.gain * jnp.clip(x, *actuator.ctrl) + actuator.bias * velocity, *actuator.force)
            f = [a + b * force if b else a for a, b in zip(f, actuator.moment, strict=True)]
        f_u, f_v, f_w = f
        return f_u, f_v, f_w

    def evaluate(qpos, qvel, ctrl, damped):
        """Acceleration in the world's axes: that of the state, or the one the integrator applies."""
        cos, sin = jnp.cos(qpos[2]), jnp.sin(qpos[2])
        u, v = cos * qvel[0] + sin * qvel[1], cos * qvel[1] - sin * qvel[0]
        f_u, f_v, f_w = forces(u, v, qvel[2], ctrl)
        a, b, spin = solve(f_u, f_v, f_w, h * drag if damped else 0.0, h * turn_drag if damped else 0.0)
        return jnp.stack([cos * a - sin * b, sin * a + cos * b, spin])

    def run(qpos, qvel, warmstart, ctrl):
        def substep(carry, _):
            qpos, qvel, _ = carry
            new = qvel + h * evaluate(qpos, qvel, ctrl, damped=True)
            return (qpos + h * new, new, evaluate(qpos, qvel, ctrl, damped=False)), None

        (qpos, qvel, warmstart), _ = jax.lax.scan(substep, (qpos, qvel, warmstart), length=substeps)
        return qpos, qvel, warmstart, evaluate(qpos, qvel, ctrl, damped=False), jnp.zeros(0)

    return run


def _actuator(model: mujoco.MjModel, i: int) -> Actuator:
    def limits(limited: bool, bounds: np.ndarray) -> tuple[float, float]:
        return (float(bounds[0]), float(bounds[1])) if limited else (-np.inf, np.inf)

    return Actuator(
        moment=_moment(model, i) or (0.0, 0.0, 0.0),
        gain=float(model.actuator_gainprm[i, 0]),
        bias=float(model.actuator_biasprm[i, 2]),
        ctrl=limits(bool(model.actuator_ctrllimited[i]), model.actuator_ctrlrange[i]),
        force=limits(bool(model.actuator_forcelimited[i]), model.actuator_forcerange[i]),
    )
