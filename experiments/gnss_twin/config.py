"""The whole experiment: five generated cities, their twins, and receivers in worlds that differ from them."""

import dataclasses
from pathlib import Path

from jaxalign.cli.gnss import Evaluate


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run; every field is an option of `run.py`.

    Attributes:
        evaluate: sizes; see `jaxalign gnss evaluate --help`.
    """

    evaluate: Evaluate = dataclasses.field(
        default_factory=lambda: Evaluate(
            cities=5,
            receivers=500,
            tracks=8,
            ages_minutes=(2.0, 5.0, 10.0, 15.0, 30.0, 60.0),
            learned=True,
            out=Path("runs/gnss_twin"),
        )
    )
