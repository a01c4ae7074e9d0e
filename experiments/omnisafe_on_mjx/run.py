"""OmniSafe trains on Safety-Gymnasium and on our worlds; its own clock gives the speed of each.

    OMNISAFE_PYTHON experiments/omnisafe_on_mjx/run.py --python PYTHON_WITH_ENVS_MJX

Runs in OmniSafe's Python. Prints a table and writes it with every epoch's record under ``--out``.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import bridge
import omnisafe
from config import Config

COLUMNS = {
    "return": "Metrics/EpRet",
    "cost": "Metrics/EpCost",
    "rollout_s": "Time/Rollout",
    "update_s": "Time/Update",
    "steps_per_s": "Time/FPS",
}


def main(config: Config) -> None:
    """Trains on each kind of world in turn and writes `result.json` and `table.md`."""
    results = {kind: train(config, kind) for kind in config.worlds}
    config.out.mkdir(parents=True, exist_ok=True)
    written = {"config": dataclasses.asdict(config), "results": results}
    (config.out / "result.json").write_text(json.dumps(written, indent=2, default=str) + "\n")
    lines = table(config, results)
    (config.out / "table.md").write_text(lines + "\n")
    print("\n" + lines)


def train(config: Config, kind: str) -> dict[str, Any]:
    """One training by OmniSafe: seconds to build the agent, the machine's load, and the record of every epoch.

    Args:
        config: the experiment.
        kind: "original" or "ours".
    """
    ours = kind == "ours"
    settings: dict[str, Any] = {
        "seed": config.seed,
        "train_cfgs": {
            "vector_env_nums": config.num_envs,
            "total_steps": config.epochs * config.steps_per_epoch,
            "torch_threads": config.threads,
        },
        "algo_cfgs": {"steps_per_epoch": config.steps_per_epoch},
        "logger_cfgs": {"log_dir": str(config.out / "omnisafe"), "use_tensorboard": False},
    }
    if ours:
        settings["env_cfgs"] = {"python": config.python}
    start = time.perf_counter()
    agent = omnisafe.Agent(config.algorithm, (bridge.PREFIX if ours else "") + config.env, custom_cfgs=settings)
    built = time.perf_counter() - start
    agent.learn()
    with (Path(agent.agent.logger.log_dir) / "progress.csv").open() as file:
        epochs = [{name: float(row[column]) for name, column in COLUMNS.items()} for row in csv.DictReader(file)]
    return {"build_s": built, "load": os.getloadavg()[0], "epochs": epochs}


def table(config: Config, results: dict[str, Any]) -> str:
    """Speeds averaged over the epochs (the first included), return and cost of the last."""
    lines = [
        f"OmniSafe {omnisafe.__version__} {config.algorithm}, {config.env}, {config.num_envs} environments, "
        f"{config.epochs} epochs of {config.steps_per_epoch:,} steps",
        "",
        "| worlds | build s | rollout steps/s | update s per epoch | training steps/s | return | cost | load |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, result in results.items():
        epochs, steps = result["epochs"], config.steps_per_epoch
        rollout, update = (sum(e[name] for e in epochs) / len(epochs) for name in ("rollout_s", "update_s"))
        cells = [kind, f"{result['build_s']:.1f}", f"{steps / rollout:,.0f}", f"{update:.1f}"]
        cells += [f"{steps / (rollout + update):,.0f}", f"{epochs[-1]['return']:.2f}", f"{epochs[-1]['cost']:.1f}"]
        cells.append(f"{result['load']:.1f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def read_options() -> Config:
    """The command line as a `Config`."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for field in dataclasses.fields(Config):
        many = {"nargs": "+", "type": str, "choices": field.default} if isinstance(field.default, tuple) else {}
        parser.add_argument(
            "--" + field.name.replace("_", "-"), default=field.default, **(many or {"type": type(field.default)})
        )
    config = Config(**vars(parser.parse_args()))
    if config.steps_per_epoch < 1000 * config.num_envs:
        parser.error(
            f"--steps-per-epoch {config.steps_per_epoch} ends no episode of 1,000 steps in {config.num_envs} "
            f"environments, and OmniSafe's Lagrangian then has no cost to go by; take {1000 * config.num_envs} or more."
        )
    return config


if __name__ == "__main__":
    main(read_options())
