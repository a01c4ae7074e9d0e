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
# # Write your own constraint
#
# Algorithms are rows of parts. To try an idea about constraints only the constraint is written: here multipliers that grow with
# the *logarithm* of cost over limit, so that a cost ten times too high counts as much as one ten times too low.

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
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import envs_mjx
from jaxalign import dist, saferl
from jaxalign.saferl import constraints, onpolicy


def logarithmic(rate: float = 0.1) -> constraints.Constraint:
    """Multipliers ``mu <- max(0, mu + rate log((1 + J_c) / (1 + limit)))``."""

    def observe(multipliers, cost, limit):
        return jnp.maximum(multipliers + rate * jnp.log((1 + cost) / (1 + limit)), 0.0)

    return constraints.Constraint(
        init=jnp.zeros,
        observe=observe,
        mix=constraints.scalarise,
        multipliers=lambda multipliers: multipliers,
    )


# %% [markdown]
# Everything else is PPO-Lagrangian's. The multiplier that comes out is shown beside that of the original.

# %%
iterations = 3 if SMOKE else 150
env = saferl.select_costs(envs_mjx.make("SafetyPointGoal1-v0"), ["cost"])
row = saferl.CATALOGUE["ppo_lag"]
parts = {"dual ascent": row.parts(), "logarithmic": row.parts()._replace(constraint=logarithmic())}

histories = {}
for name, chosen in parts.items():
    learner = onpolicy.on_policy(env, [25.0], chosen, row.config, iterations, dist.make_mesh())
    state, step, history = jax.jit(learner.init)(jax.random.key(0)), jax.jit(learner.step), []
    for _ in range(iterations):
        state, info = step(state)
        history.append([float(info.episode_return), float(info.episode_cost[0]), float(info.multiplier[0])])
    histories[name] = np.array(history)

figure, panels = plt.subplots(1, 3, figsize=(12, 3))
for name, history in histories.items():
    for panel, column, label in zip(panels, history.T, ("return", "cost", "multiplier")):
        panel.plot(column, label=name)
        panel.set(xlabel="iteration", ylabel=label)
panels[1].axhline(25, color="black", linestyle="--")
panels[0].legend()
figure.tight_layout()
