"""Safe-RL algorithms over environments, seeds and limits, beside the numbers that OmniSafe published.

    python experiments/saferl_benchmark/run.py
    python experiments/saferl_benchmark/run.py --algorithms ppo_lag cpo --steps 10000000 --seeds 0 1 2 3 4

A cell (an algorithm in an environment) is one compiled program: its seeds, limits and learning rates run side by side.
Cells that are finished under ``--out`` are not repeated, interrupted ones go on from their last checkpoint.
"""

import os

# Before jaxlib is loaded: programs from the compilation cache are announced on stderr, at level "error"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import contextlib
import sys
import time
from pathlib import Path

import jax
import tyro

with contextlib.suppress(RuntimeError):
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)

sys.path.insert(0, str(Path(__file__).parent))
import cell as cells
from config import Config
from report import report

from jaxalign.cli.run import keep_programs
from jaxalign.core.errors import UserError


def main(config: Config) -> None:
    """Runs what is missing and writes the report after every cell."""
    keep_programs()
    grid = list(cells.cells(config))
    for number, cell in enumerate(grid, 1):
        if cell.done:
            continue
        print(f"\n=== {cell.algorithm} on {cell.env} ({number} of {len(grid)}, {len(cell.members)} runs)", flush=True)
        start = time.monotonic()
        if not cells.run(cell):
            sys.exit("Stopped and saved; the same command goes on.")
        print(f"{time.monotonic() - start:.0f} s", flush=True)
        report(config)
    report(config)


if __name__ == "__main__":
    try:
        main(tyro.cli(Config))
    except UserError as error:
        sys.exit(f"saferl_benchmark: {error}")
