"""Car: two driven wheels with weak motors and a rear ball that rolls freely; it drives towards its -y axis."""

import jax.numpy as jnp

from envs_mjx import models
from envs_mjx.agents.base import from_model
from envs_mjx.geometry import quat_to_mat

_BALL, _BALL_SPIN = slice(9, 13), slice(8, 11)  # after the root (7, 6) and the two wheels


def _senses(qpos, qvel, touch):
    return jnp.concatenate([qvel[_BALL_SPIN], quat_to_mat(qpos[_BALL]).reshape(-1)])


CAR = from_model(
    "Car",
    models.load("car"),
    sense_blocks=(("ballangvel_rear", 3), ("ballquat_rear", 9)),
    senses=_senses,
    box_half=0.125,
    box_density=0.0005,
)
