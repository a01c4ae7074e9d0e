"""A world that the twin does not know: a perturbed city, receivers anywhere in it, other noise."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from jaxalign.core.errors import UserError
from jaxalign.core.prng import stream
from jaxalign.core.types import PRNGKey
from jaxalign.gnss.channel import Receiver
from jaxalign.gnss.city import City, buildings_of, inside, make_city
from jaxalign.gnss.constellation import Constellation
from jaxalign.gnss.grid import Grid
from jaxalign.gnss.matching import Observed
from jaxalign.gnss.tiles import build_tiles
from jaxalign.gnss.twin import Conditions, common_errors, observe, wall_permittivity


class Perturbation(NamedTuple):
    """By how much the true city differs from the model of the twin.

    Attributes:
        height_m: standard deviation of heights.
        position_m: standard deviation of the places of whole buildings, east and north.
        wrong: share of buildings whose height is also scaled.
        scale: least and largest factor.
        conditions: of reception in the true world; its echoes are stronger or weaker, its noise is other.
        diffraction: whether the true world's satellites fade at roof edges.
    """

    height_m: float = 3.0
    position_m: float = 0.7
    wrong: float = 0.1
    scale: tuple[float, float] = (0.5, 1.6)
    conditions: Conditions = Conditions(
        Receiver(flipped_rejection_db=2.0, floor_m=0.9, noise_figure_db=4.0, loop_bandwidth_hz=0.15),
        fading_db=1.5,
        common_m=1.5,
    )
    diffraction: bool = True


NONE = Perturbation(0.0, 0.0, 0.0, (1.0, 1.0), Conditions(), False)


def perturb(city: City, seed: int, by: Perturbation = Perturbation()) -> City:
    """The true city: heights and places shifted, some buildings wrong altogether."""
    rng = np.random.default_rng(seed)
    shift = rng.normal(0, by.position_m, (city.size, 2))
    factor = np.where(rng.uniform(size=city.size) < by.wrong, rng.uniform(*by.scale, city.size), 1.0)
    top = np.maximum(3.0, (city.top_m + rng.normal(0, by.height_m, city.size)) * factor)
    moved = [
        building._replace(rings=tuple(ring + step for ring in building.rings), top_m=float(height))
        for building, step, height in zip(buildings_of(city), shift, top, strict=True)
    ]
    return make_city(moved, origin=city.origin)


def street_receivers(grid: Grid, truth: City, count: int, seed: int, margin_m: float = 15.0) -> np.ndarray:
    """Places ``[count, 3]`` anywhere outdoors, in the model and in truth, `margin_m` within the grid.

    Raises:
        UserError: the grid has too little outdoor space.
    """
    rng = np.random.default_rng(seed)
    low, high = grid.low_m + margin_m, grid.low_m + np.array(grid.shape[::-1]) * grid.spacing_m - margin_m
    if (high <= low).any():
        raise UserError(f"A grid of {grid.shape} cells has no room for receivers {margin_m:g} m from its edge.")
    points = rng.uniform(low, high, (40 * count + 1000, 2))
    (rows, columns), _ = (part.T for part in grid.locate(points))
    points = points[grid.outdoor[rows, columns] & ~inside(truth, points)][:count]
    if len(points) < count:
        raise UserError(f"Only {len(points)} of {count} receivers found a place outdoors; take a larger area.")
    return np.concatenate([points, np.full((count, 1), grid.height_m)], axis=1)


class Epoch(NamedTuple):
    """What M receivers report.

    Attributes:
        truth_m: where they are, ``[M, 2]``.
        fix_m: east and north, NaN without a fix, ``[M, 2]``.
        up_m: error of the fix upwards, NaN without a fix, ``[M]``.
        observed: for ranging, relative to the fix at street level (0 without a fix).
        hdop: ``[M]``.
    """

    truth_m: Float[np.ndarray, "M 2"]
    fix_m: Float[np.ndarray, "M 2"]
    up_m: Float[np.ndarray, " M"]
    observed: Observed
    hdop: Float[np.ndarray, " M"]

    def rows(self, chosen: np.ndarray) -> "Epoch":
        """Only some of the receivers."""
        return jax.tree.map(lambda field: np.asarray(field)[chosen], self)

    @property
    def has_fix(self) -> np.ndarray:
        """Which receivers have a fix, ``[M]``."""
        return np.isfinite(self.fix_m[:, 0])

    @property
    def spatial_m(self) -> np.ndarray:
        """Fixes with their height over the antenna's, ``[M, 3]``."""
        return np.column_stack([self.fix_m, self.up_m])

    @property
    def error_m(self) -> np.ndarray:
        """Horizontal error of the fixes ``[M]``."""
        return np.hypot(*(self.fix_m - self.truth_m).T)


class World:
    """The true city with M receivers in it."""

    def __init__(self, truth: City, receivers_m: Float[np.ndarray, "M 3"], by: Perturbation = Perturbation()):
        self.receivers_m, self.by = np.asarray(receivers_m, float), by
        self._tiles, self._walls = build_tiles(truth, receivers_m), wall_permittivity(truth)

    def epoch(self, key: PRNGKey, sky: Constellation, slice_: int, days: np.ndarray | None = None) -> Epoch:
        """What the receivers measure in one slice of time.

        Args:
            key: of all draws.
            sky: the satellites.
            slice_: which of its times.
            days: number ``[M]`` of the day of each receiver: those of one day (of one walk) share the errors that
                are not the city's; by default every receiver has a day of its own.
        """
        count = len(self.receivers_m)
        view = sky.at(slice_)
        direction = jax.numpy.asarray(view.direction_enu)
        days = np.arange(count) if days is None else days
        scale = self.by.conditions.common_m
        errors = common_errors(stream(key, "days"), direction, scale, 1, int(days.max()) + 1)[0].T[days]
        measured, drawn = observe(
            key, self._tiles, self._walls, view, self.by.conditions, errors, self.by.diffraction,
        )  # fmt: skip
        error = np.asarray(drawn.error_m, float)
        truth = self.receivers_m[:, :2]
        ranges = np.nan_to_num(error[:, :2]) @ sky.direction_enu[slice_][:, :2].T + measured.error_m
        observed = Observed(ranges, np.asarray(measured.cn0_dbhz), np.asarray(measured.tracked))
        return Epoch(truth, truth + error[:, :2], error[:, 2], observed, np.asarray(drawn.hdop))
