"""Where the metrics of a training run go: a JSON-lines file, TensorBoard, or several at once."""

import contextlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, SupportsFloat, runtime_checkable

from tensorboardX import SummaryWriter


@runtime_checkable
class Tracker(Protocol):
    """Receives the metrics of a training run."""

    def log(self, step: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Record `metrics` measured after `step` env-steps."""
        ...

    def close(self) -> None:
        """Flush and release everything; nothing is logged afterwards."""
        ...


class Jsonl:
    """Appends one JSON object per line, `{"env_steps": step, **metrics}`, and flushes each of them.

    A metric that is NaN or infinite is written as null, so every line is strict JSON.
    """

    def __init__(self, path: str | Path, resume_step: int | None = None):
        """Start a file, or continue the one that is there.

        Args:
            path: the file; missing parent directories are made.
            resume_step: None starts a fresh file. With a number of env-steps, the lines of the file that are there stay
                up to it; later ones and a last line cut short by a kill are dropped, atomically.

        Raises:
            ValueError: when resuming, a line of the file other than a cut-short last one is corrupt.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if resume_step is not None and path.exists():
            kept = [row for row in read_jsonl(path) if row["env_steps"] <= resume_step]
            with replacing(path) as temporary:
                temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        self._file = path.open("w" if resume_step is None else "a", encoding="utf-8")

    def log(self, step: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Append one line for `step` env-steps."""
        row = {"env_steps": int(step)} | {name: _finite(value) for name, value in metrics.items()}
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoard:
    """Writes each metric as a TensorBoard scalar over env-steps; what is NaN or infinite is left out."""

    def __init__(self, directory: str | Path, resume_step: int | None = None):
        """Open a new event file.

        Args:
            directory: the log directory; made if missing.
            resume_step: None for a fresh run. A number hides what an interrupted run logged for later env-steps.
        """
        purge_step = None if resume_step is None else resume_step + 1  # TensorBoard hides steps >= purge_step
        self._writer = SummaryWriter(str(directory), purge_step=purge_step, flush_secs=10)

    def log(self, step: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Write one scalar per finite metric at `step` env-steps."""
        for name, value in metrics.items():
            if math.isfinite(value):
                self._writer.add_scalar(name, float(value), int(step))

    def close(self) -> None:
        """Flush the events and close the writer."""
        self._writer.close()


class Composite:
    """Passes everything on to several trackers."""

    def __init__(self, trackers: Iterable[Tracker]):
        """Take the trackers to log to, in this order."""
        self._trackers = tuple(trackers)

    def log(self, step: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Log to every tracker."""
        for tracker in self._trackers:
            tracker.log(step, metrics)

    def close(self) -> None:
        """Close every tracker, also when closing one of them fails."""
        with contextlib.ExitStack() as stack:
            for tracker in self._trackers:
                stack.callback(tracker.close)


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """Read the rows that `Jsonl` wrote, without a last line that a kill cut short.

    Returns:
        One dictionary per line with the integer "env_steps" and the metrics, None for one that was NaN or infinite.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is no JSON object with an integer "env_steps"; the message says which.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no metrics file at {path}: check the path, or start the run that writes it")
    *lines, tail = path.read_bytes().split(b"\n")
    rows = [_parse(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]
    with contextlib.suppress(ValueError):  # a line without its line break may be half written
        rows.append(_parse(tail, f"{path}, last line"))
    return rows


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with its suffix, that takes the place of `path` if the block succeeds."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _finite(value: SupportsFloat) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("env_steps"), int):
        raise ValueError(f'{where} is no JSON object with an integer "env_steps": delete or repair this line')
    return row
