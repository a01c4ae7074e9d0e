"""Errors of receivers that the twin never saw, over five cities, and how fast the database ages.

    python experiments/gnss_twin/run.py

Cities that are already finished under ``--evaluate.out`` are not repeated.
"""

import sys
from pathlib import Path

import tyro

sys.path.insert(0, str(Path(__file__).parent))
from config import Config

from jaxalign.cli import gnss


def main(config: Config) -> None:
    """Runs what is missing, then writes tables.txt, results.json and the pictures."""
    gnss.evaluate(config.evaluate)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
