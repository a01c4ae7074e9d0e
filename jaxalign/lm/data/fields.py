"""Reading typed fields of a row; what is missing or of another kind raises `BrokenRow` with the field's name."""

import math
from typing import Any

from jaxalign.lm.data.records import BrokenRow, DroppedRow, Messages, Preference, Text

Row = dict[str, Any]


def value(row: Row, name: str) -> Any:
    """The field, which must be there and not null."""
    if row.get(name) is None:
        raise BrokenRow(f"has no field '{name}'; its fields are {', '.join(map(repr, row)) or 'none'}")
    return row[name]


def string(row: Row, name: str) -> str:
    """A field that is text and not blank."""
    found = value(row, name)
    if not isinstance(found, str):
        raise BrokenRow(f"'{name}' is of type {type(found).__name__}, not text")
    if not found.strip():
        raise BrokenRow(f"'{name}' is empty")
    return found


def number(row: Row, name: str) -> float | None:
    """A finite number, None where the field is missing or null."""
    found = row.get(name)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not math.isfinite(found):
        raise BrokenRow(f"'{name}' is {found!r}, not a finite number")
    return float(found)


def index(row: Row, name: str, size: int) -> int:
    """A whole number from 0 to size - 1."""
    found = value(row, name)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < size:
        raise BrokenRow(f"'{name}' is {found!r}, not a whole number from 0 to {size - 1}")
    return found


def boolean(row: Row, name: str) -> bool:
    """True or false, nothing else."""
    found = value(row, name)
    if not isinstance(found, bool):
        raise BrokenRow(f"'{name}' is {found!r}, not true or false")
    return found


def mapping(row: Row, name: str) -> Row:
    """A field that is an object itself."""
    found = value(row, name)
    if not isinstance(found, dict):
        raise BrokenRow(f"'{name}' is of type {type(found).__name__}, not an object")
    return found


def objects(row: Row, name: str) -> list[Row]:
    """A list of objects, not empty."""
    found = value(row, name)
    if not found:
        raise BrokenRow(f"'{name}' is empty")
    if not isinstance(found, (list, tuple)) or not all(isinstance(x, dict) for x in found):
        raise BrokenRow(f"'{name}' is not a list of objects")
    return list(found)


def messages(row: Row, name: str) -> Messages:
    """A list of {role, content}."""
    return tuple({"role": string(m, "role"), "content": string(m, "content")} for m in objects(row, name))


def text(row: Row, name: str) -> Text:
    """Plain text or messages."""
    return string(row, name) if isinstance(value(row, name), str) else messages(row, name)


def present(row: Row, *names: str) -> Row:
    """Those of the fields that are there, unchanged."""
    return {name: row[name] for name in names if row.get(name) is not None}


def differing(preference: Preference) -> list[Preference]:
    """The preference as a schema's result.

    Raises:
        BrokenRow: its responses are of different kinds.
        DroppedRow: they are the same.
    """
    if isinstance(preference.chosen, str) != isinstance(preference.rejected, str):
        raise BrokenRow("'chosen' and 'rejected' are of different kinds, text and messages")
    if preference.chosen == preference.rejected:
        raise DroppedRow("identical responses")
    return [preference]
