"""From a source and a schema to records."""

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from jaxalign.core.errors import UserError
from jaxalign.lm.data.records import Broken, BrokenRow, DroppedRow, Loaded, Record
from jaxalign.lm.data.sources import Row, rows

Schema = Callable[[Row], Iterable[Record]]


def load(
    schema: Schema[Record],
    source: str | Path,
    *,
    split: str = "train",
    config: str | None = None,
    limit: int | None = None,
) -> Loaded[Record]:
    """Reads a source by a schema.

    Args:
        schema: row to records, one of `jaxalign.lm.data.SCHEMAS` or your own; raises `BrokenRow` or `DroppedRow`.
        source: file, folder or name on the hub; see `rows`.
        split: part of the data set.
        config: its configuration, hub only.
        limit: stop after this many records.

    Returns:
        Records, broken rows by line, and counts of what was left out.

    Raises:
        UserError: nothing is left, or the source cannot be opened.
    """
    records: list[Record] = []
    broken: list[Broken] = []
    dropped: Counter[str] = Counter()
    for where, row in rows(source, split, config):
        if isinstance(row, Broken):
            broken.append(row)
            continue
        try:
            records.extend(schema(row))
        except BrokenRow as error:
            broken.append(Broken(where, str(error)))
        except DroppedRow as error:
            dropped[str(error)] += 1
        if limit is not None and len(records) >= limit:
            break
    loaded = Loaded(tuple(records[:limit]), tuple(broken), dict(dropped))
    if not loaded.records:
        raise UserError(f"{source} is of no use: {loaded.summary()}; check that it has the schema you named.")
    return loaded
