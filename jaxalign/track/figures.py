"""Learning curves, drawn as for a paper."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from jaxalign.track.table import interval
from jaxalign.track.tracker import replacing

Rows = list[dict[str, Any]]

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe-Ito, safe for the colour-blind
_STYLES = ("-", ":", "-.")  # of further curves, when colours come again
_COST, _MULTIPLIER = "episode_cost/", "multiplier/"
_GRID_POINTS = 201  # env-steps at which seeds are compared
_LEGEND: dict[str, Any] = {"fontsize": 9, "facecolor": "white", "edgecolor": "none", "framealpha": 0.8}
_FEW = 40  # up to so many rows, each is also marked by a dot


def learning_curve(rows: Rows, path: str | Path, cost_limits: Mapping[str, float], title: str) -> None:
    """Draw return, costs with their limits, and multipliers of one run over env-steps, as a PNG written atomically.

    Args:
        rows: what `read_jsonl` returns; values that are missing or None leave a gap.
        path: the PNG file; missing parent directories are made.
        cost_limits: the limit of the cost per episode of each constraint.
        title: the line above the figure.
    """
    _save(_curve_figure(rows, cost_limits, title), path)


def learning_curves_over_seeds(
    runs: Mapping[str, list[Rows]], path: str | Path, cost_limits: Mapping[str, float | Sequence[float]], title: str
) -> None:
    """Compare runs: per label the mean over seeds with its 95 % band, after Student, as a PNG written atomically.

    Seeds are interpolated linearly to common env-steps, those that all seeds of the label with any value cover.

    Args:
        runs: for each label the rows of each seed, as `read_jsonl` returns them.
        path: the PNG file; missing parent directories are made.
        cost_limits: the limit of the cost per episode of each constraint, or its limits if runs differ; there is one
            panel for each.
        title: the line above the figure.
    """
    _save(_seeds_figure(runs, cost_limits, title), path)


def _curve_figure(rows: Rows, cost_limits: Mapping[str, float], title: str) -> Figure:
    costs = _names(rows, _COST, cost_limits)
    multipliers = [name for name in _names(rows, _MULTIPLIER) if _known(rows, _MULTIPLIER + name)[0].size]
    colours = dict(zip(costs, np.resize(_COLOURS[1:], len(costs)), strict=True))
    figure, axes = _panels([3.0, 3.0, 1.3] if multipliers else [3.0, 3.0], title)

    _line(axes[0], rows, "episode_return", color=_COLOURS[0])
    axes[0].set_ylabel("return per episode")
    for name in costs:
        _line(axes[1], rows, _COST + name, color=colours[name], label=name)
    for name, limit in cost_limits.items():
        _limit(axes[1], limit, f"limit {limit:g}" if len(costs) == 1 else f"limit of {name}, {limit:g}", colours[name])
    axes[1].set_ylabel("cost per episode")
    for name in multipliers:
        _line(axes[2], rows, _MULTIPLIER + name, color=colours.get(name, "0.4"), label=name)
        axes[2].set_ylabel("multiplier")

    if not any(_known(rows, key)[0].size for key in ["episode_return", *(_COST + name for name in costs)]):
        _say_empty(axes[0])
    if costs:
        axes[1].legend(**_LEGEND, ncols=2)
    return figure


def _seeds_figure(
    runs: Mapping[str, list[Rows]], cost_limits: Mapping[str, float | Sequence[float]], title: str
) -> Figure:
    figure, axes = _panels([3.0] * (1 + len(cost_limits)), title)
    panels = {"episode_return": axes[0]} | dict(zip((_COST + name for name in cost_limits), axes[1:], strict=True))
    bands = {(label, key): _band(seeds, key) for label, seeds in runs.items() for key in panels}
    colours = dict(zip(runs, np.resize(_COLOURS, len(runs)), strict=True))
    styles = {label: _STYLES[i // len(_COLOURS) % len(_STYLES)] for i, label in enumerate(runs)}
    for (label, key), (steps, mean, half_width) in bands.items():
        text = f"{label} ({len(runs[label])} seed{'s' * (len(runs[label]) != 1)})"
        panels[key].plot(steps, mean, styles[label], color=colours[label], linewidth=1.6, label=text)
        panels[key].fill_between(
            steps, mean - half_width, mean + half_width, color=colours[label], alpha=0.2, linewidth=0
        )
    axes[0].set_ylabel("return per episode")
    for panel, (name, limit) in zip(axes[1:], cost_limits.items(), strict=True):
        panel.set_ylabel(f"cost per episode,\n{name}" if len(cost_limits) > 1 else "cost per episode")
        panel.legend(handles=[_limit(panel, x, f"limit {x:g}", "0.2") for x in np.atleast_1d(limit)], **_LEGEND)
    if runs:
        axes[0].legend(**_LEGEND)
    if not any(steps.size for steps, _, _ in bands.values()):
        _say_empty(axes[0])
    return figure


def _band(seeds: list[Rows], key: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return env-steps, mean over seeds and half width of its interval, shape (points,) each, maybe of no point."""
    curves = [curve for curve in (_known(rows, key) for rows in seeds) if curve[0].size]
    begin = max((steps[0] for steps, _ in curves), default=1.0)
    end = min((steps[-1] for steps, _ in curves), default=0.0)
    if begin > end:
        return np.empty(0), np.empty(0), np.empty(0)
    grid = np.linspace(begin, end, _GRID_POINTS)
    resampled = np.stack([np.interp(grid, steps, values) for steps, values in curves])
    mean, half_width = np.array([interval(column) for column in resampled.T]).T
    return grid, mean, half_width


def _known(rows: Rows, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the env-steps and values of the rows that have a finite value."""
    values = _series(rows, key)
    finite = np.isfinite(values)
    return _steps(rows)[finite], values[finite]


def _steps(rows: Rows) -> np.ndarray:
    return np.array([row["env_steps"] for row in rows], dtype=float)


def _series(rows: Rows, key: str) -> np.ndarray:
    return np.array([row.get(key) for row in rows], dtype=float)  # None becomes NaN


def _names(rows: Rows, prefix: str, first: Iterable[str] = ()) -> list[str]:
    """Return `first` and then the other constraints that the rows name after `prefix`."""
    found = (key.removeprefix(prefix) for row in rows for key in row if key.startswith(prefix))
    return list(dict.fromkeys([*first, *found]))


def _panels(heights: Sequence[float], title: str) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(6.4, 1.0 + 0.75 * sum(heights)), layout="constrained")
    axes = figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)[:, 0].tolist()
    for panel in axes:
        panel.grid(color="0.9", linewidth=0.8)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=9)
    axes[-1].set_xlabel("env-steps")
    axes[-1].xaxis.set_major_formatter(EngFormatter(sep=""))
    figure.suptitle(title, fontsize=12)
    figure.align_ylabels(axes)
    return figure, axes


def _line(panel: Axes, rows: Rows, key: str, **style: Any) -> None:
    marker = "." if len(rows) <= _FEW else ""
    panel.plot(_steps(rows), _series(rows, key), linewidth=1.4, marker=marker, **style)


def _limit(panel: Axes, limit: float, label: str, colour: str) -> Line2D:
    return panel.axhline(limit, color=colour, linestyle="--", linewidth=1.2, label=label)


def _say_empty(panel: Axes) -> None:
    panel.text(0.5, 0.5, "no finished episode yet", transform=panel.transAxes, ha="center", va="center", color="0.4")
    panel.set(xticks=[], yticks=[])


def _save(figure: Figure, path: str | Path) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
