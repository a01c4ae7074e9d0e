"""Runs side by side: learning curves in one figure, closing evaluations in one table."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tyro

from jaxalign import track
from jaxalign.cli import run
from jaxalign.core.errors import UserError

APART = ("seed", "name", "out", "devices", "distributed", "checkpoint_seconds", "eval_episodes", "video", "wandb")
APART += ("learner", "off_policy")  # whose fields are compared one by one


@dataclasses.dataclass(frozen=True)
class Compare:
    """Draw the learning curves of several runs and tabulate their evaluations; runs that differ by seed are averaged.

    Attributes:
        runs: folders of runs of one environment.
        out: the figure, a .png.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    out: Path = Path("comparison.png")


def compare(config: Compare) -> str:
    """Draws the figure, prints the table; returns it.

    Raises:
        UserError: a folder is no run, or the runs cannot be compared.
    """
    if not config.runs:
        raise UserError("There is nothing to compare; give the folders of runs, such as runs/A runs/B.")
    if config.out.suffix != ".png":
        raise UserError(f"--out is {config.out}; give a file that ends in .png.")
    trained = {folder: run.read_config(folder) for folder in config.runs}
    env, *others = dict.fromkeys(one.env for one in trained.values())
    if others:
        raise UserError(f"The runs are of {env} and of {', '.join(others)}; compare runs of one environment.")
    groups = labelled(trained)
    limits = {label: _limits(trained[folders[0]]) for label, folders in groups.items()}
    lines: dict[str, list[float]] = {}
    for group in limits.values():
        for name, limit in group.items():
            lines[name] = sorted({*lines.get(name, []), limit})
    curves = {label: [_rows(folder) for folder in folders] for label, folders in groups.items()}
    try:
        track.learning_curves_over_seeds(curves, config.out, lines, env)
    except OSError as error:
        raise UserError(f"Cannot write {config.out} ({error.strerror or error}); choose another --out.") from None
    table = track.comparison_table(
        {label: [_evaluation(folder) for folder in folders] for label, folders in groups.items()}, limits
    )
    print(f"{table}\n\nWritten to {config.out}")
    return table


def labelled(trained: Mapping[Path, run.TrainConfig]) -> dict[str, list[Path]]:
    """Runs that differ by seed alone under one label: the algorithm, and whatever else varies.

    Raises:
        UserError: two runs have the same seed too.
    """
    settings = {folder: _settings(config) for folder, config in trained.items()}
    values: dict[str, set[str]] = {}
    for each in settings.values():
        for name, value in each.items():
            values.setdefault(name, set()).add(value)
    varied = [name for name in values if len(values[name]) > 1 and name != "algorithm"]
    groups: dict[str, list[Path]] = {}
    for folder, each in settings.items():
        label = ", ".join([each["algorithm"], *(f"{name} {each[name]}" for name in varied if name in each)])
        groups.setdefault(label, []).append(folder)
    for folders in groups.values():
        seeds: dict[int, Path] = {}
        for folder in folders:
            twin = seeds.setdefault(trained[folder].seed, folder)
            if twin is not folder:
                raise UserError(f"{twin} and {folder} have the same settings and seed; give one of them.")
    return groups


def _settings(config: run.TrainConfig) -> dict[str, str]:
    """Whatever may make a run another than one of another seed, as text; sizes of its own family only."""
    settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    family = "learner" if config.sizes is config.learner else "off_policy"
    settings |= {f"{family}.{name}": value for name, value in dataclasses.asdict(config.sizes).items()}
    return {name: _text(value) for name, value in settings.items() if name not in APART}


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _limits(config: run.TrainConfig) -> dict[str, float]:
    return dict(zip(config.costs, config.cost_limit, strict=True))


def _rows(folder: Path) -> list[dict[str, Any]]:
    try:
        return track.read_jsonl(folder / "metrics.jsonl")
    except (FileNotFoundError, ValueError) as error:
        raise UserError(f"{error}.") from None


def _evaluation(folder: Path) -> dict[str, Any] | None:
    """The closing evaluation, None if the run has not got that far."""
    path = folder / "evaluation.json"
    try:
        found = json.loads(path.read_text())
        return {"return": found["return"], "cost": found["cost"]}
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error!r}); write it anew with `jaxalign resume {folder}`.") from None
