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
# # Train a safe policy
#
# A point robot learns to reach goals while it stays out of hazards: PPO with a Lagrange multiplier on
# `SafetyPointGoal1-v0`, at most 25 costs per episode of 1,000 steps. The full run makes 1e7 steps: two to four minutes on two CPU
# cores.

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

from IPython.display import Image, Video

from jaxalign.cli import run
from jaxalign.cli.config import TrainConfig

config = TrainConfig(
    algorithm="ppo_lag",
    env="SafetyPointGoal1-v0",
    cost_limit=(25.0,),
    steps=200_000 if SMOKE else 10_000_000,
    eval_episodes=10 if SMOKE else 100,
    out=Path("runs/notebook"),
)
result = run.train(config)

# %% [markdown]
# Everything about the run lies in one folder. `jaxalign resume FOLDER` continues an interrupted one, bit for bit.

# %%
print(*sorted(path.name for path in result.folder.iterdir()), sep="\n")
Image(result.folder / "learning_curve.png")

# %%
film = next(path for path in result.folder.iterdir() if path.suffix in {".gif", ".mp4"})
Image(film) if film.suffix == ".gif" else Video(film, embed=True)

# %% [markdown]
# The same by hand. A learner is a pure function from state to state, so everything that JAX can do to a function it can do to
# learning: here two seeds and two limits at once, in one program.

# %%
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import envs_mjx
from jaxalign import saferl

iterations = 3 if SMOKE else 100
env = saferl.select_costs(envs_mjx.make("SafetyPointGoal1-v0"), ["cost"])
learner = saferl.make("ppo_lag", env, limit=[25.0], total_iterations=iterations)


def begin(seed, limit):
    state = learner.init(jax.random.key(seed))
    return state._replace(hyper=state.hyper._replace(limit=limit[None]))


states = jax.jit(jax.vmap(begin))(jnp.array([0, 1, 0, 1]), jnp.array([10.0, 10.0, 40.0, 40.0]))
step = jax.jit(jax.vmap(learner.step))
costs = []
for _ in range(iterations):
    states, info = step(states)
    costs.append(np.asarray(info.episode_cost[:, 0]))

plt.plot(costs, label=["limit 10, seed 0", "limit 10, seed 1", "limit 40, seed 0", "limit 40, seed 1"])
plt.xlabel("iteration")
plt.ylabel("cost per episode")
plt.legend()
