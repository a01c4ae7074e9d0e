"""Reward models from chains, pools and trees of responses, where the true reward is known.

    python experiments/tree_rm/run.py
    python experiments/tree_rm/run.py --seeds 0 --pairs 512 --middle 512 --iterations 5

Every cell (a seed and a data set) is a file under ``--out``; what is there is not made again.
"""

import os

# Before jaxlib is loaded: programs from the compilation cache are announced on stderr, at level "error"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import functools
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).parent))
import decoders
import models
import world
from config import Config, Data
from preferences import Pairs, collect
from report import report

from jaxalign import track
from jaxalign.cli.config import keep_config
from jaxalign.cli.run import keep_programs
from jaxalign.core.errors import UserError


class Seed:
    """What all cells of a seed share; made when first asked for."""

    def __init__(self, config: Config, seed: int):
        self.config, self.seed = config, seed

    @functools.cached_property
    def policy(self) -> Any:
        """After fine-tuning; from its file, or made and written."""
        path = self.config.out / f"seed{self.seed}" / "policy.npz"
        if not path.exists():
            params = models.sft(self.config, self.seed)
            with track.replacing(path) as temporary, temporary.open("wb") as file:
                np.savez(file, *jax.tree.leaves(params))
        like = jax.eval_shape(models.network(self.config.model).init, jax.random.key(0))
        with np.load(path) as saved:
            return jax.tree.unflatten(jax.tree.structure(like), [jax.numpy.asarray(saved[k]) for k in saved.files])

    @functools.cached_property
    def tests(self) -> dict[str, Pairs]:
        """Noise-free pairs on held-out prompts: independent responses, and leaves of trees."""
        config, seed = self.config, 10_000 + self.seed
        sets = {"independent": Data("chain", config.test_pairs), "shared": Data("tree", config.test_pairs)}
        return {name: collect(config, self.policy, data, seed, test=True) for name, data in sets.items()}

    @functools.cached_property
    def candidates(self) -> tuple[np.ndarray, np.ndarray]:
        """Held-out prompts, and n texts to each."""
        prompts = np.repeat(world.prompts(held_out=True), 8, axis=0)
        return prompts, decoders.candidates(self.config, self.policy, prompts, jax.random.key(self.seed + 20_000))

    @functools.cached_property
    def training(self) -> tuple[np.ndarray, np.ndarray]:
        """Training prompts, and n texts to each, for rejection fine-tuning."""
        asked = world.prompts(held_out=False)
        prompts = asked[np.arange(self.config.rft_prompts) % len(asked)]
        return prompts, decoders.candidates(self.config, self.policy, prompts, jax.random.key(self.seed + 30_000))

    @functools.cached_property
    def start(self) -> dict[str, Any]:
        """The policy before optimisation, and what the best choice among n would reach."""
        prompts, texts = self.candidates
        oracle = world.gold(prompts, decoders.best(world.gold, prompts, texts))
        return {"policy": decoders.judged(self.config, self.policy).tolist(), "oracle": float(oracle.mean())}


def cell(begin: Seed, data: Data) -> dict[str, Any]:
    """Everything about a data set: its cost, its reward models, and the policies made with them."""
    config, seed = begin.config, begin.seed
    pairs = collect(config, begin.policy, data, seed)
    found: dict[str, Any] = {
        "pairs": len(pairs.prompts),
        "tokens": pairs.tokens,
        "agreement": pairs.agreement,
        "common": float(pairs.common.mean()),
        "start": begin.start,
        "models": {"linear": _model(begin, models.linear(config, pairs))},
    }
    optimised = config.makes_policies(data)
    for kind in ("scalar", "seq2seq") if optimised else ("scalar",):
        judge = models.train_judge(config, kind, pairs, seed)
        total = models.score(config, judge)
        row = found["models"][kind] = _model(begin, total)
        if optimised:
            learned = decoders.rejection(config, begin.policy, total, begin.training, seed)
            row["rft"] = decoders.judged(config, learned).tolist()
            row["ppo"] = decoders.judged(config, decoders.ppo(config, begin.policy, judge, seed)).tolist()
    return found


def _model(begin: Seed, score: models.Score) -> dict[str, Any]:
    """A reward model by itself: how often it agrees with the true reward, and what the best of n by it are worth."""
    row: dict[str, Any] = {}
    for name, test in begin.tests.items():
        right = score(test.prompts, test.chosen) - score(test.prompts, test.rejected)
        row[name] = float(np.mean(right > 0) + 0.5 * np.mean(right == 0))
    prompts, texts = begin.candidates
    row["best_of"] = float(world.gold(prompts, decoders.best(score, prompts, texts)).mean())
    return row


def main(config: Config) -> None:
    """Runs what is missing and reports after every seed.

    Raises:
        UserError: results of another configuration under the same folder.
    """
    keep_programs()
    keep_config(config, config.out, free=("seeds", "out"))
    for seed in config.seeds:
        begin = Seed(config, seed)
        for data in config.data:
            path = config.out / f"seed{seed}" / f"{data.name}.json"
            if path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            start = time.monotonic()
            text = json.dumps(cell(begin, data))
            with track.replacing(path) as temporary:
                temporary.write_text(text + "\n")
            print(f"{path}  {time.monotonic() - start:.0f} s", flush=True)
        report(config)


if __name__ == "__main__":
    try:
        main(tyro.cli(Config))
    except UserError as error:
        sys.exit(f"tree_rm: {error}")
