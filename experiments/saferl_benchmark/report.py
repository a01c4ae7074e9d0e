"""Tables, figures and machine-readable results of whatever cells are finished."""

import csv
import json
from pathlib import Path

import numpy as np
from cell import Cell, cells
from config import Config

from jaxalign import track
from jaxalign.track import scores

FIELDS = ("env", "algorithm", "seed", "limit", "learning_rate", "return", "cost")


def report(config: Config) -> None:
    """Writes `results.csv` (and `.parquet` where pyarrow is installed), `table.md` and a figure per environment."""
    done = [cell for cell in cells(config) if cell.done]
    if not done:
        return
    rows = [row for cell in done for row in _rows(cell)]
    config.out.mkdir(parents=True, exist_ok=True)
    with track.replacing(config.out / "results.csv") as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    _parquet(rows, config.out / "results.parquet")
    text = "\n\n".join(_table(config, rows, env, limit) for env in config.envs for limit in config.limits)
    with track.replacing(config.out / "table.md") as path:
        path.write_text(text + "\n\n" + _aggregate(config, rows) + "\n")
    for env in config.envs:
        curves = {cell.algorithm: _curves(cell) for cell in done if cell.env == env}
        if curves:
            limits = dict.fromkeys(config.costs, config.limits[0])
            track.learning_curves_over_seeds(curves, config.out / f"{_short(env)}.png", limits, env)


def _short(env: str) -> str:
    return env.rpartition(":")[2]


def _rows(cell: Cell) -> list[dict]:
    rows = []
    for member in cell.members:
        found = json.loads((cell.folder / member.name / "evaluation.json").read_text())
        cost = found["cost"][cell.config.costs[0]]
        outcome = {"return": float(np.mean(found["return"])), "cost": float(np.mean(cost))}
        rows.append({"env": cell.env, "algorithm": cell.algorithm, **member._asdict(), **outcome})
    return rows


def _parquet(rows: list[dict], path: Path) -> None:
    try:
        from pyarrow import Table, parquet
    except ImportError:
        return
    parquet.write_table(Table.from_pylist(rows), path)


def _curves(cell: Cell) -> list[list[dict]]:
    members = [m for m in cell.members if (m.limit, m.learning_rate) == cell.members[0][1:]]
    return [track.read_jsonl(cell.folder / member.name / "metrics.jsonl") for member in members]


def published() -> dict[tuple[str, str], tuple[str, str]]:
    """OmniSafe's return and cost by (environment, algorithm without underscores), as printed."""
    with Path(__file__).with_name("published.csv").open() as file:
        return {(row["env"], row["algo"].lower()): (row["return"], row["cost"]) for row in csv.DictReader(file)}


def _table(config: Config, rows: list[dict], env: str, limit: float) -> str:
    lines = [
        f"{_short(env)}, {config.steps:.0e} steps, cost limit {limit:g}, {config.eval_episodes} episodes per run; mean "
        "[95 % interval over seeds]",
        "",
        "| algorithm | seeds | return | cost | OmniSafe return | OmniSafe cost |",
        "|---|---|---|---|---|---|",
    ]
    known = published()
    for algorithm in config.algorithms:
        mine = [row for row in rows if (row["env"], row["algorithm"], row["limit"]) == (env, algorithm, limit)]
        if not mine:
            continue
        theirs = known.get((env, algorithm.removesuffix("_safepo").replace("_", "")), ("-", "-"))
        ours = [_interval([row[name] for row in mine]) for name in ("return", "cost")]
        lines.append(f"| {algorithm} | {len(mine)} | " + " | ".join((*ours, *theirs)) + " |")
    return "\n".join(lines)


def _interval(values: list[float]) -> str:
    mean, half = track.interval(values)
    return f"{mean:.2f}" + ("" if np.isnan(half) else f" [{mean - half:.2f}, {mean + half:.2f}]")


def _aggregate(config: Config, rows: list[dict]) -> str:
    """Interquartile means over all environments, of returns over the unconstrained PPO's where it has run."""
    lines = ["Interquartile mean over seeds and environments [95 % stratified bootstrap interval]", ""]
    lines += ["| algorithm | return / return of ppo | cost / limit |", "|---|---|---|"]
    scale = {}
    for env in config.envs:
        reference = [row["return"] for row in rows if (row["env"], row["algorithm"]) == (env, "ppo")]
        if reference and np.mean(reference) > 0:
            scale[env] = float(np.mean(reference))
    for algorithm in config.algorithms:
        table = {env: [row for row in rows if (row["env"], row["algorithm"]) == (env, algorithm)] for env in scale}
        if not scale or len({len(found) for found in table.values()}) > 1 or not all(table.values()):
            continue
        normalised = np.array([[row["return"] / scale[env] for row in found] for env, found in table.items()]).T
        relative = np.array([[row["cost"] / max(row["limit"], 1e-6) for row in found] for found in table.values()]).T
        cells_ = []
        for values in (normalised, relative):
            low, high = scores.stratified_bootstrap(values)
            cells_.append(f"{scores.iqm(values):.2f} [{low:.2f}, {high:.2f}]")
        lines.append(f"| {algorithm} | " + " | ".join(cells_) + " |")
    return "\n".join(lines)
