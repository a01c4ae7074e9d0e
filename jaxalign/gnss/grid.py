"""A raster of square cells over a city, and the look-up of places in it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxalign.core.errors import UserError
from jaxalign.gnss.city import City, inside


class Grid(NamedTuple):
    """Rows run north, columns east.

    Attributes:
        low_m: the south-west corner in the city's frame.
        spacing_m: side of a cell.
        outdoor: cells whose centre lies in no building, ``[rows, columns]``.
        height_m: of the antennas above the ground.
    """

    low_m: Float[np.ndarray, "2"]
    spacing_m: float
    outdoor: Bool[np.ndarray, "rows columns"]
    height_m: float = 1.5

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.outdoor.shape  # pyright: ignore[reportReturnType]

    def centres_m(self) -> Float[np.ndarray, "rows columns 2"]:
        """East and north of the centres of all cells."""
        axes = [self.low_m[k] + self.spacing_m * (np.arange(self.shape[1 - k]) + 0.5) for k in (0, 1)]
        return np.stack(np.meshgrid(*axes), axis=-1)

    def cells_m(self) -> Float[np.ndarray, "N 3"]:
        """Antennas of the outdoor cells, row by row."""
        points = self.centres_m()[self.outdoor]
        return np.concatenate([points, np.full((len(points), 1), self.height_m)], axis=1)

    def locate(self, points_m: Float[np.ndarray, "n _"]) -> tuple[Int[np.ndarray, "n 2"], Bool[np.ndarray, " n"]]:
        """Row and column of points, (0, 0) for those that are not on the grid, and which are."""
        points_m = np.asarray(points_m, float)[:, :2]
        with np.errstate(invalid="ignore"):
            index = np.floor((points_m - self.low_m) / self.spacing_m)[:, ::-1]
            on_grid = np.all((index >= 0) & (index < self.shape), axis=1)
        return np.where(on_grid[:, None], index, 0).astype(int), on_grid

    def raster(self, values: np.ndarray) -> np.ndarray:
        """Values ``[N, ...]`` of the outdoor cells as ``[rows, columns, ...]``, 0 elsewhere."""
        full = np.zeros((*self.shape, *values.shape[1:]), values.dtype)
        full[self.outdoor] = values
        return full


def make_grid(
    city: City, spacing_m: float = 3.0, area_m: Float[np.ndarray, "2 2"] | None = None, height_m: float = 1.5
) -> Grid:
    """The grid over an area, by default the bounds of the city.

    Args:
        city: the buildings.
        spacing_m: side of a cell.
        area_m: lowest and highest east and north.
        height_m: of the antennas.

    Raises:
        UserError: a spacing that is not positive, an area smaller than a cell, or no cell outdoors.
    """
    if not (np.isfinite(spacing_m) and spacing_m > 0):
        raise UserError(f"The grid spacing is {spacing_m} m; give a positive number, 3 for example.")
    low, high = city.bounds() if area_m is None else np.asarray(area_m, float)
    columns, rows = np.ceil((high - low) / spacing_m - 1e-9).astype(int)
    if min(rows, columns) < 1:
        raise UserError(f"The area {low} to {high} m is smaller than a cell of {spacing_m} m; give a larger one.")
    grid = Grid(np.asarray(low, float), float(spacing_m), np.ones((rows, columns), bool), float(height_m))
    outdoor = ~inside(city, grid.centres_m().reshape(-1, 2)).reshape(rows, columns)
    if not outdoor.any():
        raise UserError(f"No cell of {spacing_m} m within {low} to {high} m lies outdoors; give another area.")
    return grid._replace(outdoor=outdoor)
