"""Return and cost of policies trained here, in our simulator and in the original Safety-Gymnasium.

    python experiments/sim_to_sim/run.py --peer-python PATH

PATH is a Python 3.10 with ``safety-gymnasium==1.0.0``. Policies that are already trained and episodes that are already
evaluated under ``--out`` are not repeated, interrupted trainings are resumed.
"""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import tyro

sys.path.insert(0, str(Path(__file__).parent))
import peer
from comparison import compare, table
from config import Config, Task

from jaxalign.cli import run as runs
from jaxalign.cli.export import Export, export

Episodes = dict[str, list[float]]  # "return" and "cost" of every episode


def main(config: Config) -> None:
    """Trains and evaluates what is missing, then writes `result.json` and `table.md`."""
    outcomes = {}
    for task in config.tasks:
        folder = _trained(config, task)
        outcomes[task.env] = {"ours": _ours(folder, config), "peer": _peer(folder, config)}
        _write(config, outcomes)


def _trained(config: Config, task: Task) -> Path:
    """The folder of a finished run on `task`, trained if need be, with its policy in `policy.npz`."""
    folder = config.out / task.env
    if not (folder / "evaluation.json").exists():
        print(f"\n=== training {task.env}", flush=True)
        if (folder / "checkpoints").exists():
            result = runs.resume(folder)
        else:
            new = {"env": task.env, "steps": task.steps, "name": task.env, "out": config.out}
            result = runs.train(dataclasses.replace(config.train, **new))
        if result.evaluation is None:
            sys.exit(130)
    return folder


def _ours(folder: Path, config: Config) -> Episodes:
    """The episodes here, played if they have not been."""
    path = folder / f"evaluation-seed{config.seed}.json"
    if not path.exists() or json.loads(path.read_text())["episodes"] != config.episodes:
        runs.evaluate(folder, config.episodes, config.seed, deterministic=False, video=False)
    found = json.loads(path.read_text())
    return {"return": found["return"], "cost": found["cost"]["cost"]}


def _peer(folder: Path, config: Config) -> Episodes:
    """The episodes in the peer, those played that have not been."""
    path, seeds = folder / "peer.jsonl", range(config.seed, config.seed + config.peer_episodes)
    if not set(seeds) <= peer.read(path).keys():
        print(f"\n=== {config.peer_episodes} episodes under {config.peer_python}: {path}", flush=True)
        _play(folder, path, config)
    rows = peer.read(path)
    return {name: [rows[seed][name] for seed in seeds] for name in ("return", "cost")}


def _play(folder: Path, path: Path, config: Config) -> None:
    policy, *_ = export(Export(folder))
    command = [config.peer_python, peer.__file__, runs.read_config(folder).env, str(policy), str(path)]
    options = {"episodes": config.peer_episodes, "seed": config.seed, "processes": config.processes}
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise SystemExit(f"Cannot start {config.peer_python!r} ({error.strerror}); give --peer-python.") from None
    if done.returncode:
        raise SystemExit(f"The peer failed under {config.peer_python}:\n{done.stderr.strip()}")


def _write(config: Config, outcomes: dict[str, dict[str, Episodes]]) -> None:
    compared = {
        env: {name: compare(sides["ours"][name], sides["peer"][name]) for name in ("return", "cost")}
        for env, sides in outcomes.items()
    }
    title = (
        f"{config.train.algorithm}, {config.episodes} episodes here and {config.peer_episodes} in the peer, "
        "mean ± half of the 95 % interval"
    )
    lines = f"{title}\n\n{table(compared)}"
    (config.out / "table.md").write_text(lines + "\n")
    result = {
        env: {"comparison": {name: row._asdict() for name, row in rows.items()}, "episodes": outcomes[env]}
        for env, rows in compared.items()
    }
    (config.out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"\n{lines}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Config))
