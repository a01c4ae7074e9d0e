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
# # Which pairs should be compared?
#
# The induced Bayesian network of arXiv 2402.10184: chains and trees of comparisons, by the best path (the paper's proxy) and by
# exact inference. A minute on two CPU cores.

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

from IPython.display import Image, display

from jaxalign.cli import topology as cli

out = Path("runs/notebook/topology")
sizes = dict(alphas=(0.5,), exponents=(6, 8), seeds=2, macro_exponent=11) if SMOKE else {}
cli.demo(cli.Demo(out=out, **sizes))

# %%
for picture in sorted(out.glob("*.png")):
    display(Image(picture))

# %% [markdown]
# By hand: three responses in a triangle of comparisons. Along the best path the variance is 2; all paths together make it 1.

# %%
import numpy as np

from jaxalign import topology

graph = topology.make_graph([(0, 1), (1, 2), (0, 2)], [1.0, 1.0, 2.0])
ends = np.array([0, 2])
print(topology.distances(graph, ends)[0, 1], topology.resistances(graph, ends)[0, 1])
