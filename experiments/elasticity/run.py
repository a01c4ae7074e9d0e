"""Do aligned language models return to their pre-training, and what holds them back? From scratch, over seeds.

    python experiments/elasticity/run.py
    python experiments/elasticity/run.py --seeds 0 1 --volumes 300 1500 --further-widths --parts rebound

Every cell is a CSV under ``--out``; what is there is not made again. Tables and figures are made from what is there.
"""

import os

# Before jaxlib is loaded: programs from the compilation cache are announced on stderr, at level "error"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).parent))
from config import Config

from jaxalign import track
from jaxalign.cli.config import keep_config
from jaxalign.cli.run import keep_programs
from jaxalign.core.errors import UserError
from jaxalign.elasticity import dialects, lifecycle, lifecycle_figures, lifecycle_tables, mitigation
from jaxalign.elasticity.lifecycle import PERTURBATIONS, Settings
from jaxalign.elasticity.lifecycle_tables import Rows


def main(config: Config) -> None:
    """Runs what is missing, then writes tables and figures.

    Raises:
        UserError: sizes that make no sense, or results of other sizes in the same folder.
    """
    widths = (config.width, *(config.further_widths if "rebound" in config.parts else ()))
    lives = {width: config.settings(width) for width in widths}  # mistakes are found before anything runs
    keep_config(config, config.out, free=("parts", "out"))
    keep_programs()
    for width, settings in lives.items():
        parts = config.parts if width == config.width else ("rebound",)
        missing = [v for v in settings.volumes for part in parts if not _cell(config, width, v, part).exists()]
        for volume, base in bases(config, settings).items() if missing else ():
            for part, rows in cells(config, settings, volume, base, parts):
                begin = time.monotonic()
                path = _cell(config, width, volume, part)
                lifecycle_tables.write(path, rows())
                print(f"{path}  {time.monotonic() - begin:.0f} s", flush=True)
        report(config)


def bases(config: Config, settings: Settings) -> dict[int, Any]:
    """Pre-trained models [S, ...] by volume, from their files or made and written."""
    paths = {volume: config.out / f"width{settings.width}" / f"base{volume}.npz" for volume in settings.volumes}
    if not all(path.exists() for path in paths.values()):
        begin = time.monotonic()

        def say(steps: int, loss: float) -> None:
            passed = time.monotonic() - begin
            print(f"width {settings.width}: {steps} steps, {loss:.3f} nats, {passed:.0f} s", flush=True)

        for volume, params in lifecycle.pretrain(settings, say).items():
            paths[volume].parent.mkdir(parents=True, exist_ok=True)
            with track.replacing(paths[volume]) as temporary:
                np.savez(temporary, *jax.tree.leaves(params))
    like = jax.tree.structure(jax.eval_shape(settings.network.init, jax.random.key(0)))
    found = {}
    for volume, path in paths.items():
        with np.load(path) as saved:
            found[volume] = jax.tree.unflatten(like, [jnp.asarray(saved[name]) for name in saved.files])
    return found


def cells(
    config: Config, settings: Settings, volume: int, base: Any, parts: tuple[str, ...]
) -> Iterator[tuple[str, Callable[[], Rows]]]:
    """The parts of a volume whose rows are not there, and what makes them."""
    missing = [part for part in parts if not _cell(config, settings.width, volume, part).exists()]
    if not missing:
        return
    aligned = lifecycle.align(settings, base)

    def rebound() -> Rows:
        weights = jnp.stack([dialects.mixture(PERTURBATIONS[kind]) for kind in config.perturbations])
        found = lifecycle.perturb(settings, base, aligned.starts, weights)
        return lifecycle_tables.rebound_rows(settings, volume, config.perturbations, found)

    def resistance() -> Rows:
        rows = lambda t: lifecycle.resist(settings, aligned.slices, t)
        each = (lifecycle_tables.resistance_rows(settings, volume, t, rows(t)) for t in config.temperatures)
        return [row for found in each for row in found]

    def mitigated() -> Rows:
        last = jax.tree.map(lambda x: x[-1], aligned.starts)
        methods, rows = mitigation.methods(), []
        for task in config.tasks:
            found = mitigation.mitigate(settings, base, last, task, methods)
            rows += lifecycle_tables.mitigation_rows(settings, volume, task, methods, found)
        return rows

    make = {"rebound": rebound, "resistance": resistance, "mitigation": mitigated}
    yield from ((part, make[part]) for part in missing)


def report(config: Config) -> None:
    """Tables and figures of the cells that are there."""
    out = config.out
    rows = _rows(config, "rebound")
    if rows:
        table = lifecycle_tables.rebound_table(rows, config.settings(config.width).pretraining_batch)
        lifecycle_tables.write(out / "rebound_table.csv", table)
        by_width = [[row for row in x if row["volume"] == config.further_volume] for x in (rows, table)]
        if "novel" in config.perturbations and all(by_width):
            lifecycle_figures.rebound_figure(*by_width, out / "width.png", by="width")
        rows, table = ([row for row in x if row["width"] == config.width] for x in (rows, table))
        for kind in config.perturbations:
            lifecycle_figures.rebound_figure(rows, table, out / f"rebound_{kind}.png", kind)
        lifecycle_figures.n_half_figure(table, out / "n_half.png", config.perturbation)
        if "unsafe" in config.perturbations:
            lifecycle_figures.score_figure(rows, out / "score.png")
    rows = _rows(config, "resistance")
    if rows:
        table = lifecycle_tables.resistance_table(rows)
        lifecycle_tables.write(out / "resistance_table.csv", table)
        lifecycle_figures.resistance_figure(table, out / "resistance.png")
    rows = _rows(config, "mitigation")
    if rows:
        table = lifecycle_tables.mitigation_table(rows)
        lifecycle_tables.write(out / "mitigation_table.csv", table)
        lifecycle_figures.mitigation_figure(table, out / "mitigation.png")


def _cell(config: Config, width: int, volume: int, part: str) -> Path:
    return config.out / f"width{width}" / f"{part}_{volume}.csv"


def _rows(config: Config, part: str) -> Rows:
    """Rows of all cells of a part, small volumes first."""
    places = [(config.width, volume) for volume in sorted(config.volumes)]
    places += [(width, config.further_volume) for width in config.further_widths]
    paths = [_cell(config, *place, part) for place in places]
    return [row for path in paths if path.exists() for row in lifecycle_tables.read(path)]


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except UserError as error:
        sys.exit(f"elasticity: {error}")
