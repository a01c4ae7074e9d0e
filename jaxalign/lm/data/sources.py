"""Rows of local files (JSON, JSON lines, plain or gzipped, Parquet) or of a data set on the Hugging Face hub."""

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxalign.core.errors import UserError
from jaxalign.lm.data.records import Broken

Row = dict[str, Any]
SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")


def rows(source: str | Path, split: str = "train", config: str | None = None) -> Iterator[tuple[str, Row | Broken]]:
    """All rows of a source, each with its place.

    Args:
        source: a file, a folder (its files in alphabetical order; those of `split` if any file, or folder in it, is
            named after a split), or the name of a data set on the hub, `owner/name`.
        split: part of the data set.
        config: its configuration, hub only.

    Yields:
        `file:line` (lines and rows count from 1) and the row, or what is wrong with that line.

    Raises:
        UserError: there is no such file, or of no known kind, or none of that split, or `datasets` is missing.
    """
    path = Path(source)
    if path.is_dir():
        for file in _files(path, split):
            yield from _of_file(file)
    elif path.is_file():
        yield from _of_file(path)
    elif _suffix(path) or isinstance(source, Path) or str(source).count("/") != 1:
        raise UserError(f"There is no file or folder {source}; check the path, or give a hub name such as owner/name.")
    else:
        yield from _of_hub(str(source), split, config)


def _suffix(path: Path) -> str | None:
    return next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), None)


def _files(folder: Path, split: str) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.is_file() and _suffix(path))
    if not found:
        raise UserError(f"The folder {folder} holds no data file; known kinds are {', '.join(SUFFIXES)}.")
    parts = {path: _split_of(path.relative_to(folder)) for path in found}
    named = [path for path in found if parts[path] == split]
    if named or not any(parts.values()):
        return named or found
    there = ", ".join(sorted({*parts.values()} - {""}))
    raise UserError(f"The folder {folder} has no split {split!r}; there are {there}.")


def _split_of(path: Path) -> str:
    """Split that a file's name or folder says, such as train-00000-of-00002.parquet or test/data.jsonl; else ""."""
    names = [path.name, *reversed(path.parts[:-1])]
    known = re.compile(r"((?:train|test|validation|valid|val|dev|eval)(?:_[A-Za-z0-9_]*)?)(?:[-.]|$)")
    return next((found[1] for name in names if (found := known.match(name))), "")


def _of_file(path: Path) -> Iterator[tuple[str, Row | Broken]]:
    suffix = _suffix(path)
    if suffix is None:
        raise UserError(f"{path} is of an unknown kind; known are {', '.join(SUFFIXES)}.")
    reader = {"jsonl": _lines, "json": _array, "parquet": _parquet}[suffix.split(".")[1]]
    yield from reader(path)


def _open(path: Path):
    return gzip.open(path, "rt", encoding="utf-8") if path.name.endswith(".gz") else path.open(encoding="utf-8")


def _lines(path: Path) -> Iterator[tuple[str, Row | Broken]]:
    number = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _parsed(f"{path}:{number}", line)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        where = f"{path}:{number + 1}"
        yield where, Broken(where, f"the file cannot be read from here on ({error})")


def _parsed(where: str, line: str) -> tuple[str, Row | Broken]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return where, Broken(where, f"no JSON ({error.msg} at column {error.colno})")
    return where, row if isinstance(row, dict) else Broken(where, "no JSON object")


def _array(path: Path) -> Iterator[tuple[str, Row | Broken]]:
    try:
        with _open(path) as file:
            found = json.load(file)
    except (json.JSONDecodeError, OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read as JSON ({error}); if it has one object per line, name it .jsonl."
        ) from None
    if not isinstance(found, list):
        raise UserError(f"{path} holds a JSON {type(found).__name__}; a list of objects is needed.")
    for number, row in enumerate(found, 1):
        where = f"{path}:{number}"
        yield where, row if isinstance(row, dict) else Broken(where, "no JSON object")


def _parquet(path: Path) -> Iterator[tuple[str, Row | Broken]]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError:
        raise UserError(f'{path} needs pyarrow to be read; `pip install "jaxalign[lm]"` brings it.') from None
    try:
        file = parquet.ParquetFile(path)
    except (ArrowInvalid, OSError) as error:
        raise UserError(f"{path} cannot be read as Parquet ({error}); download it again.") from None
    number = 0
    for batch in file.iter_batches():
        for row in batch.to_pylist():
            number += 1
            yield f"{path}:{number}", row


def _of_hub(name: str, split: str, config: str | None) -> Iterator[tuple[str, Row | Broken]]:
    try:
        import datasets
    except ImportError:
        raise UserError(
            f'{name} is no local file, and the hub needs datasets; `pip install "jaxalign[lm]"` brings it.'
        ) from None
    try:
        found = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # many kinds: network, names, scripts
        raise UserError(f"{name} (configuration {config}, split {split}) cannot be loaded: {error}") from error
    for number, row in enumerate(found, 1):
        yield f"{name}/{split}:{number}", dict(row)
