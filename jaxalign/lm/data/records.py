"""The forms in which text comes in: a preference, a demonstration, and what a file gave of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

Messages = tuple[dict[str, str], ...]  # {"role": "user" | "assistant" | "system", "content": ...}
Text = str | Messages


@dataclass(frozen=True)
class Preference:
    """Two responses to one prompt, the better one first.

    Attributes:
        prompt: plain text that ends where the response begins, or the messages before it.
        chosen: the preferred response; of the same kind as the prompt.
        rejected: the other one.
        margin: by how much the first is better, in the data's own scale; None where the data do not say.
        subset: the part of a benchmark it belongs to.
        extras: whatever else the data say, under names of this package (safety flags, sources, confidence).
    """

    prompt: Text
    chosen: Text
    rejected: Text
    margin: float | None = None
    subset: str | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Demonstration:
    """A response worth imitating.

    Attributes:
        prompt: plain text that ends where the response begins, or the messages before it.
        response: what should follow; of the same kind as the prompt.
        extras: whatever else the data say.
    """

    prompt: Text
    response: Text
    extras: Mapping[str, Any] = field(default_factory=dict)


Record = TypeVar("Record", Preference, Demonstration)


class Broken(NamedTuple):
    """A row that cannot be read: where it stands (`file:line`) and what is wrong with it."""

    where: str
    reason: str


class BrokenRow(Exception):  # noqa: N818 (a finding about data, not a failure of the program)
    """Raised by a schema: the row does not say what it should."""


class DroppedRow(Exception):  # noqa: N818
    """Raised by a schema: the row is sound but not wanted (no preference in it, another label)."""


@dataclass(frozen=True)
class Loaded(Generic[Record]):
    """What a source gave.

    Attributes:
        records: in the order of the source.
        broken: the rows that could not be read.
        dropped: how many sound rows were left out, by reason.
    """

    records: tuple[Record, ...]
    broken: tuple[Broken, ...]
    dropped: Mapping[str, int]

    def summary(self, named: int = 3) -> str:
        """One line: how many records, how many broken rows with the first `named` of them, how many dropped."""
        parts = [f"{len(self.records)} records"]
        if self.broken:
            first = "; ".join(f"{where}: {reason}" for where, reason in self.broken[:named])
            parts.append(f"{len(self.broken)} broken rows ({first}{'; ...' if len(self.broken) > named else ''})")
        parts += [f"{count} dropped ({reason})" for reason, count in self.dropped.items()]
        return ", ".join(parts)
