"""A whole study of one city: its twin, held-out receivers and walks in a perturbed world, every method, older data."""

from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxalign.core.errors import UserError
from jaxalign.core.prng import stream
from jaxalign.gnss import correction, evaluation, heldout, learned, rinex_nav
from jaxalign.gnss.building import CELLS_PER_TILE, Settings, build, filled_up
from jaxalign.gnss.city import City
from jaxalign.gnss.city_generator import Plan, generate_city
from jaxalign.gnss.constellation import Constellation, constellation
from jaxalign.gnss.database import Database
from jaxalign.gnss.evaluation import Errors, Followed
from jaxalign.gnss.frames import Geodetic
from jaxalign.gnss.grid import make_grid
from jaxalign.gnss.heldout import Epoch, Perturbation, World
from jaxalign.gnss.rinex_nav import Navigation
from jaxalign.gnss.tiles import build_tiles
from jaxalign.gnss.time import GpsTime
from jaxalign.gnss.twin import predict, scatter, wall_permittivity
from jaxalign.gnss.walks import walk

SHIPPED_NAVIGATION = "SEPT078M.21P.gz"
SHIPPED_PLACE = Geodetic(np.deg2rad(35.7), np.deg2rad(139.7), 50.0)  # where that file sees most satellites
SHIPPED_START = GpsTime(2149, 5 * 86400 + 11 * 3600.0)  # 2021-03-19 11:00 GPS time

Done = Callable[[str, float], None]


class Design(NamedTuple):
    """Sizes of a study.

    Attributes:
        half_width_m: the grid spans this far from the city's origin in every direction.
        spacing_m: of the grid.
        receivers: held out, in every epoch.
        tracks: held-out walks, spread over the epochs.
        walk_epochs: places of a walk, 1.5 m apart.
        hours: epochs after the start, h; for each the one farthest from it serves as the wrong time.
        ages_s: of older databases to compare with.
        systems: letters of the satellite systems.
        truth: how the true world differs.
        ranging: also judge what sees pseudoranges.
        learned: also train a network per epoch.
    """

    half_width_m: float = 150.0
    spacing_m: float = 3.0
    receivers: int = 300
    tracks: int = 6
    walk_epochs: int = 120
    hours: tuple[float, ...] = (0.0, 1.0, 2.0)
    ages_s: tuple[float, ...] = ()
    systems: str = "GEJC"
    truth: Perturbation = Perturbation()
    ranging: bool = True
    learned: bool = False


class Study(NamedTuple):
    """What came out.

    Attributes:
        errors: of single fixes.
        tracks: every walk, corrected by every method.
        ageing: age in s -> errors ``[R]`` with a database so old; 0 is fresh.
        database: of the epochs first, then the older ones.
        sky: its satellites.
        truth: the true city.
        epochs: what the receivers reported.
        corrected: places by ``twin+height``, per epoch.
    """

    errors: Errors
    tracks: list[Followed]
    ageing: dict[float, Float[np.ndarray, " R"]]
    database: Database
    sky: Constellation
    truth: City
    epochs: list[Epoch]
    corrected: list[correction.Corrected]


def shipped_navigation() -> Navigation:
    """The navigation file that comes with the project (from the PyPI wheel cssrlib, MIT)."""
    with resources.as_file(resources.files("jaxalign.gnss") / "data" / SHIPPED_NAVIGATION) as path:
        return rinex_nav.read(path)


def demo_city(seed: int, plan: Plan = Plan()) -> City:
    """A generated city where the shipped navigation file is good."""
    return generate_city(seed, plan, origin=SHIPPED_PLACE)


def epochs_of(start: GpsTime, design: Design) -> GpsTime:
    """Times of all slices: the epochs, then for every age the epochs so much earlier."""
    ages = (0.0, *design.ages_s)
    seconds = np.array([3600 * hour - age for age in ages for hour in design.hours])
    week = np.full(len(seconds), int(start.week))
    return GpsTime(week, float(start.second_of_week) + seconds).normalised()


def study(
    city: City,
    navigation: Navigation,
    start: GpsTime,
    design: Design = Design(),
    settings: Settings = Settings(),
    *,
    seed: int = 0,
    parts: Path | None = None,
    done: Done = lambda what, share: None,
) -> Study:
    """Builds the twin of a city and judges it by receivers in a world that differs from it.

    Args:
        city: the model; must have an origin.
        navigation: broadcast records.
        start: of the first epoch.
        design: sizes.
        settings: of the twin.
        seed: of truth, receivers and noise.
        parts: folder for finished blocks of the twin.
        done: told of the progress: what, and which share of the whole is finished.

    Raises:
        UserError: a city without an origin, fewer than two epochs, or too few satellites or space.
    """
    if city.origin is None or len(design.hours) < 2:
        raise UserError("A study needs a city with an origin on Earth and two epochs or more; give both.")
    half = design.half_width_m
    grid = make_grid(city, design.spacing_m, np.array([[-half, -half], [half, half]]))
    sky = constellation(navigation, city.origin, epochs_of(start, design), systems=design.systems)
    database = build(
        city, grid, sky, settings, parts=parts, done=lambda n, of: done("building the twin", 0.45 * n / of)
    )
    truth = heldout.perturb(city, seed + 1, design.truth)
    places = heldout.street_receivers(grid, truth, design.receivers, seed + 2)
    world = World(truth, places, design.truth)
    errors, ageing, epochs, corrected = _single_epochs(city, database, world, sky, design, settings, (seed, done))
    tracks = _tracks(database, truth, sky, design, seed, done)
    return Study(errors, tracks, ageing, database, sky, truth, epochs, corrected)


def _single_epochs(city, database, world, sky, design, settings, run):
    """Errors of all methods and of older databases over the epochs."""
    seed, done = run
    count, parts, epochs, corrected = len(design.hours), [], [], []
    aged = {age: [] for age in (0.0, *design.ages_s)}
    cells = database.grid.cells_m()
    tiles, walls = (
        build_tiles(city, cells, capacity=CELLS_PER_TILE, multiple=filled_up(len(cells))),
        wall_permittivity(city),
    )
    for e, key in enumerate(evaluation.streams(seed, "epochs", count)):
        epoch = world.epoch(key, sky, e)
        farthest = int(np.argmax(np.abs(np.subtract(design.hours, design.hours[e]))))
        methods = evaluation.position_methods(database, e, farthest)
        if design.ranging:
            view = sky.at(e).direction_enu
            signals = predict(tiles, walls, view, settings.conditions, settings.diffraction)
            signals = scatter(tiles, signals, len(cells))
            methods |= evaluation.ranging_methods(database, signals, sky, e)
        if design.learned:
            model = learned.train(stream(key, "network"), database, e)
            methods["learned"] = partial(_learned, model)
        parts.append((epoch, methods))
        epochs.append(epoch)
        corrected.append(correction.correct(database, e, epoch.spatial_m))
        for k, age in enumerate(aged):
            answer = correction.correct(database, k * count + e, epoch.spatial_m)
            aged[age].append(evaluation.horizontal_error(answer, epoch.truth_m)[epoch.has_fix])
        done("held-out receivers", 0.45 + 0.15 * (e + 1) / count)
    errors = evaluation.evaluate(parts)
    done("held-out receivers", 0.8)
    return errors, {age: np.concatenate(rows) for age, rows in aged.items()}, epochs, corrected


def _learned(model: learned.Model, epoch: Epoch) -> correction.Corrected:
    return learned.correct(model, epoch.spatial_m)


def _tracks(database: Database, truth: City, sky: Constellation, design: Design, seed: int, done: Done):
    """The walks, each in one of the epochs and on a day of its own."""
    count = len(design.hours)
    paths = [walk(database.grid, truth, seed + 100 + k, epochs=design.walk_epochs) for k in range(design.tracks)]
    world = World(truth, np.concatenate(paths), design.truth)
    number = np.repeat(np.arange(design.tracks), design.walk_epochs)
    keys = evaluation.streams(seed, "tracks", count)
    reports = [world.epoch(key, sky, e, days=number) for e, key in enumerate(keys)]
    tracks = []
    for k in range(design.tracks):
        tracks.append(evaluation.follow(database, reports[k % count].rows(number == k), k % count))
        done("held-out walks", 0.8 + 0.2 * (k + 1) / design.tracks)
    return tracks
