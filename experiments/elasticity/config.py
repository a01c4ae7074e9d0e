"""The whole experiment as one frozen value."""

import dataclasses
from pathlib import Path
from typing import Literal

from jaxalign.core.errors import UserError
from jaxalign.elasticity import dialects
from jaxalign.elasticity.lifecycle import PERTURBATIONS, Settings

Part = Literal["rebound", "resistance", "mitigation"]


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run; a cell is a width, a volume and a part, all seeds at once.

    Attributes:
        parts: "rebound" perturbs bases and aligned models, "resistance" compares slices of the alignment run,
            "mitigation" tries to keep alignment.
        seeds: of initial values and all data.
        width: of the model that everything is measured of.
        volumes: pre-training steps; 0: none.
        further_widths: of models of which the rebound is measured too, after the pre-training of `further_volume`.
        further_volume: see there.
        aligned: alignment sequences.
        slice: alignment sequences between the slices of resistance.
        perturbation: sequences.
        perturbations: by which; names in `lifecycle.PERTURBATIONS`.
        every: sequences between measurements.
        temperatures: that answers are sampled at for resistance.
        tasks: dialects that are learned in "mitigation".
        probe: fixed texts of each dialect to measure on.
        written: texts that a model writes to be scored.
        out: where cells, tables and figures go.
    """

    parts: tuple[Part, ...] = ("rebound", "resistance", "mitigation")
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    width: int = 64
    volumes: tuple[int, ...] = (0, 300, 1500, 6000)
    further_widths: tuple[int, ...] = (32, 128)
    further_volume: int = 1500
    aligned: tuple[int, ...] = (256, 1024, 4096)
    slice: int = 512
    perturbation: int = 512
    perturbations: tuple[str, ...] = tuple(PERTURBATIONS)
    every: int = 32
    temperatures: tuple[float, ...] = (0.05, 0.5, 1.0)
    tasks: tuple[str, ...] = ("novel", "unsafe")
    probe: int = 96
    written: int = 128
    out: Path = Path("runs/elasticity")

    def __post_init__(self):
        for name, known in (("perturbations", PERTURBATIONS), ("tasks", dialects.NAMES[1:])):
            unknown = [value for value in getattr(self, name) if value not in known]
            if unknown:
                raise UserError(f"{name} has {unknown[0]!r}; choose from {', '.join(known)}.")
        if min(self.temperatures) <= 0:
            raise UserError(f"temperatures has {min(self.temperatures)}; choose positive ones.")

    def settings(self, width: int) -> Settings:
        """Of the lives of models of one width."""
        same = {f.name: getattr(self, f.name) for f in dataclasses.fields(Settings) if hasattr(self, f.name)}
        volumes = self.volumes if width == self.width else (self.further_volume,)
        return Settings(**same | {"width": width, "volumes": volumes})
