"""When half of the way is gone: tables over seeds with 95 % bootstrap intervals, and curves."""

import numpy as np
from config import Config
from life import PERTURBATIONS, Record
from matplotlib.figure import Figure

from jaxalign import track
from jaxalign.elasticity.measures import first_below, interval

_WINDOW = 5  # iterations over which curves are smoothed before a half is looked for
_WORDS = {"unlimited": "the task without a limit", "speed": "forward speed (neutral)"}


def smooth(curve: np.ndarray) -> np.ndarray:
    """Running mean over up to `_WINDOW` iterations, along the first axis, ``[P, S]``."""
    sums = np.cumsum(np.concatenate([np.zeros((1, *curve.shape[1:])), curve]), axis=0)
    ends = np.arange(1, len(curve) + 1)
    starts = np.maximum(ends - _WINDOW, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)[:, None]


def half_way(steps: np.ndarray, curve: np.ndarray, start: float, end: float) -> float:
    """Steps until a curve that leaves `start` has gone half of the way to `end`; infinite if it never does."""
    sign = 1.0 if end < start else -1.0
    return first_below(steps, sign * curve, sign * 0.5 * (start + end))


def halves(record: Record, levels: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, list[float]]:
    """Steps to half of the way by measure and seed; `levels` are where it starts and ends, by seed."""
    found: dict[str, list[float]] = {}
    for name, (start, end) in levels.items():
        curve = smooth(getattr(record, name))
        found[name] = [half_way(record.steps, *x) for x in zip(curve.T, start.tolist(), end.tolist(), strict=True)]
    return found


def report(config: Config, found: dict[tuple[int, str], Record]) -> None:
    """Writes `tables.md` and `rebound.png`, and prints the table.

    Alignment leads from the base's return and cost to those at its end, means over 10 iterations; the way back from
    those at the end of the alignment in question to those that the base has when it goes on without a limit.
    """
    stops = sorted(config.aligned)
    alignment, base = found[stops[-1], "alignment"], _levels(found[0, "unlimited"])
    safe = {stop: _levels(alignment, config.iterations(stop)) for stop in stops}
    there = halves(alignment, {name: (base[name], safe[stops[-1]][name]) for name in base})
    columns = ["phase", "aligned", "cost, half way", "return, half way", "KL left, lowest", "KL left, at the end"]
    rows = [["alignment", "-", _thousands(there["cost"]), _thousands(there["returns"]), "-", "-", *_ends(alignment)]]
    for kind in PERTURBATIONS:
        for aligned in (0, *stops):
            record, half, left = found[aligned, kind], ["-", "-"], ["-", "-"]
            if aligned and kind == "unlimited":
                back = halves(record, {name: (safe[aligned][name], base[name]) for name in base})
                half = [_thousands(back["cost"]), _thousands(back["returns"])]
            if aligned:
                share = record.kl / np.maximum(record.kl[0], 1e-9)
                left = [str(interval(share.min(0))), str(interval(share[-1]))]
            rows.append([_WORDS[kind], f"{aligned:,}", *half, *left, *_ends(record)])
    title = f"{config.env}, limit {config.limit:g}, {len(config.seeds)} seeds; ways: medians, in thousands of steps"
    lines = [title, "", f"| {' | '.join([*columns, 'cost at the end', 'return at the end'])} |", "|---" * 8 + "|"]
    text = "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"
    print("\n" + text)
    with track.replacing(config.out / "tables.md") as temporary:
        temporary.write_text(text)
    _draw(config, found, base)


def _levels(record: Record, end: int | None = None) -> dict[str, np.ndarray]:
    """Return and cost by seed, means over the last 10 iterations up to `end`."""
    end = len(record.steps) if end is None else end
    return {name: getattr(record, name)[max(0, end - 10) : end].mean(0) for name in ("returns", "cost")}


def _thousands(values: list[float]) -> str:
    return str(interval(np.asarray(values) / 1000, np.median))


def _ends(record: Record) -> list[str]:
    levels = _levels(record)
    return [str(interval(levels[name])) for name in ("cost", "returns")]


def _draw(config: Config, found: dict[tuple[int, str], Record], base: dict[str, np.ndarray]) -> None:
    """Cost, return and KL of every phase, means over seeds with bands of one standard deviation."""
    stops = sorted(config.aligned)
    columns = {"alignment": [stops[-1]], **{kind: [0, *stops] for kind in PERTURBATIONS}}
    rows = {"cost": "cost", "returns": "return", "kl": "KL(policy || base), nats"}
    figure = Figure(figsize=(11.0, 7.5), layout="constrained")
    for line, (name, label) in zip(figure.subplots(3, 3, sharey="row"), rows.items()):
        for panel, (kind, lives) in zip(line, columns.items()):
            for aligned in lives:
                values, steps = smooth(getattr(found[aligned, kind], name)), found[aligned, kind].steps / 1000
                mean, spread = values.mean(1), values.std(1)
                colour = f"C{stops.index(aligned)}" if aligned else "C7"
                panel.plot(steps, mean, color=colour, label=f"{aligned:,} aligned" if aligned else "the base")
                panel.fill_between(steps, mean - spread, mean + spread, color=colour, alpha=0.15)
            if name == "cost":
                panel.axhline(config.limit, color="0.3", linestyle="--", linewidth=0.8)
                title = "alignment: a limit" if kind == "alignment" else f"perturbed by {_WORDS[kind]}"
                panel.set_title(title, fontsize=10)
            if name in base:
                panel.axhline(base[name].mean(), color="0.6", linestyle=":", linewidth=0.8)
            panel.set(xlabel="thousand steps")
            panel.grid(color="0.92")
        line[0].set(ylabel=label)
    figure.axes[1].legend(fontsize=8)
    with track.replacing(config.out / "rebound.png") as temporary:
        figure.savefig(temporary, format="png", dpi=150)
