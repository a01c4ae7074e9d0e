"""Pictures of the twin: error maps, sky plots with the skyline, distributions before and after, tracks."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from jaxalign.gnss.city import City, buildings_of
from jaxalign.gnss.constellation import Constellation, calendar_text
from jaxalign.gnss.database import Database
from jaxalign.gnss.evaluation import Followed
from jaxalign.gnss.frames import azimuth_elevation
from jaxalign.gnss.horizon import bin_azimuths, skyline
from jaxalign.gnss.tiles import build_tiles, by_receiver
from jaxalign.track import replacing

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe-Ito
WORST_M = 30.0  # end of the colour scale of error maps


def error_maps(database: Database, city: City, slice_: int, path: str | Path) -> None:
    """Simulated error, availability, signals by echoes only, and HDOP of every cell."""
    part, grid = database.statistics, database.grid
    known = part.availability[slice_] > 0
    panels = (
        ("68 % of the error, m", np.where(known, part.quantile_m[slice_][:, 1], np.nan), "viridis", WORST_M),
        ("availability of a fix", part.availability[slice_], "magma", 1.0),
        ("tracked echoes (NLOS)", part.nlos[slice_], "cividis", None),
        ("HDOP", np.where(known, part.hdop[slice_], np.nan), "viridis", 6.0),
    )
    figure = Figure(figsize=(11, 9.4), layout="constrained")
    for axes, (title, values, colours, highest) in zip(figure.subplots(2, 2).flat, panels, strict=True):
        image = np.full(grid.shape, np.nan)
        image[grid.outdoor] = values
        shown = axes.imshow(image, origin="lower", extent=_extent(grid), cmap=colours, vmin=0, vmax=highest)
        _buildings(axes, city)
        _frame(axes, grid, title)
        figure.colorbar(shown, ax=axes, shrink=0.85)
    figure.suptitle(f"What the twin expects at {calendar_text(database.time.at(slice_))}")
    _save(figure, path)


def sky_plots(
    city: City, places_m: Float[np.ndarray, "n 3"], sky: Constellation, slice_: int, path: str | Path
) -> None:
    """Satellites over the skyline of up to four places."""
    places_m = places_m[:4]
    tiles = build_tiles(city, places_m, capacity=8)
    horizon = np.asarray(by_receiver(tiles, skyline(tiles), len(places_m)), float)
    around = np.asarray(bin_azimuths(horizon.shape[1]))
    azimuth, elevation = azimuth_elevation(np.asarray(sky.direction_enu[slice_], float))
    figure = Figure(figsize=(4.2 * len(places_m), 4.6), layout="constrained")
    for k, place in enumerate(places_m):
        axes = figure.add_subplot(1, len(places_m), k + 1, projection="polar")
        axes.set_theta_zero_location("N")  # pyright: ignore[reportAttributeAccessIssue]
        axes.set_theta_direction(-1)  # pyright: ignore[reportAttributeAccessIssue]
        axes.fill_between(around, 90 - np.rad2deg(horizon[k]), 90, color="0.8")
        for name, az, el in zip(sky.satellite, azimuth, elevation, strict=True):
            if el > 0:
                edge = np.interp(az, around, horizon[k], period=2 * np.pi)
                axes.plot(az, 90 - np.rad2deg(el), "o", ms=7, color=COLOURS[0] if el > edge else COLOURS[1])
                axes.annotate(name, (az, 90 - np.rad2deg(el)), fontsize=7, xytext=(4, 3), textcoords="offset points")
        axes.set(ylim=(0, 90), yticks=[30, 60], yticklabels=["60°", "30°"])
        axes.set_title(f"east {place[0]:.0f} m, north {place[1]:.0f} m", fontsize=10)
    figure.suptitle("Sky over the skyline: blue in sight, orange hidden")
    _save(figure, path)


def distributions(errors: Mapping[str, Float[np.ndarray, " R"]], path: str | Path, title: str) -> None:
    """Cumulative distributions of horizontal errors by method."""
    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.subplots()
    for k, (name, values) in enumerate(errors.items()):
        share = (np.arange(len(values)) + 1) / len(values)
        axes.plot(np.sort(values), share, color=COLOURS[k % len(COLOURS)], lw=1.7, label=name)
    for share in (0.5, 0.68, 0.95):
        axes.axhline(share, color="0.85", lw=0.8, zorder=0)
    axes.set(xlim=(0, 60), ylim=(0, 1), xlabel="horizontal error, m", ylabel="share of fixes", title=title)
    axes.legend(fontsize=9, frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def tracks(followed: list[Followed], city: City, database: Database, path: str | Path) -> None:
    """Up to four walks: truth, fixes, and the filter over the database."""
    shown = followed[:4]
    figure = Figure(figsize=(11, 5.6 * -(-len(shown) // 2)), layout="constrained")
    panels = figure.subplots(-(-len(shown) // 2), 2, squeeze=False).flat
    for axes, track in zip(panels, shown):
        _buildings(axes, city)
        fix = track.places["none"]
        axes.plot(*fix.T, ".", color=COLOURS[1], ms=4, label="fixes")
        axes.plot(*track.places["twin HMM"].T, color=COLOURS[0], lw=1.8, label="twin HMM")
        axes.plot(*track.epoch.truth_m.T, color="k", lw=1.2, ls="--", label="truth")
        low, high = track.epoch.truth_m.min(0) - 40, track.epoch.truth_m.max(0) + 40
        _frame(axes, database.grid, "")
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        axes.legend(fontsize=8, loc="upper right")
    figure.suptitle("Held-out walks")
    _save(figure, path)


def ageing(curve: Mapping[float, Float[np.ndarray, " R"]], controls: Mapping[str, float], path: str | Path) -> None:
    """Median error over the age of the database (s), with medians of controls as lines."""
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.subplots()
    minutes = np.array(list(curve)) / 60
    axes.plot(minutes, [np.median(values) for values in curve.values()], "o-", color=COLOURS[0], label="twin+height")
    for k, (name, value) in enumerate(controls.items()):
        axes.axhline(value, color=COLOURS[k + 1], ls="--", lw=1.2, label=name)
    axes.set(xlabel="age of the database, minutes", ylabel="median horizontal error, m", ylim=(0, None))
    axes.legend(fontsize=9, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _buildings(axes: Axes, city: City) -> None:
    outlines = [ring for building in buildings_of(city) for ring in building.rings[:1]]
    axes.add_collection(PolyCollection(outlines, facecolor="none", edgecolor="0.45", linewidth=0.5))


def _extent(grid):
    rows, columns = grid.shape
    east, north = grid.low_m
    return east, east + columns * grid.spacing_m, north, north + rows * grid.spacing_m


def _frame(axes: Axes, grid, title: str) -> None:
    left, right, bottom, top = _extent(grid)
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", title=title, xlabel="east, m", ylabel="north, m")


def _save(figure: Figure, path: str | Path) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
