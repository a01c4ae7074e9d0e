"""From the observation file of a receiver in a city to places: every street near the fix is tried.

The ordinary fix (``spp``) says where to look. Around it the twin predicts for every outdoor cell what each satellite's
signal would be, and pseudoranges and C/N0 judge the cells (``matching``). Nothing is built beforehand: predictions
are made for slices of time, in which satellites move by a hundredth of a degree per second.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from jaxalign.core.errors import UserError
from jaxalign.gnss import frames, matching, output, spp
from jaxalign.gnss.building import CELLS_PER_TILE, filled_up
from jaxalign.gnss.city import City
from jaxalign.gnss.constellation import Constellation, constellation
from jaxalign.gnss.correction import Corrected, Reason
from jaxalign.gnss.fixes import Fixes
from jaxalign.gnss.grid import Grid, make_grid
from jaxalign.gnss.matching import Matching, Observed
from jaxalign.gnss.pvt import Fix
from jaxalign.gnss.rinex_nav import Navigation
from jaxalign.gnss.rinex_obs import Observations
from jaxalign.gnss.tiles import build_tiles
from jaxalign.gnss.time import GpsTime
from jaxalign.gnss.twin import Conditions, predict, scatter, wall_permittivity


class Search(NamedTuple):
    """Where and how finely to look.

    Attributes:
        spacing_m: side of a cell.
        radius_m: around the fix.
        every_s: between predictions.
        mask_rad: lowest elevation of satellites.
        systems: GNSS to use, by their RINEX letters.
        matching: how predictions are believed.
        conditions: of reception.
        diffraction: fade satellites at roof edges.
    """

    spacing_m: float = 3.0
    radius_m: float = 60.0
    every_s: float = 30.0
    mask_rad: float = np.deg2rad(10.0)
    systems: str = "GREJC"
    matching: Matching = Matching()
    conditions: Conditions = Conditions()
    diffraction: bool = False


class Positioned(NamedTuple):
    """What an ordinary receiver makes of E epochs: its measurements, names of the satellites ``[S]``, its fixes."""

    data: spp.Measurements
    satellite: np.ndarray
    klobuchar: np.ndarray
    fix: Fix
    fixes: Fixes


def position(observations: Observations, navigation: Navigation, search: Search = Search()) -> Positioned:
    """The ordinary fixes of a receiver, weighted by C/N0 as the twin's are, if it reports any; NaN where there is none.

    Raises:
        UserError: for an unknown system, or observations without a pseudorange of these systems.
    """
    data = spp.measurements(observations, navigation, search.systems)
    satellite = np.array([name for name in observations.satellite if name[0] in search.systems], "<U3")
    klobuchar = navigation.klobuchar.get("G", spp.DEFAULT_KLOBUCHAR)
    options = spp.Options(elevation_mask_rad=search.mask_rad, by_cn0=bool(data.cn0_dbhz.any()))
    fix = spp.locate(data, klobuchar, options)
    track = output.track(spp.fix_time(observations.time, fix), fix)
    return Positioned(data, satellite, klobuchar, fix, Fixes(track.time, track.place, observations.report.total))


def match(
    city: City,
    positioned: Positioned,
    navigation: Navigation,
    search: Search = Search(),
    done: Callable[[int, int], None] = lambda done, total: None,
) -> Corrected:
    """Places of the receiver ``[E]`` on the streets of a city.

    Args:
        city: with an origin, whose height is that of the streets above the ellipsoid.
        positioned: of :func:`position`.
        navigation: of the same day.
        search: where and how finely.
        done: called after every slice of time with the number of finished ones and of all.

    Raises:
        UserError: a city without an origin, far from all fixes, or without a cell outdoors near them.
    """
    if city.origin is None:
        raise UserError("The city does not say where on Earth it is, so no receiver is in it; give it an origin.")
    fix_m = positioned.fixes.local_m(city.origin)[:, :2]
    answer = Corrected(
        fix_m.astype(np.float32), np.full((len(fix_m), 3), np.nan), np.full(len(fix_m), int(Reason.NO_FIX))
    )
    if not np.isfinite(fix_m).any():
        return answer
    grid = _grid_around(city, fix_m, search)
    slices = _slices(positioned.fixes.time, np.asarray(np.isfinite(fix_m).all(axis=1)), search.every_s)
    sky = _tracked_sky(positioned, navigation, city, slices, search)
    observed = _observed(positioned, sky, slices, city, fix_m, grid.height_m)
    cells = grid.cells_m()
    tiles = build_tiles(
        city, cells, capacity=CELLS_PER_TILE, multiple=filled_up(len(cells)), elevation_mask_rad=search.mask_rad
    )
    walls, most = wall_permittivity(city), int(np.bincount(slices.number[slices.number >= 0]).max())
    for e in range(len(slices.time.week)):
        view = sky.at(e)
        signals = predict(tiles, walls, view.direction_enu, search.conditions, search.diffraction)
        signals = scatter(tiles, signals, len(cells))
        rows = np.flatnonzero(slices.number == e)
        filled = np.resize(rows, most)  # one shape for all slices
        seen = Observed(*(field[filled] for field in observed))
        part = matching.match(grid, signals, fix_m[filled], seen, view, search.matching, radius_m=search.radius_m)
        for whole, piece in zip(answer, part, strict=True):
            whole[rows] = piece[: len(rows)]
        done(e + 1, len(slices.time.week))
    return answer


class _Slices(NamedTuple):
    """Number of the slice of each epoch ``[E]``, -1 where there is no fix, and times in the middle of the slices."""

    number: np.ndarray
    time: GpsTime


def _slices(time: GpsTime, known: Bool[np.ndarray, " E"], every_s: float) -> _Slices:
    start = time.at(int(np.argmax(known)))
    elapsed = time.minus(start)
    number = np.full(len(known), -1)
    bins, number[known] = np.unique(np.floor(elapsed[known] / every_s), return_inverse=True)
    middle = [elapsed[number == k].mean() for k in range(len(bins))]
    week = np.full(len(bins), int(start.week))
    return _Slices(number, GpsTime(week, float(start.second_of_week) + np.array(middle)).normalised())


def _grid_around(city: City, fix_m: np.ndarray, search: Search) -> Grid:
    """The part of the city that lies within the search of any fix."""
    known = fix_m[np.isfinite(fix_m).all(axis=1)]
    reach = search.radius_m + search.spacing_m
    bounds = city.bounds()
    low = np.maximum(bounds[0], known.min(axis=0) - reach)
    high = np.minimum(bounds[1], known.max(axis=0) + reach)
    if (high - low < search.spacing_m).any():
        gap = np.maximum(np.maximum(bounds[0] - known, known - bounds[1]), 0.0)
        raise UserError(
            f"The nearest fix is {np.hypot(*gap.T).min():.0f} m from the city; give the city around the receiver, or "
            "check its origin and coordinate system."
        )
    return make_grid(city, search.spacing_m, np.stack([low, high]))


def _tracked_sky(positioned: Positioned, navigation: Navigation, city, slices: _Slices, search: Search):
    """Satellites over the city that the receiver ever tracks; of the others it may not know the signals."""
    tracked = {str(name) for name in positioned.satellite[positioned.data.usable.any(axis=0)]}
    systems = "".join(sorted({name[0] for name in tracked}))
    sky = constellation(navigation, city.origin, slices.time, systems=systems, mask_rad=search.mask_rad)
    kept = np.flatnonzero(np.isin(sky.satellite, sorted(tracked)))
    names = tuple(sky.satellite[k] for k in kept)
    return Constellation(names, sky.direction_enu[:, kept], sky.clock_of[:, kept], sky.time)


def _observed(positioned: Positioned, sky: Constellation, slices: _Slices, city, fix_m, antenna_m: float) -> Observed:
    """Measurements ``[E, S]`` of the sky's satellites, ranges from the fix at street level."""
    data = positioned.data
    street = np.column_stack([np.nan_to_num(fix_m), np.full(len(fix_m), antenna_m)])
    place = frames.ecef_from_enu(street, city.origin)
    ranges, visible = spp.ranges_from(place, data, positioned.klobuchar, spp.Options(elevation_mask_rad=0.0))
    ranges = ranges - np.nan_to_num(positioned.fix.clock_bias_m)[:, data.clock]
    column = np.searchsorted(positioned.satellite, sky.satellite)
    up: Bool[np.ndarray, "E S"] = sky.direction_enu[slices.number, :, 2] > 0
    return Observed(ranges[:, column].astype(np.float32), data.cn0_dbhz[:, column], visible[:, column] & up)
