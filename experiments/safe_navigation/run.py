"""Return and cost of safe-RL algorithms on SafetyPointGoal1-v0 beside OmniSafe's published numbers.

    python experiments/safe_navigation/run.py

Runs that are already finished under ``--out`` are not repeated, interrupted ones are resumed.
"""

import os

# Before jaxlib is loaded: programs from the compilation cache are announced on stderr, at level "error"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).parent))
from config import PUBLISHED, Config

from jaxalign import track
from jaxalign.cli import run as runs


def main(config: Config) -> None:
    """Trains what is missing, then writes `table.md` and `learning_curves.png`."""
    for seed in config.seeds:
        for algorithm in config.algorithms:
            _train(config, algorithm, seed)
            _report(config)


def _train(config: Config, algorithm: str, seed: int) -> None:
    name = f"{algorithm}-seed{seed}"
    folder = config.out / name
    if (folder / "evaluation.json").exists():
        return
    print(f"\n=== {name}", flush=True)
    if (folder / "checkpoints").exists() and any((folder / "checkpoints").iterdir()):
        result = runs.resume(folder)
    else:
        train = dataclasses.replace(config.train, algorithm=algorithm, seed=seed, name=name, out=config.out)
        result = runs.train(train)
    if result.evaluation is None:
        sys.exit(130)


def _report(config: Config) -> None:
    lines = [
        f"{config.train.env}, {config.train.steps:.0e} steps, {config.train.eval_episodes} episodes evaluated per seed",
        "",
        "| algorithm | seeds | return | cost (limit 25) | OmniSafe return | OmniSafe cost |",
        "|---|---|---|---|---|---|",
    ]
    curves = {}
    for algorithm in config.algorithms:
        folders = [config.out / f"{algorithm}-seed{seed}" for seed in config.seeds]
        folders = [folder for folder in folders if (folder / "evaluation.json").exists()]
        if not folders:
            continue
        done = [json.loads((folder / "evaluation.json").read_text()) for folder in folders]
        curves[algorithm] = [track.read_jsonl(folder / "metrics.jsonl") for folder in folders]
        returns = [np.mean(d["return"]) for d in done]
        costs = [np.mean(d["cost"]["cost"]) for d in done]
        (r, r_sd), (c, c_sd) = PUBLISHED[algorithm]
        ours = " | ".join(_mean_sd(x) for x in (returns, costs))
        lines.append(f"| {algorithm} | {len(done)} | {ours} | {r:.2f} ± {r_sd:.2f} | {c:.2f} ± {c_sd:.2f} |")
    (config.out / "table.md").write_text("\n".join(lines) + "\n")
    limits = dict(zip(config.train.costs, config.train.cost_limit, strict=True))
    track.learning_curves_over_seeds(curves, config.out / "learning_curves.png", limits, config.train.env)
    print("\n" + "\n".join(lines), flush=True)


def _mean_sd(values: list[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{spread}"


if __name__ == "__main__":
    main(tyro.cli(Config))
