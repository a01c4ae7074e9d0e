"""Databases made by hand, for the tests of the GNSS room."""

import numpy as np

from jaxalign.gnss.correction import Belief
from jaxalign.gnss.database import Database
from jaxalign.gnss.grid import Grid
from jaxalign.gnss.time import GpsTime
from jaxalign.gnss.twin import Statistics


def table(outdoor, mean_m, covariance_m2, availability=None, spacing=3.0):
    """A database of one slice by hand."""
    outdoor = np.asarray(outdoor, bool)
    cells = outdoor.sum()
    ones = np.ones(cells, np.float32)
    up = np.zeros((cells, 6), np.float32)
    up[:, :3] = covariance_m2
    up[:, 5] = 1.0
    mean = np.zeros((cells, 3), np.float32)
    mean[:, :2] = mean_m
    part = Statistics(ones if availability is None else np.asarray(availability, np.float32), mean, up,
                      np.ones((cells, 3), np.float32), ones, ones, ones)  # fmt: skip
    part = Statistics(*(field[None] for field in part))
    grid = Grid(np.zeros(2), spacing, outdoor)
    time = GpsTime(np.array([2149]), np.array([0.0]))
    return Database(grid, time, part, (), np.zeros((1, 0, 3), np.float32), None, "", {})


GAUSSIAN = Belief(model_m=1.0, model_up_m=1.0, freedom=1e5, wrong=0.0, farthest=5.0)
