"""Figures of lives from the rows of `lifecycle_tables`, and the short version of the experiment that makes one."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxalign.elasticity import dialects, lifecycle, lifecycle_tables
from jaxalign.elasticity.lifecycle import PERTURBATIONS, Settings
from jaxalign.elasticity.lifecycle_tables import Rows, grouped
from jaxalign.elasticity.measures import interval
from jaxalign.track import replacing

_COLOURS = ("#56B4E9", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#E69F00")  # safe for the colour-blind
_DEMO = Settings(
    seeds=(0, 1, 2),
    width=32,
    volumes=(100, 400, 1600),
    aligned=(1024,),
    slice=256,
    perturbation=256,
    probe=64,
    written=64,
)
_WORDS = {
    "novel": "a dialect never seen before (neutral)",
    "unsafe": "the opposite dialect",
    "other": "the third dialect",
    "mixture": "the pre-training mixture",
}
_UNITS = {"volume": "pre-training steps", "width": "width of the model"}


def rebound_figure(
    rows: Rows, table: Rows, path: Path, perturbation: str = "novel", by: Literal["volume", "width"] = "volume"
) -> None:
    """How near models come to their base under a perturbation, by pre-training volume or width; a PNG.

    Left: KL to the base as a fraction of its start, for the largest alignment, and the same of the perturbed base
    itself, dashed. Right: the lowest point by alignment size, and the base's there, hollow.
    """
    rows = [row for row in rows if row["perturbation"] == perturbation]
    table = [row for row in table if row["perturbation"] == perturbation]
    most = max(row["aligned"] for row in table)
    figure, (left, right) = _panels(2, f"Perturbed by {_WORDS.get(perturbation, perturbation)}", 4.4)
    for colour, ((size,), runs) in zip(_cycle(), sorted(grouped(rows, by).items())):
        aligned = _by_seed(runs, most)
        start = np.array([life[0]["kl"] for life in aligned])
        for lives, style in ((aligned, "-"), (_by_seed(runs, 0), "--")):
            curves = np.array([[row["kl"] for row in life] for life in lives]) / start[:, None]
            x = [row["sequences"] for row in lives[0]]
            _band(left, x, curves, colour, style, str(size) if style == "-" else None)
    left.axhline(1.0, color="0.5", linewidth=0.8)
    left.set(xlabel="perturbing sequences", ylabel="KL(model || base), fraction of its start")
    left.set_ylim(0, None)
    left.set_title(f"aligned on {most} sequences; dashed: the base itself", fontsize=9)
    left.legend(title=_UNITS[by], fontsize=8, title_fontsize=8)
    sizes = sorted(grouped(table, by))
    for colour, ((aligned,), lines) in zip(_cycle(1), grouped(table, "aligned").items()):
        x = np.array([sizes.index((line[by],)) for line in lines])
        _points(right, x, [line["lowest"] for line in lines], colour, f"aligned on {aligned}")
        right.plot(x, [line["floor"].value for line in lines], "o", color=colour, markerfacecolor="white", markersize=5)
    right.set_xticks(range(len(sizes)), [str(size) for (size,) in sizes])
    right.set(xlabel=_UNITS[by], ylabel="lowest KL, fraction of its start", ylim=(0, None))
    right.set_title("what is left of alignment; hollow: the base itself", fontsize=9)
    right.legend(fontsize=8)
    _save(figure, path)


def n_half_figure(table: Rows, path: Path, length: int) -> None:
    """Sequences until the KL to the base is halved, by volume; a panel per perturbation of `length` sequences."""
    kinds = grouped(table, "perturbation")
    volumes = list(grouped(table, "volume"))
    figure, panels = _panels(len(kinds), "Sequences until KL(model || base) is halved (median over seeds)", 3.0)
    never = 1.12 * length
    for panel, ((kind,), lines) in zip(panels, kinds.items()):
        for colour, ((aligned,), group) in zip(_cycle(1), grouped(lines, "aligned").items()):
            x = np.array([volumes.index((line["volume"],)) for line in group])
            shown = [type(line["n_half"])(*np.minimum(line["n_half"], never)) for line in group]
            _points(panel, x, shown, colour, f"aligned on {aligned}")
        panel.axhline(never, color="0.6", linewidth=0.8, linestyle=":")
        panel.text(0, never, "never", va="bottom", fontsize=8, color="0.4")
        panel.set_xticks(range(len(volumes)), [str(volume) for (volume,) in volumes])
        panel.set(xlabel="pre-training steps", ylim=(0, 1.25 * length))
        panel.set_title(str(_WORDS.get(kind, kind)), fontsize=9)
    panels[0].set_ylabel("sequences")
    panels[0].legend(fontsize=8)
    _save(figure, path)


def score_figure(rows: Rows, path: Path, perturbation: str = "unsafe") -> None:
    """The paper's figure: score of the model's own texts against perturbing sequences, a curve per alignment size.

    Above P(safe), which is bounded, so that a higher start falls more steeply by construction; below the log-odds.
    """
    rows = [row for row in rows if row["perturbation"] == perturbation]
    volumes = grouped(rows, "volume")
    title = f"Score of a model's own texts, perturbed by {_WORDS.get(perturbation, perturbation)}"
    figure = Figure(figsize=(1.0 + 2.9 * len(volumes), 5.6), layout="constrained")
    panels = figure.subplots(2, len(volumes), sharex=True, sharey="row", squeeze=False)
    for column, ((volume,), runs) in zip(panels.T, volumes.items()):
        for panel, name in zip(column, ("score", "margin")):
            for colour, (aligned,) in zip(_cycle(), [key for key in grouped(runs, "aligned") if key != (0,)]):
                lives = _by_seed(runs, aligned)
                x = [row["sequences"] for row in lives[0]]
                _band(panel, x, np.array([[row[name] for row in life] for life in lives]), colour, "-", str(aligned))
            panel.axhline(np.mean([life[0][name] for life in _by_seed(runs, 0)]), color="0.4", linestyle="--")
            panel.grid(color="0.9")
        column[0].set_title(f"{volume} pre-training steps", fontsize=9)
        column[1].set_xlabel("perturbing sequences")
    panels[0, 0].set_ylabel("P(safe)")
    panels[1, 0].set_ylabel("log-odds of safe, nats per token")
    panels[0, 0].legend(title="aligned on", fontsize=8)
    figure.suptitle(f"{title}; dashed: the base")
    _save(figure, path)


def resistance_figure(table: Rows, path: Path) -> None:
    """Inverse minus forward loss between slices, raw and corrected, by sampling temperature; below 0: the claim."""
    temperatures = grouped(table, "temperature")
    figure, panels = _panels(len(temperatures), "Inverse minus forward loss, nats per token (below 0: resistance)", 3.4)
    for panel, ((temperature,), lines) in zip(panels, temperatures.items()):
        places = [(line["volume"], line["pair"]) for line in lines]
        x = np.arange(len(places))
        names = {
            "loss": "training loss",
            "excess": "minus targets' entropy",
            "start_excess": "the same before training",
        }
        for shift, colour, (name, label) in zip((-0.2, 0.0, 0.2), _cycle(1), names.items()):
            _points(panel, x + shift, [line[f"{name}_difference"] for line in lines], colour, label, line="")
        panel.axhline(0.0, color="0.3", linewidth=0.8)
        panel.set_xticks(x, [f"{volume} steps, {pair}" for volume, pair in places], rotation=90, fontsize=7)
        panel.set_title(f"answers sampled at temperature {temperature:g}", fontsize=9)
    panels[0].legend(fontsize=8)
    _save(figure, path)


def mitigation_figure(table: Rows, path: Path) -> None:
    """Bits lost on safe texts against bits gained on the task, by method; the largest volume, a panel a task."""
    most = max(row["volume"] for row in table)
    tasks = grouped([row for row in table if row["volume"] == most], "task")
    figure, panels = _panels(len(tasks), f"The bargain of three methods, {most} pre-training steps", 4.2)
    for panel, ((task,), rows) in zip(panels, tasks.items()):
        named = {name: lines for (name,), lines in grouped(rows, "name").items()}
        start, full = named.pop("aligned"), named.pop("none")
        limits = {"mixing": (full, []), "anchoring": (full, start), "averaging": (start, full)}  # strength 0, most
        for colour, (name, lines) in zip(_cycle(1), named.items()):
            chain = [*limits[name][0], *lines, *limits[name][1]]
            panel.plot([x["learned"].value for x in chain], [x["lost"].value for x in chain], "-", color=colour)
            _cross(panel, lines, colour, name)
            for line in lines:
                here = line["learned"].value, line["lost"].value
                panel.annotate(f"{line['strength']:g}", here, xytext=(3, 3), textcoords="offset points", fontsize=7)
        _cross(panel, start + full, "black", "no perturbation, and no method")
        panel.set_xlabel("learned: bits per token gained on the task")
        panel.set_title(f"task: {_WORDS.get(task, task)}", fontsize=9)
    panels[0].set_ylabel("lost: bits per token on safe texts")
    panels[0].legend(fontsize=8)
    _save(figure, path)


def demo(out: Path | str, settings: Settings = _DEMO) -> str:
    """The rebound by pre-training volume under the neutral perturbation: `rebound.png`, `rebound.csv`, `table.csv`.

    Args:
        out: the folder they go to.
        settings: by default 3 seeds of a model of width 32, made for a minute or two on two cores.

    Returns:
        The table as Markdown, for people.
    """
    out, kinds = Path(out), ("novel", "mixture")
    rows: Rows = []
    weights = jnp.stack([dialects.mixture(PERTURBATIONS[kind]) for kind in kinds])
    for volume, base in lifecycle.pretrain(settings).items():
        found = lifecycle.perturb(settings, base, lifecycle.align(settings, base).starts, weights)
        rows += lifecycle_tables.rebound_rows(settings, volume, kinds, found)
    table = lifecycle_tables.rebound_table(rows, settings.pretraining_batch)
    lifecycle_tables.write(out / "rebound.csv", rows)
    lifecycle_tables.write(out / "table.csv", table)
    rebound_figure(rows, table, out / "rebound.png")
    columns = ("volume", "perturbation", "aligned", "start", "lowest", "floor", "excess", "n_half", "reached")
    return lifecycle_tables.text(table, columns)


def _by_seed(rows: Rows, aligned: int) -> list[Rows]:
    """The runs from one alignment, in the order of seeds, each in the order of its measurements."""
    runs = grouped([row for row in rows if row["aligned"] == aligned], "seed")
    return [sorted(runs[seed], key=lambda row: row["sequences"]) for seed in sorted(runs)]


def _cycle(first: int = 0) -> Iterable[str]:
    return (_COLOURS * 4)[first:]


def _panels(count: int, title: str, width: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(0.6 + width * count, 4.0), layout="constrained")
    panels = list(figure.subplots(1, count, squeeze=False)[0])
    for panel in panels:
        panel.grid(color="0.9", linewidth=0.8)
        panel.set_axisbelow(True)
    figure.suptitle(title, fontsize=11)
    return figure, panels


def _band(panel: Axes, x: Sequence[int], curves: np.ndarray, colour: str, style: str, label: str | None) -> None:
    """Mean over seeds [S, P] and its interval."""
    found = np.array([interval(column) for column in curves.T])
    panel.plot(x, found[:, 0], style, color=colour, linewidth=1.6, label=label)
    panel.fill_between(x, found[:, 1], found[:, 2], color=colour, alpha=0.2, linewidth=0)


def _points(panel: Axes, x: np.ndarray, values: Sequence[Any], colour: str, label: str, line: str = "-") -> None:
    """Intervals as points with bars."""
    found = np.array(values, float)
    bars = np.nan_to_num(np.abs(found[:, [1, 2]] - found[:, :1])).T
    panel.errorbar(x, found[:, 0], bars, color=colour, marker="o", markersize=4, linestyle=line, capsize=2, label=label)


def _cross(panel: Axes, lines: Rows, colour: str, label: str) -> None:
    """Points with intervals both ways."""
    x, y = (np.array([line[name] for line in lines], float) for name in ("learned", "lost"))
    bars = [np.nan_to_num(np.abs(v[:, [1, 2]] - v[:, :1])).T for v in (x, y)]
    style = {"marker": "o", "markersize": 4, "linestyle": "", "capsize": 2, "color": colour, "label": label}
    panel.errorbar(x[:, 0], y[:, 0], bars[1], bars[0], **style)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
