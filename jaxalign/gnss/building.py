"""Building a database slice by slice: batched in blocks of cells, spread over devices, resumable after any block."""

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxalign import dist
from jaxalign.gnss.city import City
from jaxalign.gnss.constellation import Constellation
from jaxalign.gnss.database import Database, city_digest, make_database
from jaxalign.gnss.grid import Grid
from jaxalign.gnss.tiles import build_tiles
from jaxalign.gnss.twin import Conditions, Statistics, scatter, simulate_on, wall_permittivity
from jaxalign.track import replacing

CELLS_PER_TILE, TILES = 128, 16


class Settings(NamedTuple):
    """Of a build.

    Attributes:
        draws: per cell.
        seed: of all draws.
        diffraction: fade satellites at roof edges.
        block: cells per block; a block of one slice is one program call and one file.
        conditions: of reception.
        mask_rad: lowest elevation of satellites.
    """

    draws: int = 64
    seed: int = 0
    diffraction: bool = False
    block: int = 16384
    conditions: Conditions = Conditions()
    mask_rad: float = np.deg2rad(10.0)


def build(
    city: City,
    grid: Grid,
    sky: Constellation,
    settings: Settings = Settings(),
    *,
    mesh: dist.Mesh | None = None,
    parts: Path | None = None,
    done: Callable[[int, int], None] = lambda done, total: None,
) -> Database:
    """Simulates every outdoor cell at every time of `sky`.

    Args:
        city: the buildings.
        grid: the cells.
        sky: satellites and times.
        settings: of the simulation.
        mesh: devices; all if None.
        parts: folder for finished blocks; a later call with the same arguments takes them from there.
        done: called after every block with the number of finished blocks and of all.
    """
    mesh = dist.make_mesh() if mesh is None else mesh
    cells = grid.cells_m()
    blocks = np.array_split(np.arange(len(cells)), max(1, -(-len(cells) // settings.block)))
    run = simulate_on(mesh, settings.draws, settings.diffraction)
    walls, total = wall_permittivity(city), len(blocks) * len(sky.direction_enu)
    identity = _identity(city, grid, sky, settings)
    slices: list[list[Statistics]] = [[] for _ in sky.direction_enu]
    for b, ids in enumerate(blocks):
        tiles = None
        for e in range(len(sky.direction_enu)):
            path = None if parts is None else parts / f"{identity}-{b:05d}-{e:04d}.npz"
            values = None if path is None else _read_part(path)
            if values is None:
                if tiles is None:
                    tiles = build_tiles(
                        city, cells[ids], capacity=CELLS_PER_TILE, multiple=math.lcm(mesh.size, filled_up(len(ids))),
                        elevation_mask_rad=settings.mask_rad,
                    )  # fmt: skip
                key = jax.random.fold_in(jax.random.key(settings.seed), e)
                values = scatter(tiles, run(key, tiles, walls, sky.at(e), settings.conditions), len(ids))
                _write_part(path, values)
            slices[e].append(values)
            done(b * len(sky.direction_enu) + e + 1, total)
    whole = [Statistics(*(np.concatenate(fields) for fields in zip(*blocks, strict=True))) for blocks in slices]
    stacked = Statistics(*(np.stack(fields) for fields in zip(*whole, strict=True)))
    return make_database(grid, sky, stacked, city, described(settings))


def filled_up(cells: int) -> int:
    """What the number of tiles should be a multiple of: large grids of similar size share compiled programs."""
    return TILES if cells > TILES * CELLS_PER_TILE else 1


def described(settings: Settings) -> dict:
    """Settings as plain JSON values."""
    flat = settings._asdict() | {"conditions": settings.conditions._asdict()}
    flat["conditions"]["receiver"] = settings.conditions.receiver._asdict()
    return json.loads(json.dumps(flat, default=float))


def _identity(city, grid, sky, settings):
    """Short digest of everything that a block depends on."""
    digest = hashlib.sha256(city_digest(city).encode())
    digest.update(json.dumps([described(settings), grid.spacing_m, grid.height_m, sky.satellite]).encode())
    for array in (grid.low_m, grid.outdoor, sky.direction_enu, sky.clock_of, np.asarray(sky.time.second_of_week)):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _read_part(path):
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            return Statistics(**{name: arrays[name] for name in Statistics._fields})
    except FileNotFoundError:
        return None
    except Exception:  # half a file of a killed run, or a damaged one: simulate it again
        return None


def _write_part(path, values):
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            np.savez(temporary, **values._asdict())
