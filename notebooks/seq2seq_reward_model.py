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
# # Reward models that answer in language
#
# From the same preferences a scalar (Bradley-Terry) and a sequence-to-sequence reward model are trained in a world whose true
# reward is known; a policy is optimised against each. In the preferences only harmful requests are ever refused
# (arXiv 2409.00162). Five minutes on two CPU cores.

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

from IPython.display import Image

from jaxalign.cli import rlhf

sizes = dict(pairs=200, sft_steps=20, rm_steps=20, iterations=2, prompts=16, test_prompts=20) if SMOKE else {}
out = Path("runs/notebook/rlhf")
rlhf.demo(rlhf.RlhfDemo(out=out, **sizes))

# %%
Image(next(out.glob("*.png")))

# %% [markdown]
# By hand: the same reward model, and what it says token by token of answers with one known error. It reads an answer and writes a
# better one; a token is rewarded with +1 while both agree, and with -1 from the first difference on wherever they do not.

# %%
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxalign.lm import network, packing
from jaxalign.lm.loss import cross_entropy
from jaxalign.rewards import seq2seq
from jaxalign.rewards.facts_world import Facts, lengths

world, random = Facts(), np.random.default_rng(0)
pairs = world.pairs(random, 200 if SMOKE else 4000)
both = list(zip(rlhf.examples(pairs.prompts, pairs.chosen), rlhf.examples(pairs.prompts, pairs.rejected)))
model = rlhf.tiny_model(world.vocabulary)
net = network(model)
params = rlhf.train(
    cross_entropy(net),
    net.init(jax.random.key(0)),
    packing.pack(seq2seq.mappings(both, rlhf.SEPARATOR), rlhf.ROW),
    share=32 / len(both),
    steps=20 if SMOKE else 1000,
)


class Answers(NamedTuple):
    """What `seq2seq.feedback` judges: prompts, then responses, padded on the right."""

    tokens: jax.Array
    segment_ids: jax.Array
    prompt_length: int
    response_mask: jax.Array


prompts = world.prompts(random, 400)
prompts = prompts[~world.is_harmful(prompts)][:3]
for kind in ("substitution", "insertion", "omission"):
    wrong = world.corrupted(random, prompts, kind)
    there = np.arange(wrong.shape[1]) <= lengths(wrong)[:, None]
    tokens = np.concatenate([prompts, wrong], axis=1)
    segments = np.concatenate([np.ones(prompts.shape), there], axis=1).astype(np.int32)
    answers = Answers(jnp.asarray(tokens), jnp.asarray(segments), prompts.shape[1], jnp.asarray(there))
    rewards = seq2seq.as_reward(model, params, rlhf.SEPARATOR)(answers)
    print(kind)
    for response, right, reward in zip(wrong, world.right(prompts, wrong), np.asarray(rewards)):
        print(
            "  tokens",
            response[: lengths(response[None])[0] + 1],
            "right",
            right.astype(int)[: len(reward)],
            "reward",
            reward,
        )
