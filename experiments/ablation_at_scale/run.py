"""A grid of runs over all devices and processes: runs side by side inside a device, groups of them on devices.

    python experiments/ablation_at_scale/run.py
    python experiments/ablation_at_scale/run.py --algorithms ppo_lag cpo --limits 5 10 25 50 --seeds 0 1 2 3 4 5 6 7
    srun python experiments/ablation_at_scale/run.py --distributed auto --out /shared/ablation

Runs that are finished under ``--out`` are not repeated, interrupted ones go on from their group's last checkpoint, on
another number of devices or processes too. Every process writes its own runs; the first writes the table of all that
are finished when it ends, and the same command writes it again.
"""

import os

# Before jaxlib is loaded: programs from the compilation cache are announced on stderr, at level "error"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import contextlib
import sys
from pathlib import Path

import jax
import tyro

with contextlib.suppress(RuntimeError):
    if jax.config.jax_num_cpu_devices < 0:
        jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)

sys.path.insert(0, str(Path(__file__).parent))
import waves
from config import Config, programs
from report import report

from jaxalign import dist
from jaxalign.cli.run import keep_programs
from jaxalign.core.errors import UserError


def main(config: Config) -> None:
    """Runs what is missing, then writes the report.

    Raises:
        UserError: unknown names, or numbers that make no sense.
    """
    if config.together < 1:
        raise UserError(f"--together is {config.together}; choose 1 or more.")
    keep_programs()
    dist.start(config.distributed)
    grid = programs(config)
    for number, program in enumerate(grid, 1):
        left = sum(not group.done for group in program.groups)
        if left:
            text = f"{program.algorithm} on {program.env} ({number} of {len(grid)}), {left} groups of {config.together}"
            print(f"\n=== {text} over {jax.device_count()} devices", flush=True)
            if not waves.run(program):
                sys.exit("Stopped and saved; the same command goes on.")
    if dist.is_first():
        print("\n" + report(config))


if __name__ == "__main__":
    try:
        main(tyro.cli(Config))
    except UserError as error:
        sys.exit(f"ablation_at_scale: {error}")
