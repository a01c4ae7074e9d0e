"""The whole job: a city of about a million cells, its districts, its slices of time."""

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run; every field is an option of `run.py`.

    Attributes:
        side: districts along both axes.
        district_m: side of a district; one database file each.
        spacing_m: side of a cell.
        slices: of time.
        every_seconds: between slices.
        start: first slice in GPS time.
        draws: per cell.
        systems: GNSS to use, by their RINEX letters.
        seed: of city and draws.
        worker: number of this process, from 0.
        of: number of processes that share the job; they need nothing of each other but the folder.
        limit: stop after so many districts in this process; 0: none of them, only the plan.
        out: folder of the database.
    """

    side: int = 9
    district_m: float = 480.0
    spacing_m: float = 3.0
    slices: int = 24
    every_seconds: float = 120.0
    start: str = "2021-03-19T11:00:00"
    draws: int = 64
    systems: str = "GEJC"
    seed: int = 0
    worker: int = 0
    of: int = 1
    limit: int | None = None
    out: Path = Path("runs/gnss_city_scale")
