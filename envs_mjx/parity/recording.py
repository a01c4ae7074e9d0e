"""Recorded transitions on disk: reading and refusing them, and what a comparison says."""

import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

Data = dict[str, np.ndarray]

# What numpy raises on an archive cut short, overwritten or of another kind (a bare .npy is no context manager)
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
)


class CorruptRecordingError(ValueError):
    """A recording that cannot be read or is inconsistent."""


class Check(NamedTuple):
    """One compared quantity: its largest error, and the tolerance (None: reported only)."""

    name: str
    error: float
    tolerance: float | None
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the error is within tolerance; NaN never is."""
        return self.tolerance is None or self.error <= self.tolerance


class Spread(NamedTuple):
    """Errors of one-step simulation over many steps: how many, median, 99th percentile and maximum (m, rad)."""

    name: str
    steps: int
    median: float
    high: float
    maximum: float


def read(path: Path, names: Iterable[str]) -> Data:
    """The arrays of a recording.

    Raises:
        CorruptRecordingError: missing file, truncated archive or missing array.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            missing = [name for name in names if name not in archive.files]
            if missing:
                raise CorruptRecordingError(f"{path}: array {missing[0]!r} is missing; record the file again.")
            return {name: archive[name] for name in names}
    except FileNotFoundError:
        raise CorruptRecordingError(f"{path}: no such file.") from None
    except CorruptRecordingError:
        raise
    except _UNREADABLE as error:
        raise CorruptRecordingError(f"{path}: not a readable .npz archive ({error}).") from None


def check_arrays(path: Path, data: Data, shapes: Mapping[str, tuple[int, ...]], may_be_nan: Iterable[str] = ()) -> None:
    """Refuses arrays of another shape, of another kind than numbers, or with values that are not finite.

    Args:
        path: of the recording, for messages.
        data: its arrays; those whose name ends in ``_names`` hold text.
        shapes: of arrays; others have any.
        may_be_nan: arrays in which NaN means "does not apply".

    Raises:
        CorruptRecordingError: see above.
    """
    for name, array in data.items():
        expected = shapes.get(name, array.shape)
        if array.shape != expected:
            raise CorruptRecordingError(f"{path}: {name} has shape {array.shape}, its environment needs {expected}.")
        if name.endswith("_names"):
            continue
        if array.dtype.kind not in "fiub":
            raise CorruptRecordingError(f"{path}: {name} does not hold numbers.")
        if array.dtype.kind == "f" and name not in may_be_nan and not np.isfinite(array).all():
            raise CorruptRecordingError(f"{path}: {name} holds a value that is not finite.")


def versions(path: Path) -> tuple[str, ...]:
    """What made a recording, as it says itself; nothing if it does not, or cannot be read."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return tuple(map(str, archive["versions"])) if "versions" in archive.files else ()
    except _UNREADABLE:
        return ()
