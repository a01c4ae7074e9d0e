"""Where the recordings are: those that may be committed beside the tests, the others outside the repository."""

from pathlib import Path

import numpy as np
import pytest

COMMITTED = Path(__file__).parents[1] / "golden" / "gnss"
SHARED = Path(__file__).parents[3] / "shared" / "golden" / "gnss"


def committed(name: str) -> Path:
    return COMMITTED / name


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"the recording {name} is not on this machine")
    return path


def table(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)
