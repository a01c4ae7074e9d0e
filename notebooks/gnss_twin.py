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
# # A digital twin for GNSS
#
# Rays through a generated city tell what receivers would see; virtual receivers on a grid fill a database of how fixes err; real
# (here: held-out) receivers are corrected by it. Two to three minutes on two CPU cores.

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

from jaxalign.cli import gnss

out = Path("runs/notebook/gnss")
sizes = dict(receivers=20, tracks=1, half_width_m=60.0, draws=8) if SMOKE else {}
page = gnss.demo(gnss.Demo(out=out, **sizes))

# %%
print((out / "tables.txt").read_text())
for picture in sorted(out.glob("*.png")):
    display(Image(picture))

# %% [markdown]
# The map: drag, zoom, and click a cell for its statistics.

# %%
import html

frame = f'<iframe srcdoc="{html.escape(page.read_text())}" width="100%" height="600"></iframe>'
display({"text/html": frame}, raw=True)
