"""The closed form of a body in the plane, against MuJoCo's C engine in float64."""

import jax
import mujoco
import numpy as np
import pytest

from envs_mjx import scene
from envs_mjx.agents import CAR, POINT
from envs_mjx.physics import planar

LOPSIDED = """<mujoco><option timestep="0.01" integrator="Euler"/><worldbody><body name="b">
<inertial mass="0.7" pos="0.1 -0.3 0.2" quat="0.5 0.1 -0.4 0.7" diaginertia="0.02 0.03 0.04"/>
<joint type="slide" axis="1 0 0" damping="0.4"/><joint type="slide" axis="0 1 0" damping="0.4"/>
<joint name="yaw" type="hinge" axis="0 0 1" damping="0.2"/><site name="s" pos="0.3 0.2 0" euler="0 0 50"/>
</body></worldbody><actuator>
<general site="s" gear="1 -0.5 0 0 0 0.3" gainprm="2" biastype="affine" biasprm="0 0 -0.7" forcerange="-3 3"/>
<general joint="yaw" gear="0.6" gainprm="1.5" ctrlrange="-1 0.5" biastype="affine" biasprm="0 0 -2"/>
</actuator></mujoco>"""


def models():
    return {"Point": scene.build(POINT, for_mjx=True), "lopsided": mujoco.MjModel.from_xml_string(LOPSIDED)}


@pytest.mark.parametrize("name", models())
@pytest.mark.parametrize("substeps", [0, 1, 10])
def test_steps_as_mujoco(name, substeps):
    model = models()[name]
    assert planar.fits(model)
    data, rng = mujoco.MjData(model), np.random.default_rng(0)
    with jax.enable_x64(True):
        run = jax.jit(planar.stepper(model, substeps))
        for _ in range(50):
            mujoco.mj_resetData(model, data)
            data.qpos[:], data.qvel[:] = 2 * rng.normal(size=3), [1, 1, 5] * rng.normal(size=3)
            data.ctrl[:] = rng.uniform(-1.5, 1.5, 2)
            qpos, qvel, warmstart, qacc, touch = run(*map(np.copy, (data.qpos, data.qvel, np.zeros(3), data.ctrl)))
            for _ in range(substeps):
                mujoco.mj_step(model, data)
            last = np.copy(data.qacc) if substeps else np.zeros(3)
            mujoco.mj_forward(model, data)
            for ours, theirs in ((qpos, data.qpos), (qvel, data.qvel), (qacc, data.qacc), (warmstart, last)):
                # the chatter of Point's servo multiplies an error by about six in each substep
                np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-9)
            assert touch.shape == (0,)


def test_only_such_bodies_fit():
    assert not planar.fits(scene.build(CAR, for_mjx=True))
    for change in (
        lambda m: m.dof_damping.__setitem__(1, 0.02),  # drag along y differs
        lambda m: m.dof_armature.__setitem__(2, 0.1),
        lambda m: m.jnt_stiffness.__setitem__(0, 1.0),
        lambda m: m.jnt_axis.__setitem__(0, [0, 0, 1]),
        lambda m: m.actuator_trnid.__setitem__((1, 0), 0),  # pushes along the world's x
        lambda m: m.dof_dampingpoly.fill(0.1),  # drag that grows with speed
        lambda m: m.opt.gravity.__setitem__(0, 1.0),
        lambda m: setattr(m.opt, "viscosity", 0.1),
        lambda m: m.jnt_actfrclimited.fill(True),
        lambda m: m.actuator_damping.fill(0.1),
        lambda m: m.actuator_biastype.fill(mujoco.mjtBias.mjBIAS_MUSCLE),
        lambda m: setattr(m.opt, "disableflags", int(mujoco.mjtDisableBit.mjDSBL_EULERDAMP)),
        lambda m: setattr(m.opt, "integrator", mujoco.mjtIntegrator.mjINT_RK4),
    ):
        model = models()["Point"]
        change(model)
        assert not planar.fits(model)
