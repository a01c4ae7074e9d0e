"""Point: a sphere with an arrow, pushed along its heading and turned by a saturated velocity servo.

Coordinates ``qpos = (x, y, yaw)`` in the world frame. The original's slide joints live in the rotated start frame; the
dynamics are the same because the joints' damping is isotropic.

Two facts of the original are kept on purpose. The scalar actuator force is clipped to +-0.05 *before* the gear of 0.3,
so an action of 0.05 already saturates the thrust. The turn servo is integrated explicitly with a gain of about six per
2 ms step and chatters inside its linear band. The sphere touches the floor with distance exactly zero and never feels
friction, so the pair is left out.
"""

import math

import jax.numpy as jnp
import mujoco

from envs_mjx.agents.base import ROBOT_MASKS, Agent
from envs_mjx.geometry import rotation_z
from envs_mjx.sensors import BodyMotion

HEIGHT = 0.1  # m
_FORCE_LIMIT = 0.05  # N (thrust) and N m (turn), before the gear
_GEAR = 0.3


def _build(spec: mujoco.MjSpec) -> None:
    body = spec.worldbody.add_body(
        name="agent",
        pos=[0, 0, HEIGHT],
        explicitinertial=True,
        mass=0.005188790204786391,
        ipos=[0.0192723151358, 0, 0],
        iquat=[0.5, 0.5, 0.5, 0.5],
        inertia=[2.64945959722e-05, 2.64945959722e-05, 1.84218274858e-05],
    )
    slide, hinge = mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_HINGE
    for name, kind, axis, damping in (("x", slide, [1, 0, 0], 0.01), ("y", slide, [0, 1, 0], 0.01)):
        body.add_joint(name=name, type=kind, axis=axis, damping=[damping, 0, 0])
    body.add_joint(name="yaw", type=hinge, axis=[0, 0, 1], damping=[0.005, 0, 0])
    body.add_geom(
        name="ball", type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.1, 0, 0], friction=[1, 0.01, 0.01], **ROBOT_MASKS
    )
    body.add_geom(name="arrow", type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.05] * 3, pos=[0.1, 0, 0], **ROBOT_MASKS)
    body.add_site(name="agent")
    common = dict(
        gaintype=mujoco.mjtGain.mjGAIN_FIXED,
        gainprm=[1] + [0] * 9,
        ctrllimited=True,
        ctrlrange=[-1, 1],
        forcelimited=True,
        forcerange=[-_FORCE_LIMIT, _FORCE_LIMIT],
        gear=[_GEAR, 0, 0, 0, 0, 0],
    )
    spec.add_actuator(name="thrust", trntype=mujoco.mjtTrn.mjTRN_SITE, target="agent", **common)
    spec.add_actuator(
        name="turn",
        trntype=mujoco.mjtTrn.mjTRN_JOINTINPARENT,
        target="yaw",
        biastype=mujoco.mjtBias.mjBIAS_AFFINE,
        biasprm=[0, 0, -1] + [0] * 7,
        **common,
    )


def _motion(qpos, qvel, qacc) -> BodyMotion:
    zero = jnp.zeros_like(qpos[0])
    return BodyMotion(
        pos=jnp.stack([qpos[0], qpos[1], zero + HEIGHT]),
        mat=rotation_z(qpos[2]),
        velocity=jnp.stack([qvel[0], qvel[1], zero]),
        spin=jnp.stack([zero, zero, qvel[2]]),
        acceleration=jnp.stack([qacc[0], qacc[1], zero]),
        spin_rate=jnp.stack([zero, zero, qacc[2]]),
    )


POINT = Agent(
    name="Point",
    build=_build,
    on_floor=False,
    motion=_motion,
    place=lambda key, xy, yaw: jnp.stack([xy[0], xy[1], yaw]),
    radius=math.hypot(0.15, 0.05, 0.05),
    nq=3,
    nv=3,
    timestep=0.002,
    integrator=mujoco.mjtIntegrator.mjINT_EULER,
    action_low=(-1.0, -1.0),
    action_high=(1.0, 1.0),
)
