"""`jaxalign gnss correct`: better places from a receiver's fixes, or from its pseudoranges."""

import dataclasses
import time
from pathlib import Path
from typing import Literal

import numpy as np

from jaxalign.cli import run
from jaxalign.cli.gnss_report import Bar
from jaxalign.core.errors import UserError
from jaxalign.gnss import correction, filtering, fixes, ranging, rinex_nav, rinex_obs
from jaxalign.gnss import database as databases
from jaxalign.gnss.city import City
from jaxalign.gnss.city_files import read_city
from jaxalign.gnss.columns import ReadReport
from jaxalign.gnss.correction import Corrected, Reason
from jaxalign.gnss.database import Database
from jaxalign.gnss.fixes import Fixes
from jaxalign.gnss.frames import Geodetic
from jaxalign.gnss.ranging import Positioned, Search
from jaxalign.gnss.rinex_nav import Navigation
from jaxalign.gnss.study import SHIPPED_PLACE, shipped_navigation


@dataclasses.dataclass(frozen=True)
class Correct:
    """Correct a receiver: its fixes with a database, or its pseudoranges and C/N0 with a city.

    Attributes:
        fixes: CSV (gps_week, second_of_week_s, latitude_deg, longitude_deg, height_m) or NMEA.
        database: of `jaxalign gnss twin`; for the method of that name.
        city: for the method `ranging` the streets to search; otherwise refuse a database that was made of another city.
        ground_height_m: of the street above the ellipsoid. With a database: if given, the fixes' heights are used as
            well, which tells places apart far better. Ranging needs it where the city's origin has no height.
        filter: also use past fixes (a hidden Markov model over the cells), for a receiver that moves.
        step_m: standard deviation of its step from one fix to the next, for the filter.
        oldest_seconds: how far the nearest slice may be in time.
        observations: instead of fixes: RINEX observation file, positioned first as an ordinary receiver does.
        navigation: RINEX navigation files of the same day; by default the small one that comes with jaxalign.
        method: `database` looks fixes up. `ranging` judges every outdoor cell near the fix by the pseudoranges and
            C/N0 of the observation file; several times better, and slower.
        systems: GNSS to use from the observation file, by their RINEX letters.
        place: latitude and longitude in degrees and height in m, for a city file that does not say where it is.
        out: corrected places, .csv or .geojson.
    """

    fixes: Path | None = None
    database: Path = Path("gnss/database.npz")
    city: Path | None = None
    ground_height_m: float | None = None
    filter: bool = False
    step_m: float = 2.5
    oldest_seconds: float = 180.0
    observations: Path | None = None
    navigation: tuple[Path, ...] = ()
    method: Literal["database", "ranging"] = "database"
    systems: str = "GREJC"
    place: tuple[float, float, float] | None = None
    out: Path = Path("gnss/corrected.csv")


def correct(config: Correct) -> Corrected:
    """Corrects a file of fixes or observations, writes the result and says how many were corrected.

    Raises:
        UserError: a mistake in `config` or in one of the files.
    """
    if (config.fixes is None) == (config.observations is None):
        raise UserError("Give either --fixes (CSV or NMEA) or --observations (RINEX), and not both.")
    positive(step_m=config.step_m)
    if config.method == "ranging":
        return _by_ranging(config)
    database = databases.load(config.database, None if config.city is None else read_city(config.city))
    if database.origin is None:
        raise UserError(f"{config.database} does not say where on Earth it is; build it with --place.")
    received = fixes.read(config.fixes) if config.fixes is not None else _positioned(config)[0].fixes
    local = received.local_m(database.origin)
    if config.ground_height_m is None:
        local = local[:, :2]
    else:
        local[:, 2] += database.origin.height_m - config.ground_height_m - database.grid.height_m
    begin = time.perf_counter()
    answer = correction.correct_at(database, received.time, local, oldest_s=config.oldest_seconds)
    if config.filter:
        answer = _filtered(database, received.time, local, answer, config)
    return _written(config, received, answer, database.origin, time.perf_counter() - begin)


def _by_ranging(config: Correct) -> Corrected:
    if config.observations is None or config.city is None:
        raise UserError("--method ranging needs pseudoranges and streets; give --observations and --city.")
    if config.filter:
        raise UserError("--filter follows fixes through a database; leave it out with --method ranging.")
    city = placed(read_city(config.city), config.place)
    origin = city.origin
    assert origin is not None
    if config.ground_height_m is None and origin.height_m == 0.0:
        raise UserError(
            f"{config.city} does not say how high its streets are above the ellipsoid, which ranging needs to a few "
            "metres; give --ground-height-m, or --place with a height."
        )
    if config.ground_height_m is not None:
        origin = origin._replace(height_m=config.ground_height_m)
        city = city._replace(origin=origin)
    run.keep_programs()
    positioned, navigation, search = _positioned(config)
    print(f"streets {origin.height_m:.1f} m above the ellipsoid (--ground-height-m)")
    begin = time.perf_counter()
    with Bar() as bar:
        answer = ranging.match(city, positioned, navigation, search, lambda n, of: bar("searching the streets", n / of))
    return _written(config, positioned.fixes, answer, origin, time.perf_counter() - begin)


def _positioned(config: Correct) -> tuple[Positioned, Navigation, Search]:
    """The ordinary fixes of the observation file."""
    assert config.observations is not None
    observations = rinex_obs.read(config.observations)
    navigation = rinex_nav.read(*config.navigation) if config.navigation else shipped_navigation()
    for name, report in (("observation", observations.report), ("navigation", navigation.report)):
        if report.total:
            print(f"{name} file: {report}")
    search = Search(systems=config.systems)
    return ranging.position(observations, navigation, search), navigation, search


def _written(config: Correct, received: Fixes, answer: Corrected, origin: Geodetic, spent_s: float) -> Corrected:
    """Writes the places and tells what became of the fixes."""
    fixes.write(config.out, received, answer, origin)
    counts = {reason.name.lower(): int((answer.reason == reason).sum()) for reason in Reason}
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    skipped = f"; {received.skipped} unreadable lines skipped" if received.skipped else ""
    print(f"{len(answer.reason)} fixes in {spent_s:.2f} s: {told}{skipped}\n{config.out}")
    return answer


def _filtered(database: Database, at, local, single: Corrected, config: Correct) -> Corrected:
    """The filter's places for the epochs whose time the database knows."""
    slices, gap = database.nearest_slice(at)
    known = gap <= config.oldest_seconds
    if not known.any():
        return single
    motion = filtering.Motion(step_m=config.step_m)
    followed = filtering.follow(database, slices[known], local[known], motion).filtered
    for whole, part in zip(single, followed, strict=True):
        whole[known] = part
    return single


def placed(city: City, place: tuple[float, float, float] | None) -> City:
    """The city at `place` (degrees, degrees, m), or where its file says.

    Raises:
        UserError: neither says where, or `place` is nowhere.
    """
    if place is None:
        if city.origin is None:
            where = ", ".join(f"{value:.6g}" for value in np.degrees(SHIPPED_PLACE[:2]))
            raise UserError(f"The city file does not say where on Earth it is; give --place, such as {where}, 50.")
        return city
    latitude, longitude, height = place
    if not (abs(latitude) <= 90 and abs(longitude) <= 360 and np.isfinite(height)):
        raise UserError(f"--place is {place}; give latitude and longitude in degrees and height in m.")
    return city._replace(origin=Geodetic(np.deg2rad(latitude), np.deg2rad(longitude), height))


def say(report: ReadReport, city: City) -> None:
    """Prints what a navigation file and a city lacked."""
    if report.total:
        print(f"navigation file: {report}")
    for note in city.notes[:5]:
        print(f"city: {note}")
    if len(city.notes) > 5:
        print(f"city: {len(city.notes) - 5} more notes")


def positive(**values: float | int) -> None:
    """Refuses numbers that are not finite and above zero.

    Raises:
        UserError: naming the option.
    """
    for name, value in values.items():
        if not (np.isfinite(value) and value > 0):
            raise UserError(f"--{name.replace('_', '-')} is {value:g}; choose a positive number.")
