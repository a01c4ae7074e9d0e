"""Doggo: four legs of three joints each and a passive waist, with touch sensors at knees and feet."""

import jax.numpy as jnp
import mujoco

from envs_mjx import models
from envs_mjx.agents.base import ROBOT_MASKS, addresses, from_model, sin_cos

_ROBOT = models.load("doggo")
_JOINTS = tuple(
    f"{joint}_{leg}{axis}" for joint, axis in (("hip", "_z"), ("hip", "_y"), ("ankle", "")) for leg in (1, 2, 3, 4)
)
_TOUCH = tuple(f"ankle_{leg}{end}" for end in "ab" for leg in (1, 2, 3, 4))  # a: knee, b: foot
_ANGLE, _SPEED = addresses(_ROBOT, _JOINTS)


def _build(spec: mujoco.MjSpec) -> None:
    models.attach(spec, _ROBOT, **ROBOT_MASKS)
    for site in _TOUCH:
        spec.add_sensor(
            name=f"touch_{site}", type=mujoco.mjtSensor.mjSENS_TOUCH, objtype=mujoco.mjtObj.mjOBJ_SITE, objname=site
        )


def _senses(qpos, qvel, touch):
    return jnp.concatenate([touch, qvel[_SPEED], sin_cos(qpos[_ANGLE])])


DOGGO = from_model(
    "Doggo",
    _ROBOT,
    build=_build,
    touch_sensors=len(_TOUCH),
    sense_blocks=(
        *((f"touch_{site}", 1) for site in _TOUCH),
        *((f"jointvel_{joint}", 1) for joint in _JOINTS),
        *((f"jointpos_{joint}", 2) for joint in _JOINTS),
    ),
    senses=_senses,
)
