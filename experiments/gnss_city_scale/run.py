"""A million cells of a city x 24 slices of time: a database in districts, by many processes, and what it costs.

    python experiments/gnss_city_scale/run.py --limit 2               # two districts, and the cost of the whole
    python experiments/gnss_city_scale/run.py --worker 3 --of 16      # the fourth of sixteen processes

Every process takes every n-th district and splits its cells over the devices that it sees. A district that is finished
is not repeated; of one that was interrupted the finished blocks are kept. The draws are those of one build of the whole
city, so that a cell's record does not depend on the district it is in.
"""

import json
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).parent))
from config import Config

from jaxalign.cli import run
from jaxalign.cli.config import keep_config
from jaxalign.core.errors import UserError
from jaxalign.dist import StopRequest
from jaxalign.gnss import database as databases
from jaxalign.gnss.building import Settings, build
from jaxalign.gnss.city import City
from jaxalign.gnss.city_generator import Plan
from jaxalign.gnss.constellation import Constellation, constellation, time_slices
from jaxalign.gnss.grid import make_grid
from jaxalign.gnss.study import SHIPPED_PLACE, demo_city, shipped_navigation
from jaxalign.gnss.time import from_calendar
from jaxalign.track import replacing

MARGIN_M = 300.0  # of city around the districts, so that their edges see buildings too
LABELS = "district", "cells", "seconds", "bytes"


class District(NamedTuple):
    """Row from the south, column from the west, and the area (lowest and highest east and north)."""

    row: int
    column: int
    area_m: np.ndarray

    @property
    def name(self) -> str:
        """Of its files."""
        return f"r{self.row:03d}c{self.column:03d}"


def districts(config: Config) -> list[District]:
    """All districts, around the city's origin."""
    corner = -0.5 * config.side * config.district_m
    return [
        District(row, column, corner + config.district_m * np.array([[column, row], [column + 1, row + 1]]))
        for row in range(config.side)
        for column in range(config.side)
    ]


def city_of(config: Config) -> City:
    """A generated city that covers all districts and a margin; its streets are rotated against them."""
    plan = Plan()
    pitch, turned = plan.block_m + sum(plan.street_m) / 2, np.cos(plan.rotation_rad) + np.sin(plan.rotation_rad)
    blocks = int(np.ceil((config.side * config.district_m * turned + 2 * MARGIN_M) / pitch))
    return demo_city(config.seed, plan._replace(blocks=(blocks, blocks)))


def sky_of(config: Config) -> Constellation:
    """The satellites of all slices."""
    at = np.datetime64(config.start, "ms")
    day = at.astype("datetime64[D]")
    start = from_calendar(np.asarray(day), np.asarray((at - day) / np.timedelta64(1, "s")))
    times = time_slices(start, config.slices, config.every_seconds)
    return constellation(shipped_navigation(), SHIPPED_PLACE, times, systems=config.systems)


def work(config: Config, city: City, sky: Constellation) -> None:
    """Builds this process's districts that are missing, and keeps a row of what each cost.

    Raises:
        UserError: districts of another configuration in the same folder.
    """
    keep_config(config, config.out, free=("worker", "of", "limit", "out"))
    mine = [d for k, d in enumerate(districts(config)) if k % config.of == config.worker]
    missing = [district for district in mine if not (config.out / f"{district.name}.npz").exists()]
    settings = Settings(config.draws, config.seed)
    with StopRequest() as stop:
        for district in missing[: config.limit]:
            if stop.received:
                break
            begin = time.perf_counter()
            grid = make_grid(city, config.spacing_m, district.area_m)
            parts = config.out / "parts" / district.name
            database = build(city, grid, sky, settings, parts=parts)
            path = databases.save(database, config.out / f"{district.name}.npz")
            for file in parts.glob("*.npz"):
                file.unlink()
            values = district.name, int(grid.outdoor.sum()), time.perf_counter() - begin, path.stat().st_size
            with replacing(config.out / f"{district.name}.json") as temporary:
                temporary.write_text(json.dumps(dict(zip(LABELS, values, strict=True))))
            print(f"{district.name}: {values[1]:,} cells, {values[2]:.1f} s", flush=True)


def report(config: Config, satellites: int) -> str:
    """What the finished districts cost, and what the whole will."""
    costs = [json.loads(path.read_text()) for path in sorted(config.out.glob("r*c*.json"))]
    whole = len(districts(config))
    if not costs:
        return f"{whole} districts, none of them finished."
    cells, seconds, size = (np.array([cost[label] for cost in costs], float) for label in LABELS[1:])
    each = seconds / (cells * config.slices)
    rate, all_cells = 1 / np.median(each), whole * cells.mean()
    records = all_cells * config.slices
    lines = [
        f"{len(costs)} of {whole} districts finished: {cells.sum():,.0f} cells x {config.slices} slices, "
        f"{seconds.sum():.0f} s, {size.sum() / 1e6:.0f} MB",
        f"a process computes {rate:,.0f} cells x slices a second (median of the districts; the slowest "
        f"{1 / each.max():,.0f}, with compilation), each of {satellites} satellites and {config.draws} draws: "
        f"{rate * satellites:,.0f} rays/s with their echoes, {rate * config.draws:,.0f} fixes/s",
        f"the whole: about {all_cells / 1e6:.2f} M cells x {config.slices} slices = {records / 1e6:.0f} M records, "
        f"{records * satellites / 1e9:.2f} G rays, {records * config.draws / 1e9:.2f} G fixes",
        f"{records / rate / 60:.0f} min in one process, T = {records / rate:.0f} s / processes; "
        f"{size.sum() / (cells.sum() * config.slices):.1f} bytes a record, {whole * size.mean() / 1e9:.2f} GB",
    ]
    return "\n".join(lines)


def main(config: Config) -> None:
    """Does this process's share, then says what it cost."""
    if not 0 <= config.worker < config.of:
        raise UserError(f"Worker {config.worker} of {config.of} does not exist; count from 0.")
    if config.side < 1 or config.slices < 1 or config.draws < 1:
        raise UserError("A job needs at least one district, slice and draw; give positive numbers.")
    config.out.mkdir(parents=True, exist_ok=True)
    run.keep_programs()
    city, sky = city_of(config), sky_of(config)
    print(f"{city.size:,} buildings, {len(sky.satellite)} satellites, {len(districts(config))} districts", flush=True)
    work(config, city, sky)
    text = report(config, len(sky.satellite))
    print(text)
    (config.out / "cost.txt").write_text(text + "\n")


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except UserError as error:
        sys.exit(f"gnss_city_scale: {error}")
