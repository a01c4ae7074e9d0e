"""Which recordings are positioned, and how."""

import dataclasses
from pathlib import Path
from typing import NamedTuple


class Recording(NamedTuple):
    """A file of observations, its navigation files, systems to use, and the array of true positions by epoch."""

    observations: str
    navigation: tuple[str, ...]
    systems: str
    truth: str


RECORDINGS = {
    "open sky": Recording("SEPT078M1.21O.gz", ("SEPT078M.21P.gz",), "GEJ", "spp_sept078_GEJ.npz"),
    "street canyon, moving": Recording(
        "TST1_COM3_190428_124409.obs.gz", ("TST1_hksc1180.19n.gz", "TST1_hksc1180.19b.gz"), "GC", "spp_tst1_GC.npz"
    ),
    "street canyon, standing": Recording(
        "TST2_2020_06_03_TST_03.obs.gz",
        tuple(f"TST2_hksc155{session}.20{kind}.gz" for session in "cd" for kind in "nbl"),
        "GEC",
        "spp_tst2_GREC.npz",
    ),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run; every field is an option of `run.py`.

    Attributes:
        folder: with the recordings (`inputs/` and the arrays of truth).
        exclusions: satellites that may be excluded in an epoch, in the rows that say so.
        block_epochs: consecutive epochs are alike; the bootstrap resamples blocks of so many.
        out: folder for table.txt and errors.png.
    """

    folder: Path = Path("../shared/golden/gnss")
    exclusions: int = 2
    block_epochs: int = 30
    out: Path = Path("runs/gnss_recordings")
