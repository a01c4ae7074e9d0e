"""Results of lives as rows: tidy ones as measured, and tables of means over seeds with 95 % bootstrap intervals."""

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxalign.core.errors import UserError
from jaxalign.elasticity import dialects
from jaxalign.elasticity.lifecycle import PAIRS, Resistance, Settings
from jaxalign.elasticity.measures import Interval, Observation, first_below, interval, rebound
from jaxalign.elasticity.mitigation import Method, bargain
from jaxalign.track import replacing

Rows = list[dict[str, Any]]


def rebound_rows(settings: Settings, volume: int, perturbations: Sequence[str], found: Observation) -> Rows:
    """One row per perturbation, start, seed and measurement, from measures [K, A, S, P]; `aligned` 0 is the base."""
    values = {name: np.asarray(x) for name, x in found._asdict().items()}
    bits = values.pop("bits")
    rows = []
    for k, a, s, p in np.ndindex(values["kl"].shape):
        place = {"width": settings.width, "volume": volume, "perturbation": perturbations[k]}
        place |= {"aligned": (0, *settings.aligned)[a], "seed": settings.seeds[s], "sequences": int(settings.points[p])}
        measured = {name: float(x[k, a, s, p]) for name, x in values.items()}
        rows.append(place | measured | {f"bits_{n}": float(b) for n, b in zip(dialects.NAMES, bits[k, a, s, p])})
    return rows


def rebound_table(rows: Rows, pretraining_batch: int) -> Rows:
    """Per width, volume, perturbation and alignment: `measures.Rebound` over seeds.

    Further columns: `reached`, seeds in which the KL halves (`n_half` is the median, "never" included); `springs`,
    sequences of the data times the change of cross-entropy on it from first to last measurement, bits per token, for
    alignment and pre-training: equal and opposite if models were springs in series (Hooke's form of the paper);
    `floor_kl`, KL of the perturbed base at the end.
    """
    table = []
    for (width, volume, perturbation), runs in grouped(rows, "width", "volume", "perturbation").items():
        lives = {place: _curves(life) for place, life in grouped(runs, "aligned", "seed").items()}
        for aligned in sorted({count for count, _ in lives} - {0}):
            seeds = [seed for count, seed in lives if count == aligned]
            here, base = [lives[aligned, seed] for seed in seeds], [lives[0, seed] for seed in seeds]
            found = [rebound(x["sequences"], x["kl"], y["kl"]) for x, y in zip(here, base)]
            names = found[0]._fields[:-1]
            columns: dict[str, Any] = {name: interval([getattr(r, name) for r in found]) for name in names}
            halves = [r.n_half for r in found]
            columns["n_half"] = interval(halves, np.median)
            columns["reached"] = int(np.isfinite(halves).sum())
            columns["floor_kl"] = interval([y["kl"][-1] for y in base])
            columns |= _springs(here, aligned, volume * pretraining_batch)
            place = {"width": width, "volume": volume, "perturbation": perturbation, "aligned": aligned}
            table.append(place | {"seeds": len(seeds)} | columns)
    return table


def _springs(lives: Sequence[dict[str, np.ndarray]], aligned: int, pretrained: int) -> dict[str, Interval]:
    change = lambda life, name: float(life[f"bits_{name}"][-1] - life[f"bits_{name}"][0])
    seen = dialects.NAMES[: dialects.PRETRAINED]
    return {
        "spring_aligned": interval([aligned * change(life, "safe") for life in lives]),
        "spring_pretrained": interval([pretrained * float(np.mean([change(life, n) for n in seen])) for life in lives]),
    }


def _curves(life: Rows) -> dict[str, np.ndarray]:
    """The columns of one run in the order of its measurements."""
    life = sorted(life, key=lambda row: row["sequences"])
    numbers = [name for name, value in life[0].items() if not isinstance(value, str)]
    return {name: np.array([row[name] for row in life], float) for name in numbers}


def resistance_rows(settings: Settings, volume: int, temperature: float, found: Resistance) -> Rows:
    """One row per pair, direction and seed. `n_half`: sequences until half of the first excess over entropy is gone."""
    values = {name: np.asarray(x) for name, x in found._asdict().items()}
    curves, points = values.pop("curve"), np.arange(0, settings.slice + 1, settings.every)
    rows = []
    for d, p, s in np.ndindex(values["loss"].shape):
        k, l = PAIRS[p]
        place = {"width": settings.width, "volume": volume, "temperature": temperature, "seed": settings.seeds[s]}
        place |= {"pair": f"{k}-{l}", "direction": ("inverse", "forward")[d]}
        here = {name: float(x[d, p, s]) for name, x in values.items()}
        here["excess"] = here["loss"] - here["entropy"]
        here["start_excess"] = here["start"] - here["entropy"]
        half = here["entropy"] + here["start_excess"] / 2
        rows.append(place | here | {"n_half": first_below(points, curves[d, p, s], half)})
    return rows


def resistance_table(rows: Rows) -> Rows:
    """Per volume, temperature and pair: both directions and their difference, inverse minus forward, paired by seed.

    Below 0 in `loss` is the paper's claim; `excess` is corrected for entropy; `start_excess` says where each began.
    """
    table = []
    keys = ("width", "volume", "temperature", "pair")
    for place, runs in grouped(rows, *keys).items():
        by = {d: sorted(x, key=lambda row: row["seed"]) for (d,), x in grouped(runs, "direction").items()}
        line: dict[str, Any] = dict(zip(keys, place)) | {"seeds": len(by["inverse"])}
        for name in ("loss", "excess", "start_excess"):
            inverse, forward = (np.array([row[name] for row in by[d]]) for d in ("inverse", "forward"))
            line |= {f"{name}_inverse": interval(inverse), f"{name}_forward": interval(forward)}
            line[f"{name}_difference"] = interval(inverse - forward)
        for d, runs_there in by.items():
            line[f"n_half_{d}"] = interval([row["n_half"] for row in runs_there], np.median)
            line[f"distinct_{d}"] = float(np.mean([row["distinct"] for row in runs_there]))
        table.append(line)
    return table


def mitigation_rows(settings: Settings, volume: int, task: str, methods: Sequence[Method], found: Observation) -> Rows:
    """One row per method and seed, from measures [R, S] whose first row is "aligned".

    Raises:
        UserError: the first method is not "aligned", which the others are compared with.
    """
    if methods[0].name != "aligned":
        raise UserError(f"The first method is {methods[0].name!r}; put 'aligned', which all are compared with, first.")
    at = lambda i: jax.tree.map(lambda x: np.asarray(x)[i], found)
    rows = []
    for i, method in enumerate(methods):
        got = bargain(at(i), at(0), task)._asdict()
        for s, seed in enumerate(settings.seeds):
            place = {"width": settings.width, "volume": volume, "task": task, "seed": seed}
            rows.append(place | method._asdict() | {name: float(x[s]) for name, x in got.items()})
    return rows


def mitigation_table(rows: Rows) -> Rows:
    """Per volume, task, method and strength: the bargain over seeds."""
    keys = ("width", "volume", "task", "name", "strength")
    return [
        dict(zip(keys, place))
        | {"seeds": len(runs)}
        | {column: interval([row[column] for row in runs]) for column in ("learned", "lost", "kept", "score")}
        for place, runs in grouped(rows, *keys).items()
    ]


def grouped(rows: Iterable[dict[str, Any]], *keys: str) -> dict[tuple, Rows]:
    """Rows by their values of `keys`, in the order of first appearance."""
    groups: dict[tuple, Rows] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


def write(path: Path, rows: Rows) -> None:
    """Rows as CSV, whole or not at all; an interval becomes three columns."""
    flat = []
    for row in rows:
        line: dict[str, Any] = {}
        for name, value in row.items():
            line[name] = value
            if isinstance(value, Interval):
                line |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
        flat.append(line)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(flat[0]))
        writer.writeheader()
        writer.writerows(flat)


def read(path: Path) -> Rows:
    """Rows that `write` wrote, numbers as numbers."""
    with path.open(newline="") as file:
        return [{name: _number(text) for name, text in row.items()} for row in csv.DictReader(file)]


def _number(text: str) -> Any:
    try:
        value = float(text)
    except ValueError:
        return text
    return int(value) if math.isfinite(value) and text.lstrip("-").isdigit() else value


def text(rows: Rows, columns: Sequence[str]) -> str:
    """Columns of a table as Markdown."""
    lines = [[str(row[c]) if not isinstance(row[c], float) else f"{row[c]:.3g}" for c in columns] for row in rows]
    head = [column.replace("_", " ") for column in columns]
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines])
