"""Walks through the open air of a city, for held-out tracks."""

import numpy as np
from jaxtyping import Float

from jaxalign.core.errors import UserError
from jaxalign.gnss.city import City, inside
from jaxalign.gnss.grid import Grid

_ATTEMPTS = 60


def walk(
    grid: Grid, truth: City, seed: int, *, epochs: int = 120, step_m: float = 1.5, margin_m: float = 15.0
) -> Float[np.ndarray, "epochs 3"]:
    """A walk of straight pieces: it goes on until a wall or the edge is near, then turns; never indoors.

    Args:
        grid: it stays `margin_m` within its edge and on its outdoor cells.
        truth: it stays out of these buildings too.
        seed: of start and turns.
        epochs: places, one step apart.
        step_m: per epoch.
        margin_m: to the edge of the grid.

    Raises:
        UserError: no such walk was found.
    """
    rng = np.random.default_rng(seed)
    for _ in range(_ATTEMPTS):
        path = _attempt(rng, grid, truth, (epochs, step_m, margin_m))
        if path is not None:
            return np.column_stack([path, np.full(epochs, grid.height_m)])
    raise UserError(f"No walk of {epochs} steps of {step_m} m was found on this grid; take a larger area.")


def _attempt(rng, grid, truth, sizes):
    epochs, step_m, margin_m = sizes
    low = grid.low_m + margin_m
    high = grid.low_m + np.array(grid.shape[::-1]) * grid.spacing_m - margin_m
    place, heading, path = rng.uniform(low, high), rng.uniform(0, 2 * np.pi), []
    while len(path) < epochs:
        for turn in np.concatenate([[0.0], rng.permutation(np.deg2rad([-20, 20, -45, 45, -90, 90]))]):
            ahead = _points(place, heading + turn, 8.0)
            if _free(ahead, grid, truth, low, high):
                break
        else:
            return None
        heading += turn
        place = place + step_m * np.array([np.cos(heading), np.sin(heading)])
        path.append(place)
    path = np.array(path)
    return path if np.ptp(path, axis=0).max() > 0.3 * epochs * step_m else None


def _points(place, heading, length_m):
    return place + np.linspace(0, length_m, 5)[:, None] * np.array([np.cos(heading), np.sin(heading)])


def _free(points, grid, truth, low, high):
    (rows, columns), on_grid = (part.T for part in grid.locate(points))
    within = on_grid & (points >= low).all(axis=1) & (points <= high).all(axis=1)
    return bool(within.all() and grid.outdoor[rows, columns].all() and not inside(truth, points).any())
