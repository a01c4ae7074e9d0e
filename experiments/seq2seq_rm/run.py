"""Sequence-to-sequence against scalar reward models, where the true reward is known.

    python experiments/seq2seq_rm/run.py
    python experiments/seq2seq_rm/run.py --worlds refusal --seeds 0 --levels rm --rm-steps 300

Every trained model, table row and policy is a file under ``--out``; what is there is not made again.
"""

import os

# Before jaxlib is loaded: programs from the compilation cache are announced on stderr, at level "error"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import functools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).parent))
import models
import policy_level
import rm_level
from config import SCORES, Config
from figures import figures
from tables import tables

from jaxalign import track
from jaxalign.cli.config import keep_config
from jaxalign.cli.run import keep_programs
from jaxalign.core.errors import UserError


class Cell:
    """A world and a seed: its models and results, made when first asked for."""

    def __init__(self, config: Config, name: str, seed: int):
        self.config, self.world, self.seed = config, config.world(name), seed
        self.folder = config.out / name / f"seed{seed}"

    @functools.cached_property
    def pairs(self):
        """Preferences for training."""
        return self.world.pairs(np.random.default_rng([self.seed, 0]), self.config.pairs)

    @functools.cached_property
    def policy(self) -> Any:
        """After fine-tuning."""
        return self._model("sft", lambda: models.sft(self.config, self.world, self.seed))

    @functools.cached_property
    def rewards(self) -> dict[str, Any]:
        """All reward models."""
        make = lambda name: models.train_rewards(self.config, self.world, self.pairs, (name,), self.seed)[name]
        return {name: self._model(name, functools.partial(make, name)) for name in SCORES}

    @functools.cached_property
    def start(self) -> policy_level.Start:
        """Of all policies."""
        return policy_level.start(self.config, self.world, self.seed, self.policy, self.rewards, self.pairs)

    def missing(self) -> Iterator[tuple[Path, Callable[[], Any]]]:
        """Files of results that are not there, and what makes them."""
        todo: dict[str, Callable[[], Any]] = {}
        if "rm" in self.config.levels:
            todo["rm"] = lambda: rm_level.measure(self.config, self.world, self.rewards, self.seed)
        if "policy" in self.config.levels:
            row = lambda name: lambda: policy_level.measure(self.start, name)
            todo |= {f"policy-{name}": row(name) for name in self.config.policies}
        for name, make in todo.items():
            path = self.folder / f"{name}.json"
            if not path.exists():
                yield path, make

    def _model(self, name: str, make: Callable[[], Any]) -> Any:
        """Parameters from their file, or made and written."""
        path = self.folder / f"{name}.npz"
        if not path.exists():
            models.save(path, make())
        return models.load(self.config, self.world, path)


def main(config: Config) -> None:
    """Runs what is missing and reports after every cell.

    Raises:
        UserError: unknown worlds, or results of another configuration under the same folder.
    """
    keep_programs()
    for name in config.worlds:
        config.world(name)  # mistakes are found before anything runs
    keep_config(config, config.out, free=("worlds", "seeds", "levels", "policies", "out"))
    for name in config.worlds:
        for seed in config.seeds:
            for path, make in Cell(config, name, seed).missing():
                begin = time.monotonic()
                text = json.dumps(make())
                path.parent.mkdir(parents=True, exist_ok=True)
                with track.replacing(path) as temporary:
                    temporary.write_text(text + "\n")
                print(f"{path}  {time.monotonic() - begin:.0f} s", flush=True)
            tables(config)
    figures(config)


if __name__ == "__main__":
    try:
        main(tyro.cli(Config))
    except UserError as error:
        sys.exit(f"seq2seq_rm: {error}")
