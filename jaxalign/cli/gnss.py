"""The GNSS twin from the command line: build a database, correct fixes with it, judge it, show it."""

import dataclasses
import time
import zlib
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from jaxalign.cli import run
from jaxalign.cli.gnss_correct import Correct, correct, placed, positive, say
from jaxalign.cli.gnss_report import Bar, report
from jaxalign.core.errors import UserError
from jaxalign.gnss import database as databases
from jaxalign.gnss import evaluation, figures, outcome, rinex_nav, rinex_obs, virtual, webmap
from jaxalign.gnss.building import Settings, build
from jaxalign.gnss.city import City
from jaxalign.gnss.city_files import read_city, write_city
from jaxalign.gnss.constellation import constellation, time_slices
from jaxalign.gnss.grid import make_grid
from jaxalign.gnss.outcome import Outcome
from jaxalign.gnss.study import Design, Done, Study, demo_city, shipped_navigation, study
from jaxalign.gnss.time import GpsTime, from_calendar


@dataclasses.dataclass(frozen=True)
class Twin:
    """Simulate virtual receivers all over a city and write the correction database.

    Attributes:
        city: CityJSON, GeoJSON or OBJ file; by default a generated city.
        navigation: RINEX navigation files of one day; by default the small one that comes with jaxalign.
        start: first slice in GPS time, such as 2021-03-19T11:00:00.
        slices: number of time slices.
        every_seconds: between slices; a database ages in minutes.
        spacing_m: side of a grid cell.
        half_width_m: the grid spans this far from the city's origin; by default the whole city.
        draws: of noise and echoes per cell.
        systems: GNSS to use, by their RINEX letters.
        mask_deg: lowest elevation of satellites.
        diffraction: let satellites fade at roof edges instead of vanishing.
        place: latitude and longitude in degrees and height in m, for a city file that does not say where it is.
        seed: of the draws, and of the generated city.
        out: the database, .npz or .parquet; finished blocks are kept in a folder beside it until it is whole, so an
            interrupted build goes on when started again.
    """

    city: Path | None = None
    navigation: tuple[Path, ...] = ()
    start: str = "2021-03-19T11:00:00"
    slices: int = 5
    every_seconds: float = 120.0
    spacing_m: float = 3.0
    half_width_m: float | None = None
    draws: int = 64
    systems: str = "GEJC"
    mask_deg: float = 10.0
    diffraction: bool = False
    place: tuple[float, float, float] | None = None
    seed: int = 0
    out: Path = Path("gnss/database.npz")


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Judge the twin by held-out receivers in cities that differ from its model.

    Attributes:
        cities: number of generated cities.
        receivers: held out, per city and epoch.
        tracks: walks per city.
        ages_minutes: of older databases.
        half_width_m: the grid spans this far from the middle of the city.
        draws: per cell.
        systems: GNSS to use, by their RINEX letters.
        learned: also train a network per epoch, as an ablation.
        seed: of the first city.
        out: folder for the tables, results.json and pictures.
    """

    cities: int = 1
    receivers: int = 300
    tracks: int = 6
    ages_minutes: tuple[float, ...] = (5.0, 15.0, 60.0)
    half_width_m: float = 150.0
    draws: int = 64
    systems: str = "GEJC"
    learned: bool = False
    seed: int = 5
    out: Path = Path("gnss/evaluation")


@dataclasses.dataclass(frozen=True)
class Demo:
    """Generate a city, build its twin, correct held-out receivers, draw everything; about two minutes on two cores.

    Attributes:
        seed: of the city.
        receivers: held out, per epoch.
        tracks: walks.
        half_width_m: the grid spans this far from the middle of the city.
        draws: per cell.
        out: folder for the database, pictures, the map, the city (city.json) and a walk as RINEX (walk.rnx).
    """

    seed: int = 5
    receivers: int = 300
    tracks: int = 4
    half_width_m: float = 150.0
    draws: int = 64
    out: Path = Path("gnss/demo")


@dataclasses.dataclass(frozen=True)
class Gnss:
    """A digital twin of a city for satellite positioning.

    Attributes:
        command: what to do.
    """

    command: tyro.conf.OmitArgPrefixes[
        Annotated[Twin, tyro.conf.subcommand("twin", prefix_name=False)]
        | Annotated[Correct, tyro.conf.subcommand("correct", prefix_name=False)]
        | Annotated[Evaluate, tyro.conf.subcommand("evaluate", prefix_name=False)]
        | Annotated[Demo, tyro.conf.subcommand("demo", prefix_name=False)]
    ]


def main(config: Gnss) -> None:
    """Runs a subcommand.

    Raises:
        UserError: a mistake in it.
    """
    command = config.command
    if isinstance(command, Twin):
        twin(command)
    elif isinstance(command, Correct):
        correct(command)
    elif isinstance(command, Evaluate):
        evaluate(command)
    else:
        demo(command)


def twin(config: Twin) -> Path:
    """Builds and writes a database.

    Raises:
        UserError: a mistake in `config` or in one of the files.
    """
    positive(slices=config.slices, every_seconds=config.every_seconds, spacing_m=config.spacing_m, draws=config.draws)
    if config.out.suffix not in (".npz", ".parquet"):
        raise UserError(f"--out is {config.out}; give a file that ends in .npz or .parquet.")
    if not 0 < config.mask_deg < 90:
        raise UserError(f"--mask-deg is {config.mask_deg:g}; choose an elevation between 0 and 90 degrees.")
    start = _start(config.start)
    navigation = rinex_nav.read(*config.navigation) if config.navigation else shipped_navigation()
    city = placed(demo_city(config.seed) if config.city is None else read_city(config.city), config.place)
    say(navigation.report, city)
    half = config.half_width_m
    grid = make_grid(city, config.spacing_m, None if half is None else np.array([[-half, -half], [half, half]]))
    times = time_slices(start, config.slices, config.every_seconds)
    assert city.origin is not None
    sky = constellation(
        navigation, city.origin, times, systems=config.systems, mask_rad=float(np.deg2rad(config.mask_deg))
    )
    print(f"{int(grid.outdoor.sum()):,} cells, {len(sky.satellite)} satellites, {config.slices} slices")
    settings = Settings(config.draws, config.seed, config.diffraction, mask_rad=float(np.deg2rad(config.mask_deg)))
    run.keep_programs()
    parts = config.out.with_suffix(".parts")
    with Bar() as bar:
        database = build(city, grid, sky, settings, parts=parts, done=lambda n, of: bar("building the twin", n / of))
    databases.save(database, config.out)
    for file in parts.glob("*.npz"):
        file.unlink()
    parts.rmdir()
    size = config.out.stat().st_size
    print(f"{config.out}: {size / 1e6:.1f} MB, {databases.bytes_per_record(database)} bytes per cell and slice")
    return config.out


def evaluate(config: Evaluate) -> list[dict]:
    """Evaluates city by city, prints and writes the pooled tables; returns the rows of the table of single fixes.

    The errors of a finished city are kept in `out`, and not computed again.

    Raises:
        UserError: a mistake in `config`.
    """
    positive(
        cities=config.cities, receivers=config.receivers, tracks=config.tracks, half_width_m=config.half_width_m,
        draws=config.draws,
    )  # fmt: skip
    design = Design(
        half_width_m=config.half_width_m,
        receivers=config.receivers,
        tracks=config.tracks,
        ages_s=tuple(60 * age for age in config.ages_minutes),
        systems=config.systems,
        learned=config.learned,
    )
    run.keep_programs()
    settings, outcomes = Settings(config.draws), []
    for seed in range(config.seed, config.seed + config.cities):
        path = config.out / f"city-{seed}-{_digest(config)}.npz"
        if not path.exists():
            with Bar(f"city {seed}: ") as bar:
                outcome.save(outcome_of(run_study(demo_city(seed), seed, design, settings, bar)), path)
        outcomes.append(outcome.load(path))
    return report(outcomes, config.out)


def _digest(config: Evaluate) -> str:
    """Of what a city's errors depend on, so that cities that are done are not repeated."""
    relevant = dataclasses.replace(config, cities=1, seed=0, out=Path())
    return f"{zlib.crc32(repr(relevant).encode()):08x}"


def outcome_of(result: Study) -> Outcome:
    """The part of a study that is kept."""
    return Outcome(result.errors, evaluation.track_errors(result.tracks), result.ageing)


def demo(config: Demo) -> Path:
    """Runs the demonstration; returns the HTML map.

    Raises:
        UserError: a mistake in `config`.
    """
    positive(receivers=config.receivers, tracks=config.tracks, half_width_m=config.half_width_m, draws=config.draws)
    begin = time.perf_counter()
    run.keep_programs()
    design = Design(half_width_m=config.half_width_m, receivers=config.receivers, tracks=config.tracks)
    settings = Settings(config.draws)
    config.out.mkdir(parents=True, exist_ok=True)
    write_city(demo_city(config.seed), config.out / "city.json")
    city = read_city(config.out / "city.json")  # the very one, so that the database knows the file again
    with Bar() as bar:
        result = run_study(city, config.seed, design, settings, lambda what, share: bar(what, 0.9 * share))
        bar("drawing", 0.9)
        databases.save(result.database, config.out / "database.npz")
        figures.error_maps(result.database, city, 0, config.out / "error_maps.png")
        figures.sky_plots(city, _spread(result), result.sky, 0, config.out / "sky.png")
        figures.tracks(result.tracks, city, result.database, config.out / "walks.png")
        assert city.origin is not None
        recorded = virtual.of_epoch(shipped_navigation(), city.origin, result.tracks[0].epoch, result.sky, 0)
        rinex_obs.write(config.out / "walk.rnx", recorded)
    report([outcome_of(result)], config.out)
    path = config.out / "map.html"
    epoch = result.epochs[0]
    receivers = epoch.truth_m, epoch.fix_m, result.corrected[0].pos_m
    table = (config.out / "tables.txt").read_text()
    webmap.write_map(path, "GNSS twin", city, result.database, 0, receivers, result.tracks, table)
    print(f"\n{time.perf_counter() - begin:.0f} s; pictures and database in {config.out}, map: {path}")
    print(
        "What a receiver on the first walk recorded, to be corrected by its pseudoranges:\n  jaxalign gnss correct "
        f"--method ranging --observations {config.out / 'walk.rnx'} --city {config.out / 'city.json'}"
    )
    return path


def run_study(city: City, seed: int, design: Design, settings: Settings, bar: Done) -> Study:
    """The study of a generated city under the shipped satellites."""
    start = _start(Twin.start)
    return study(city, shipped_navigation(), start, design, settings, seed=seed, done=bar)


def _spread(result: Study) -> np.ndarray:
    """Four receivers from the most open sky to the most hidden."""
    epoch = result.epochs[0]
    order = np.argsort(epoch.observed.tracked.sum(axis=1))
    chosen = epoch.truth_m[order[np.linspace(0, len(order) - 1, 4).astype(int)]]
    return np.column_stack([chosen, np.full(len(chosen), result.database.grid.height_m)])


def _start(text: str) -> GpsTime:
    try:
        at = np.datetime64(text, "ms")
    except ValueError:
        raise UserError(f"--start is {text!r}; give GPS time such as 2021-03-19T11:00:00.") from None
    day = at.astype("datetime64[D]")
    return from_calendar(np.asarray(day), np.asarray((at - day) / np.timedelta64(1, "s")))
