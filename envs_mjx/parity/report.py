"""The command line: which recording belongs to which environment, and what is printed."""

import argparse
import sys
from pathlib import Path

from envs_mjx import physics, registry
from envs_mjx.navigation import Navigation
from envs_mjx.parity import navigation, velocity
from envs_mjx.parity.recording import Check, CorruptRecordingError, Spread, versions

DESCRIPTION = """Replays transitions recorded from Safety-Gymnasium. Prints the largest absolute error of every quantity
beside its tolerance. Exit status: 0 if all recordings agree, 1 if a tolerance is exceeded, 2 if a file cannot be
read."""


def environment_of(path: Path) -> str:
    """Id of the environment that a recording, named after its id, belongs to.

    Safety-Gymnasium's repository and its package on PyPI call two different Ants ``-v0``; ours calls the repository's
    ``-v1``. The recording says which version made it.
    """
    stem = path.name.removesuffix(".npz")
    env_id = next((name for name in registry.ids() if path.name.startswith(name)), stem)
    if env_id.startswith("SafetyAnt") and "Velocity" not in env_id and "1.0.0" not in " ".join(versions(path)):
        return env_id.replace("-v0", "-v1")
    return env_id


def replay(path: Path, engine: str) -> list[Check | Spread]:
    """All checks of one recording.

    Raises:
        CorruptRecordingError: the file cannot be read or is inconsistent.
        ValueError: the file name does not begin with a known environment id.
    """
    if not path.exists():
        raise CorruptRecordingError(f"{path}: no such file.")
    builder = registry.builder(environment_of(path), engine)
    if isinstance(builder, Navigation):
        return navigation.replay(path, builder)
    return velocity.replay(path, builder)


def _report(path: Path, results: list[Check | Spread]) -> bool:
    print(path.name, flush=True)
    for result in results:
        if isinstance(result, Check):
            verdict = "" if result.tolerance is None else "ok" if result.passed else "FAILED"
            limit = "" if result.tolerance is None else f"{result.tolerance:.0e}"
            line = f"  {result.name:38s} {result.error:10.2e} {limit:>8s} {verdict:6s} {result.note}"
        else:
            note = f"{result.steps} steps; median {result.median:.1e}, 99 % {result.high:.1e}"
            line = f"  {result.name:38s} {result.maximum:10.2e} {'':8s} {'':6s} {note}"
        print(line.rstrip(), flush=True)
    return all(result.passed for result in results if isinstance(result, Check))


HEADER = """# One control step, simulated anew from recorded states

    python -m envs_mjx.parity {files} --engine {engines} --table {table}

Largest error of any coordinate (m, rad, or an entry of a quaternion) of robot and objects after one control step from a
recorded state of Safety-Gymnasium (MuJoCo 2.3.3, float64) with the recorded action; our states are float32. "floor":
steps in which nothing but the floor is touched (velocity robots: nothing at all). "contact": anything else is touched.
"start": the first step of an episode, in which wheels stand exactly upright and boxes lie on the floor at a distance of
+-1e-17 m, so that the last bit decides. `envs_mjx/parity/navigation.py` says which of these must be within 1e-4, and
why not all.

Observations, rewards, costs and endings are recomputed from the recorded states in the same run; last column.

"""


def _table(rows: list[tuple[str, str, list[Check | Spread]]], header: str) -> str:
    """One-step errors of all recordings and engines, in Markdown."""
    lines = [
        "| recording | engine | steps | n | median | 99 % | max | all checks |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, engine, results in rows:
        failed = [r.name for r in results if isinstance(r, Check) and not r.passed]
        verdict = f"failed: {'; '.join(failed)}" if failed else "ok"
        for spread in (r for r in results if isinstance(r, Spread) and r.name.startswith("one-step qpos")):
            kind = spread.name.split(", ")[-1].replace("from the start pose", "start")
            numbers = f"{spread.steps} | {spread.median:.0e} | {spread.high:.0e} | {spread.maximum:.0e}"
            lines.append(f"| {name} | {engine} | {kind} | {numbers} | {verdict} |")
    return header + "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m envs_mjx.parity", description=DESCRIPTION)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.npz", help="recordings, named after their id")
    engine = physics.default_engine()
    parser.add_argument("--engine", nargs="+", default=[engine], help=f"physics engines to check (default: {engine})")
    parser.add_argument("--table", type=Path, help="also write the one-step errors to this Markdown file")
    args = parser.parse_args(argv)
    print(f"  {'largest absolute error of':38s} {'':>10s} {'allowed':>8s}")
    rows = []  # two recordings may have one name
    try:
        for path in args.files:
            for engine in args.engine:
                results = replay(path, engine)
                rows.append((path.stem, engine, results))
                _report(path, results)
    except ValueError as error:
        print(f"parity: {error}", file=sys.stderr)
        return 2
    passed = [all(r.passed for r in results if isinstance(r, Check)) for *_, results in rows]
    if args.table:
        command = dict(files=" ".join(map(str, args.files)), engines=" ".join(args.engine), table=args.table)
        args.table.write_text(_table(rows, HEADER.format(**command)))
    print(f"{sum(passed)} of {len(passed)} recordings agree")
    return 0 if all(passed) else 1
