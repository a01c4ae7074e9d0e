"""Ant: four legs of two joints each. It dies when its torso sinks to 0.08 m.

`ANT` is the robot of Safety-Gymnasium 1.0.0, the version on PyPI that published results use: its feet weigh 1 g each,
so that random actions overturn it within some 26 steps. `ANT_V1` is the repaired robot of later versions (ankles of
density 50000, 10.6 kg each), here under ids that end in ``-v1``. Safety-Gymnasium calls both ``-v0``.
"""

import jax
import jax.numpy as jnp
import numpy as np

from envs_mjx import models
from envs_mjx.agents.base import Agent, addresses, from_model, rest_pose, sin_cos
from envs_mjx.geometry import quat_to_mat, quat_z

_JOINTS = tuple(f"{part}_{leg}" for leg in (1, 2, 3, 4) for part in ("hip", "ankle"))
_SITE = (0.0, 0.0, -0.02)  # m
_DEATH_HEIGHT = 0.08  # m
_NOISE = 0.1  # rad
_BENT = np.array([0.0, np.pi / 2] * 4)
_SIGN = np.array([1, 1, 1, -1, 1, -1, 1, 1])


def _ant(model: str) -> Agent:
    robot = models.load(model)
    angle, speed = addresses(robot, _JOINTS)
    height = robot.bodies[0].pos[2]

    def place(key, xy, yaw):
        noise = jax.random.uniform(key, (len(_JOINTS),), minval=-_NOISE, maxval=_NOISE)
        upright = jnp.concatenate([xy, jnp.array([height]), quat_z(yaw), rest_pose(robot)])
        return upright.at[angle].set((_BENT + noise) * _SIGN)

    def senses(qpos, qvel, touch):
        mat = quat_to_mat(qpos[3:7])
        site = qpos[2] + mat[2] @ jnp.array(_SITE)
        return jnp.concatenate([qvel[speed], site[None], mat @ qvel[3:6], sin_cos(qpos[angle])])

    return from_model(
        "Ant",
        robot,
        place=place,
        sensor_site=_SITE,
        sense_blocks=(
            *((f"{joint}_vel", 1) for joint in _JOINTS),
            ("agent_pos", 1),
            ("agent_qvel", 3),
            *((joint, 2) for joint in _JOINTS),
        ),
        senses=senses,
        alive=lambda motion: motion.pos[2] > _DEATH_HEIGHT,
    )


ANT, ANT_V1 = _ant("ant"), _ant("ant_v1")
