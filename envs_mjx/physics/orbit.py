"""Orbiting objects: boxes dragged by a soft spring round circles.

The point that drags an object is at ``home + (travel sin t, travel cos t, 0.1)``, set before every substep from the
time at its start. An object that nothing touches follows the same path relative to its home in every episode: rising
and swinging in from rest, then circling with a lag of about 0.09 s. `track` computes that path once, in MuJoCo's C
engine, so undisturbed objects cost nothing.
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float

from envs_mjx import scene
from envs_mjx.objects import Objects
from envs_mjx.physics.state import SUBSTEPS

LIFT = 0.1  # m, of the dragging point above the home


class Track(NamedTuple):
    """Path of an undisturbed object by control step: offset from its home (m) and velocity (m/s), ``[T, 3]``."""

    offset: Float[np.ndarray, "T 3"]
    velocity: Float[np.ndarray, "T 3"]


def target(xp, time, travel: float):
    """Offset of the dragging point from the home at `time` (s); `xp` is `numpy` or `jax.numpy`."""
    return xp.stack([travel * xp.sin(time), travel * xp.cos(time), xp.full_like(time, LIFT)], axis=-1)


@functools.lru_cache
def track(group: Objects, timestep: float, integrator: mujoco.mjtIntegrator, steps: int) -> Track:
    """The path of an undisturbed object over `steps` control steps."""
    model = scene.build_alone(group, timestep, integrator)
    data = mujoco.MjData(model)
    home = data.qpos[:3].copy()
    offset, velocity = np.zeros((steps + 1, 3)), np.zeros((steps + 1, 3))
    for step in range(steps):
        for substep in range(SUBSTEPS):
            time = np.asarray((step * SUBSTEPS + substep) * timestep)
            data.mocap_pos[0] = home + target(np, time, group.travel)
            mujoco.mj_step(model, data)
        offset[step + 1], velocity[step + 1] = data.qpos[:3] - home, data.qvel[:3]
    return Track(offset.astype(np.float32), velocity.astype(np.float32))


def mocap_path(home: Float[Array, "O 3"], steps, timestep: float, travel: Float[np.ndarray, " O"]):
    """Places of the dragging points during a control step and after it, ``[SUBSTEPS + 1, O, 3]``, m."""
    substep = jnp.minimum(jnp.arange(SUBSTEPS + 1), SUBSTEPS - 1)  # the last evaluation keeps the last place
    time = (steps * SUBSTEPS + substep) * timestep
    return home + jnp.stack([target(jnp, time, float(radius)) for radius in travel], axis=1)
