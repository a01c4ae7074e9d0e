"""What a study leaves behind, small enough to keep: errors by method, in one file per city."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxalign.gnss.evaluation import Errors, TrackErrors
from jaxalign.track import replacing


class Outcome(NamedTuple):
    """Errors of single fixes, along walks, and age of the database (s) -> errors ``[R]``."""

    errors: Errors
    walks: TrackErrors
    ageing: dict[float, Float[np.ndarray, " R"]]


def pool(parts: list[Outcome]) -> Outcome:
    """Several cities as one, their receivers and walks kept apart."""
    errors, walks = [part.errors for part in parts], [part.walks for part in parts]
    single = Errors(
        _joined([one.method for one in errors]),
        _apart([one.receiver for one in errors]),
        float(np.mean([one.available for one in errors])),
        _joined([one.covered for one in errors]),
    )
    along = TrackErrors(_joined([one.method for one in walks]), _apart([one.track for one in walks]))
    return Outcome(single, along, _joined([part.ageing for part in parts]))


def save(outcome: Outcome, path: Path) -> None:
    """Writes the file whole or not at all."""
    errors, walks, ageing = outcome
    arrays = {"receiver": errors.receiver, "available": np.array(errors.available), "track": walks.track}
    for group, values in (("single", errors.method), ("square", errors.covered), ("walk", walks.method),
                          ("age", ageing)):  # fmt: skip
        arrays |= {f"{group}/{name}": value for name, value in values.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        np.savez(temporary, allow_pickle=False, **arrays)


def load(path: Path) -> Outcome:
    """Reads what :func:`save` wrote."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}

    def group(prefix):
        return {name.split("/", 1)[1]: value for name, value in arrays.items() if name.startswith(f"{prefix}/")}

    errors = Errors(group("single"), arrays["receiver"], float(arrays["available"]), group("square"))
    return Outcome(
        errors,
        TrackErrors(group("walk"), arrays["track"]),
        {float(age): value for age, value in group("age").items()},
    )


def _joined(parts):
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _apart(numbers):
    offset = np.cumsum([0, *(number.max() + 1 for number in numbers[:-1])])
    return np.concatenate([number + shift for number, shift in zip(numbers, offset, strict=True)])
