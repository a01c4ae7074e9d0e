"""Text files of fixed columns as matrices of bytes, so that whole columns become numbers at once."""

import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxalign.core.errors import UserError


class ReadReport(NamedTuple):
    """What a reader left out: reason -> line numbers (from 1) of the records that were skipped."""

    skipped: dict[str, list[int]]

    def note(self, reason: str, line_numbers) -> None:
        """Adds records to those skipped for `reason`."""
        lines = [int(line) for line in np.atleast_1d(line_numbers)]
        if lines:
            self.skipped.setdefault(reason, []).extend(lines)

    @property
    def total(self) -> int:
        """Records skipped in all."""
        return sum(map(len, self.skipped.values()))

    def __str__(self) -> str:
        """One line for each reason with the first line numbers."""
        if not self.skipped:
            return "no record skipped"
        return "\n".join(
            f"skipped {len(lines)} x {reason} (line {', '.join(map(str, lines[:5]))}{', ...' if lines[5:] else ''})"
            for reason, lines in self.skipped.items()
        )


def read_lines(path: str | Path) -> list[bytes]:
    """Lines of a text file, also of a gzipped one, without their ends."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no file {path}; give the path of an existing file.")
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError) as error:
            raise UserError(f"{path} is a damaged gzip file ({error}); fetch it again.") from error
    return content.splitlines()


def line_matrix(lines: list[bytes], width: int) -> np.ndarray:
    """Lines as a matrix ``[L, width]`` of bytes: cut or padded with blanks."""
    matrix = np.array(lines, dtype=f"S{width}").view(np.uint8).reshape(len(lines), width)
    return np.where(matrix < ord(" "), np.uint8(ord(" ")), matrix)


def text(matrix: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Columns ``[start, stop)`` as stripped byte strings ``[L]``."""
    block = np.ascontiguousarray(matrix[:, start:stop])
    return np.char.strip(block.view(f"S{stop - start}").reshape(len(matrix)))


def numbers(matrix: np.ndarray, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns ``[start, stop)`` as float64 ``[L]`` with a mask of the unreadable; blank is NaN and readable.

    Fortran's exponent D counts as E.
    """
    block = matrix[:, start:stop]
    block = np.where((block == ord("D")) | (block == ord("d")), np.uint8(ord("E")), block)
    fields = text(block, 0, stop - start)
    blank = fields == b""
    fields = np.where(blank, b"nan", fields)
    try:
        values = fields.astype(np.float64)
    except ValueError:
        values = np.array([_number(field) for field in fields])
    return values, ~blank & ~np.isfinite(values)


def all_finite(matrix: np.ndarray) -> np.ndarray:
    """Rows ``[L]`` of ``[L, V]`` without a NaN or infinity."""
    return np.asarray(np.isfinite(matrix).all(axis=1))


def _number(field: bytes) -> float:
    try:
        return float(field)
    except ValueError:
        return np.nan


def header(lines: list[bytes], path: str | Path) -> list[tuple[str, str]]:
    """Header of a RINEX file as (label, content), up to END OF HEADER.

    Raises:
        UserError: for a file that is not RINEX or has no end of header.
    """
    pairs = []
    for line in lines:
        record = line.decode("ascii", "replace")
        pairs.append((record[60:80].strip(), record[:60].ljust(60)))
        if pairs[-1][0] == "END OF HEADER":
            break
        if pairs[0][0] != "RINEX VERSION / TYPE":
            break
    else:
        raise UserError(f"{path} has no END OF HEADER; it is cut off or not a RINEX file.")
    if pairs[0][0] != "RINEX VERSION / TYPE":
        raise UserError(f"{path} does not begin with RINEX VERSION / TYPE; give a RINEX 2.11, 3 or 4 file.")
    return pairs


def version_and_type(pairs: list[tuple[str, str]], path: str | Path, kind: str) -> float:
    """Version of a RINEX file whose type letter must be one of `kind`."""
    content = pairs[0][1]
    try:
        version = float(content[:9])
    except ValueError:
        version = 0.0
    if not 2.0 <= version < 5.0:
        raise UserError(f"{path} says RINEX version {content[:9].strip()!r}; versions 2, 3 and 4 can be read.")
    if content[20] not in kind:
        raise UserError(f"{path} is of RINEX type {content[20]!r}, where one of {', '.join(kind)} is needed.")
    return version
