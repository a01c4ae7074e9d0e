"""Chains and trees of comparisons in the induced Bayesian network, by the best path and by exact inference.

    python experiments/ibn/run.py
    python experiments/ibn/run.py --arms separation --largest 14 --seeds 5

Every measured network is a line of ``--out``/ARM.jsonl; what is there is not measured again.
"""

import os

# Before jaxlib is loaded: programs from the compilation cache are announced on stderr, at level "error"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import json
import sys
from pathlib import Path

import tyro
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent))
from config import Config

from jaxalign import topology, track
from jaxalign.cli.run import keep_programs
from jaxalign.cli.topology import autoencoder_table
from jaxalign.core.errors import UserError
from jaxalign.topology import bounds, figures, report
from jaxalign.topology.monte_carlo import Cell, Measured


def main(config: Config) -> None:
    """Measures what is missing and writes tables and figures of every arm."""
    config.out.mkdir(parents=True, exist_ok=True)
    for arm in config.arms:
        results = measured(config, arm)
        with track.replacing(config.out / f"{arm}.txt") as temporary:
            temporary.write_text(report.tables(results) + "\n")
        figures.mean_distances(results, config.out / f"{arm}_distances.png")
        figures.advantages(results, config.out / f"{arm}_advantage.png")
        figures.against_bounds(results, config.out / f"{arm}_bounds.png")
        print(f"{arm}\n{report.layout(report.verdicts(results))}\n{report.summary(results)}\n", flush=True)
    keep_programs()
    outcome = topology.autoencode(topology.World(config.responses), [2**k for k in range(6, 17)], config.worlds)
    text = f"{report.layout(bounds.table())}\n\n{autoencoder_table(outcome)}"
    with track.replacing(config.out / "macro.txt") as temporary:
        temporary.write_text(text + "\n")
    figures.autoencoding(outcome, config.out / "macro.png")
    print(f"{text}\n\n{config.out}")


def measured(config: Config, arm: str) -> dict[Cell, Measured]:
    """Results of an arm, those of its file and the missing ones, which are appended to it one by one."""
    path, cells = config.out / f"{arm}.jsonl", config.cells(arm)
    lines = path.read_text().splitlines() if path.exists() else []
    known = {row["cell"]: Measured(row["best_path"], row["exact"]) for row in map(json.loads, lines)}
    missing = [cell for cell in cells if cell.key not in known]
    form = "{desc:<12}{bar} {percentage:3.0f} %  {elapsed} < {remaining}"
    with (
        path.open("a") as file,
        tqdm(total=sum(c.comparisons for c in missing), desc=arm, bar_format=form, disable=None) as bar,
    ):
        for cell, found in topology.sweep(missing, config.workers):
            known[cell.key] = found
            file.write(json.dumps({"cell": cell.key, **found._asdict()}) + "\n")
            file.flush()
            bar.update(cell.comparisons)
    return {cell: known[cell.key] for cell in cells}


if __name__ == "__main__":
    try:
        main(tyro.cli(Config))
    except UserError as error:
        sys.exit(f"ibn: {error}")
