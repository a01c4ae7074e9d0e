# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Write your own environment
#
# A world is a robot, objects, a reward and costs. Here a point robot shuttles to goals through a field of pillars that it
# must not touch, while it is watched from the middle: whoever leaves the inner circle pays as well.

# %%
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("jaxalign") is None:  # on Colab; accelerators need the extra cuda13 or tpu too
    command = [sys.executable, "-m", "pip", "install", "-q", "jaxalign @ git+https://github.com/OWNER/jaxalign"]
    subprocess.run(command, check=True)

import jax

SMOKE = os.environ.get("SMOKE") == "1"  # small sizes, under two minutes on a CPU
print(jax.device_count(), "x", jax.devices()[0].device_kind, "SMOKE" if SMOKE else "")

# %%
from pathlib import Path

import jax.numpy as jnp
from IPython.display import Image

import envs_mjx
from envs_mjx import objects, tasks
from envs_mjx.agents import POINT


def reward(last, world):
    """Progress to the goal, and 1 for arriving."""
    distance = tasks.planar_distance(world, "goal")[0]
    reached = distance <= 0.3
    return last - distance + reached, reached


def costs(last, world):
    """Touching a pillar; being more than 1.5 m from the middle."""
    away = jnp.linalg.norm(world.agent.pos[:2]) - 1.5
    return jnp.stack([tasks.touched(world, "pillars"), away])


task = tasks.Task(
    name="Shuttle",
    objects=(objects.goal(1.5), objects.pillars(4, 1.5)),
    robot_area=1.5,
    lidars=("goal", "pillars"),
    reward=reward,
    remember=lambda last, world, reached: tasks.planar_distance(world, "goal")[0],
    new_goal=tasks.redraw,
    cost_names=("cost_pillars", "cost_away"),
    costs=costs,
    touches=("pillars",),
)
envs_mjx.register("PointShuttle-v0", POINT, task)

# %% [markdown]
# An environment is two pure functions, `reset(key)` and `step(state, action)`. `jax.vmap` makes a batch.

# %%
env = envs_mjx.make("PointShuttle-v0")
print(env.spec)
states, obs = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 64))
states, after = jax.jit(jax.vmap(env.step))(states, jnp.zeros((64, 2)))
print(after.obs.shape, after.cost.shape, env.spec.cost_names)

# %%
import matplotlib.pyplot as plt

from envs_mjx import render

picture = render.plot("PointShuttle-v0", jax.tree.map(lambda x: x[0], states))
plt.imshow(picture)
plt.axis("off")
# %% [markdown]
# Every algorithm of the catalogue trains on it, under a limit per cost.

# %%
from jaxalign.cli import run
from jaxalign.cli.config import TrainConfig

config = TrainConfig(
    env="PointShuttle-v0",
    costs=("cost_pillars", "cost_away"),
    cost_limit=(10.0, 25.0),
    steps=100_000 if SMOKE else 5_000_000,
    eval_episodes=10 if SMOKE else 100,
    video=False,
    out=Path("runs/notebook"),
)
result = run.train(config)
Image(result.folder / "learning_curve.png")
