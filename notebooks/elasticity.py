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
# # Do aligned models spring back?
#
# Compression by a language model, the exact theory of arXiv 2406.06144, and small models that are pre-trained, aligned and
# perturbed. 80 seconds on two CPU cores.

# %%
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("jaxalign") is None:  # on Colab; accelerators need the extra cuda13 or tpu too
    command = [sys.executable, "-m", "pip", "install", "-q", "jaxalign[lm] @ git+https://github.com/OWNER/jaxalign"]
    subprocess.run(command, check=True)

import jax

SMOKE = os.environ.get("SMOKE") == "1"  # small sizes, under two minutes on a CPU
print(jax.device_count(), "x", jax.devices()[0].device_kind, "SMOKE" if SMOKE else "")

# %%
from pathlib import Path

from IPython.display import Image, display

from jaxalign.cli import elasticity as cli

out = Path("runs/notebook/elasticity")
sizes = dict(sentences=200, test_sentences=20, steps=20, life=False) if SMOKE else {}
cli.demo(cli.Demo(out=out, **sizes))

# %%
for picture in sorted(out.glob("*.png")):
    display(Image(picture))

# %% [markdown]
# By hand: a token tree, its Huffman code, and what it makes of text from the same source.

# %%
import numpy as np

from jaxalign import elasticity
from jaxalign.elasticity.token_tree import bits

source = elasticity.markov_text(seed=0)
sentences = source.sentences(np.random.default_rng(0), 100)
responses = [bits(text) for text in sentences]
length = sum(map(len, sentences))
for depth in (2, 4, 8, 16):
    code = elasticity.huffman_code(elasticity.piece_tree(responses, depth=depth), depth=depth)
    print(f"depth {depth:2d}: {len(''.join(map(code.encode, responses))) / length:.3f} bits per byte")
print(f"the source:  {source.information(sentences) / length:.3f}")
