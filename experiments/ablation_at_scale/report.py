"""One table of all runs, Parquet and CSV, and a figure per environment: cost and return by limit and learning rate."""

import csv
import json

import numpy as np
from config import Config, Program, programs
from matplotlib.figure import Figure

from jaxalign import track

FIELDS = ("env", "algorithm", "limit", "learning_rate", "critic_learning_rate", "seed", "return", "cost")


def report(config: Config) -> str:
    """Writes `results.csv`, `results.parquet` (needs pyarrow), `table.md` and figures; the table's text."""
    rows = [row for program in programs(config) for row in _rows(program)]
    if not rows:
        return "no run is finished yet"
    config.out.mkdir(parents=True, exist_ok=True)
    with track.replacing(config.out / "results.csv") as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    try:
        from pyarrow import Table, parquet
    except ImportError:
        pass
    else:
        with track.replacing(config.out / "results.parquet") as path:
            parquet.write_table(Table.from_pylist(rows), path)
    text = _table(config, rows)
    with track.replacing(config.out / "table.md") as path:
        path.write_text(text + "\n")
    for env in config.envs:
        shown = [row for row in rows if row["env"] == env]
        if shown:
            with track.replacing(config.out / f"{env.rpartition(':')[2]}.png") as path:
                _figure(config, env, shown).savefig(path, dpi=150)
    return text


def _rows(program: Program) -> list[dict]:
    rows = []
    for member in program.members:
        path = program.folder / member.name / "evaluation.json"
        if path.exists():
            found = json.loads(path.read_text())
            cost = found["cost"][program.config.costs[0]]
            outcome = {"return": float(np.mean(found["return"])), "cost": float(np.mean(cost))}
            rows.append({"env": program.env, "algorithm": program.algorithm, **member._asdict(), **outcome})
    return rows


def _table(config: Config, rows: list[dict]) -> str:
    """Mean and 95 % interval over seeds of every other combination."""
    lines = [
        f"{config.steps:.0e} steps, {config.eval_episodes} episodes per run; mean [95 % interval over seeds]",
        "",
        "| environment | algorithm | limit | learning rate | critics' | seeds | return | cost |",
        "|---|---|---|---|---|---|---|---|",
    ]
    cells: dict[tuple, list[dict]] = {}
    for row in rows:
        cells.setdefault(tuple(row[name] for name in FIELDS[:5]), []).append(row)
    for (env, algorithm, *numbers), found in cells.items():
        values = " | ".join(_interval([row[name] for row in found]) for name in ("return", "cost"))
        place = " | ".join(f"{x:g}" for x in numbers)
        lines.append(f"| {env.rpartition(':')[2]} | {algorithm} | {place} | {len(found)} | {values} |")
    return "\n".join(lines)


def _interval(values: list[float]) -> str:
    mean, half = track.interval(values)
    return f"{mean:.2f}" + ("" if np.isnan(half) else f" [{mean - half:.2f}, {mean + half:.2f}]")


def _figure(config: Config, env: str, rows: list[dict]) -> Figure:
    """Return against cost: a point per run, its colour the algorithm, its shape the limit."""
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    algorithms = list(dict.fromkeys(row["algorithm"] for row in rows))
    for k, algorithm in enumerate(algorithms):
        for marker, limit in zip("osD^v<>p*h", config.limits):
            chosen = [row for row in rows if row["algorithm"] == algorithm and row["limit"] == limit]
            x, y = ([row[name] for row in chosen] for name in ("cost", "return"))
            axes.scatter(x, y, marker=marker, color=f"C{k}", label=f"{algorithm}, limit {limit:g}")
    for limit in config.limits:
        axes.axvline(limit, color="0.5", linestyle="--", linewidth=0.8)
    axes.set(xlabel="cost per episode (limits dashed)", ylabel="return per episode", title=env.rpartition(":")[2])
    axes.legend(fontsize=7)
    return figure
