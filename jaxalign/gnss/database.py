"""The correction database: statistics per cell and time slice, in a file that says what it is and whether it is whole.

A file carries the name and version of its schema, the digest of the city it was made of, and a SHA-256 over names,
types, shapes and bytes of all arrays; whatever does not fit is refused with the reason. Numbers are stored as float16
(centimetres at 30 m) and bytes: 29 bytes per outdoor cell and slice. Kinds of file: ``.npz``, and ``.parquet`` (one
row per cell and slice) for other programs.
"""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxalign.core.errors import UserError
from jaxalign.gnss.city import City
from jaxalign.gnss.constellation import Constellation
from jaxalign.gnss.frames import Geodetic
from jaxalign.gnss.grid import Grid
from jaxalign.gnss.time import GpsTime
from jaxalign.gnss.twin import Statistics
from jaxalign.track import replacing

SCHEMA, VERSION = "jaxalign.gnss.database", 1
_LARGEST_HALF = 6.0e4
_AVAILABILITY_STEPS = 255


class Database(NamedTuple):
    """What the twin knows of a city at E times; N outdoor cells, row by row of the grid.

    Attributes:
        grid: the cells.
        time: of the slices ``[E]``, in order.
        statistics: ``[E, N, ...]``.
        satellite: names.
        direction_enu: of the satellites at the times.
        origin: of the local frame, None if the city stands nowhere on Earth.
        city: digest of the city.
        settings: of the twin, for a person.
    """

    grid: Grid
    time: GpsTime
    statistics: Statistics
    satellite: tuple[str, ...]
    direction_enu: Float[np.ndarray, "E S 3"]
    origin: Geodetic | None
    city: str
    settings: dict[str, Any]

    def at(self, slices) -> "Database":
        """Only the slices of an index array."""
        slices = np.atleast_1d(slices)
        part = Statistics(*(field[slices] for field in self.statistics))
        return self._replace(time=self.time.at(slices), statistics=part, direction_enu=self.direction_enu[slices])

    def nearest_slice(self, time: GpsTime) -> tuple[np.ndarray, np.ndarray]:
        """Index of the slice nearest to times ``[M]`` and how far it is from them, s."""
        gap = GpsTime(*(np.atleast_1d(part)[:, None] for part in time)).minus(self.time)
        nearest = np.abs(gap).argmin(axis=1)
        return nearest, np.abs(gap)[np.arange(len(nearest)), nearest]


def make_database(
    grid: Grid, sky: Constellation, statistics: Statistics, city: City, settings: dict[str, Any]
) -> Database:
    """A database of statistics ``[E, N, ...]`` of the grid's outdoor cells at the times of `sky`."""
    names = sky.satellite, sky.direction_enu
    return Database(grid, sky.time, statistics, *names, city.origin, city_digest(city), settings)


def city_digest(city: City) -> str:
    """SHA-256 of footprints (to the millimetre) and heights."""
    digest = hashlib.sha256()
    for part in (np.round(city.start * 1e3), city.ring, city.ring_building, np.round(city.top_m * 1e3)):
        digest.update(np.ascontiguousarray(part, dtype="<i8").tobytes())
    return digest.hexdigest()


def save(database: Database, path: str | Path) -> Path:
    """Writes the database; the file appears whole or not at all.

    Raises:
        UserError: the name does not end in .npz or .parquet.
    """
    path = Path(path)
    writer = {".npz": _write_npz, ".parquet": _write_parquet}.get(path.suffix)
    if writer is None:
        raise UserError(f"{path} has no known ending for a database; choose .npz or .parquet.")
    arrays = _encode(database)
    header = {"schema": SCHEMA, "version": VERSION, "checksum": checksum(arrays), **_described(database)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        writer(temporary, arrays, header)
    return path


def load(path: str | Path, city: City | None = None) -> Database:
    """Reads a database.

    Args:
        path: .npz or .parquet.
        city: refuse a database that was made of another city.

    Raises:
        UserError: no such file, damaged, of another schema or version, or of another city.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist; build a database with `jaxalign gnss twin`.")
    try:
        header, arrays = _read_parquet(path) if path.suffix == ".parquet" else _read_npz(path)
    except UserError:
        raise
    except Exception as error:  # zip, JSON, NumPy and Arrow raise many kinds
        raise UserError(
            f"{path} is damaged or no database ({type(error).__name__}: {error}); build it again."
        ) from None
    if header.get("schema") != SCHEMA:
        raise UserError(f"{path} holds {header.get('schema', 'something else')!r}, not {SCHEMA!r}; give a database.")
    if header.get("version") != VERSION:
        raise UserError(f"{path} is of version {header.get('version')}, this program reads {VERSION}; build it again.")
    if header.get("checksum") != checksum(arrays):
        raise UserError(f"{path} is damaged: its checksum does not fit its content; fetch or build it again.")
    if city is not None and header["city"] != city_digest(city):
        raise UserError(f"{path} was made of another city than the one given; build it again or give its city.")
    return _decode(header, arrays)


def checksum(arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 over name, type, shape and bytes of all arrays."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def bytes_per_record(database: Database) -> int:
    """Bytes per cell and slice."""
    arrays = _encode(database)
    return sum(arrays[name][0, 0].nbytes for name in Statistics._fields)


def _described(database):
    origin = None if database.origin is None else [float(part) for part in database.origin]
    return {"origin": origin, "city": database.city, "settings": database.settings, "height_m": database.grid.height_m}


def _encode(database):
    """Arrays of the file."""
    arrays = {name: _half(value) for name, value in database.statistics._asdict().items()}
    arrays["availability"] = np.round(database.statistics.availability * _AVAILABILITY_STEPS).astype(np.uint8)
    for name in ("tracked", "nlos"):
        arrays[name] = np.round(np.clip(getattr(database.statistics, name) * 4, 0, 255)).astype(np.uint8)
    return arrays | {
        "low_m": np.asarray(database.grid.low_m, float),
        "spacing_m": np.asarray(database.grid.spacing_m, float),
        "outdoor": database.grid.outdoor,
        "week": np.asarray(database.time.week, np.int64),
        "second_of_week": np.asarray(database.time.second_of_week, float),
        "satellite": np.asarray(database.satellite, "U3"),
        "direction_enu": np.asarray(database.direction_enu, np.float32),
    }


def _half(value):
    return np.clip(value, -_LARGEST_HALF, _LARGEST_HALF).astype(np.float16)


def _decode(header, arrays) -> Database:
    fields = {name: arrays[name].astype(np.float32) for name in Statistics._fields}
    fields["availability"] /= _AVAILABILITY_STEPS
    for name in ("tracked", "nlos"):
        fields[name] /= 4
    grid = Grid(arrays["low_m"], float(arrays["spacing_m"]), arrays["outdoor"], header["height_m"])
    origin = None if header["origin"] is None else Geodetic(*header["origin"])
    names = tuple(str(name) for name in arrays["satellite"])
    time = GpsTime(arrays["week"], arrays["second_of_week"])
    described = origin, header["city"], header["settings"]
    return Database(grid, time, Statistics(**fields), names, arrays["direction_enu"], *described)


def _write_npz(path, arrays, header):
    with path.open("wb") as file:
        np.savez(file, header=np.array(json.dumps(header)), allow_pickle=False, **arrays)


def _read_npz(path):
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is damaged or no database (not an .npz file); build it again.")
    with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
        arrays = {name: found[name] for name in found.files}
    return json.loads(str(arrays.pop("header"))), arrays


def _write_parquet(path, arrays, header):
    """Statistics as columns; what is no column travels in the header."""
    arrow, parquet = _arrow()
    slices, cells = arrays["availability"].shape
    columns = {
        "slice": np.repeat(np.arange(slices, dtype=np.int32), cells),
        "cell": np.tile(np.arange(cells, dtype=np.int32), slices),
    }
    for name in Statistics._fields:
        flat = arrays[name].reshape(slices * cells, -1)
        columns |= {f"{name}_{k}" if flat.shape[1] > 1 else name: flat[:, k] for k in range(flat.shape[1])}
    rest = {name: value for name, value in arrays.items() if name not in Statistics._fields}
    header = header | {"arrays": {name: [value.dtype.str, value.tolist()] for name, value in rest.items()}}
    header |= {"slices": slices, "cells": cells}
    table = arrow.table({name: arrow.array(value) for name, value in columns.items()})
    parquet.write_table(table.replace_schema_metadata({SCHEMA: json.dumps(header)}), path)


def _read_parquet(path):
    _, parquet = _arrow()
    table = parquet.read_table(path)
    metadata = table.schema.metadata or {}
    if SCHEMA.encode() not in metadata:
        return {}, {}
    header = json.loads(metadata[SCHEMA.encode()])
    arrays = {name: np.array(value, dtype) for name, (dtype, value) in header["arrays"].items()}
    for name in Statistics._fields:
        found = [key for key in table.column_names if key == name or key.rstrip("0123456789") == f"{name}_"]
        shape = (header["slices"], header["cells"], *((len(found),) if found != [name] else ()))
        arrays[name] = np.stack([table[key].to_numpy() for key in found], axis=-1).reshape(shape)
    return header, arrays


def _arrow():
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError('A Parquet database needs pyarrow: pip install "jaxalign[gnss]", or use .npz.') from None
    return pyarrow, pyarrow.parquet
