"""The result of an evaluation as a plain text table."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student_t


def interval(x: ArrayLike) -> tuple[float, float]:
    """Estimate a mean with its 95 % confidence interval, after Student.

    Args:
        x: the independent values, any shape.

    Returns:
        The mean and the half width of the interval, in the unit of `x`; the half width of fewer than two values is NaN,
        and so is the mean of none.
    """
    x = np.asarray(x, dtype=float).ravel()
    mean = float(x.mean()) if x.size else float("nan")
    if x.size < 2:
        return mean, float("nan")
    return mean, float(student_t.ppf(0.975, x.size - 1) * x.std(ddof=1) / np.sqrt(x.size))


def evaluation_table(returns: ArrayLike, costs: Mapping[str, ArrayLike], limits: Mapping[str, float]) -> str:
    """Lay out return and costs per episode, and whether each cost meets its limit.

    A verdict is "met" if the mean cost is at most the limit. It is "(certain)" if the 95 % interval lies on one side of
    the limit and "(within error)" otherwise.

    Args:
        returns: the return of each episode, shape (episodes,).
        costs: for each constraint the cost of each episode, shape (episodes,).
        limits: the limit of the cost per episode of each constraint.

    Raises:
        ValueError: there is no episode, or `costs` and `limits` name different constraints.
    """
    if np.size(returns) == 0:
        raise ValueError("cannot tabulate an evaluation without finished episodes: evaluate for more steps")
    if costs.keys() != limits.keys():
        raise ValueError(
            f"costs are of {sorted(costs)} but limits of {sorted(limits)}: name the same constraints in both"
        )
    rows = [("", "mean", "95 % interval", "limit", "met?"), ("return", *_estimate(*interval(returns)), "-", "-")]
    for name, limit in limits.items():
        mean, half_width = interval(costs[name])
        label = name if name.startswith("cost") else f"cost {name}"
        rows.append((label, *_estimate(mean, half_width), f"{limit:.2f}", _verdict(mean, half_width, limit)))
    return _layout(rows)


def comparison_table(
    groups: Mapping[str, Sequence[Mapping[str, Any] | None]], limits: Mapping[str, Mapping[str, float]]
) -> str:
    """Lay out return and costs of several groups of runs, each a mean with its 95 % interval.

    The interval is over the means of the seeds if there are several, else over the episodes of the one.

    Args:
        groups: for each label and seed the evaluation ``{"return": [...], "cost": {name: [...]}}``, one number per
            episode; None if there is none.
        limits: for each label the limit of the cost per episode of each constraint.
    """
    rows = [("", "seeds", "return", "95 % interval", "cost", "95 % interval", "limit", "met?")]
    for label, seeds in groups.items():
        found = [seed for seed in seeds if seed is not None]
        head = (label, str(len(found)))
        for name, limit in limits[label].items():
            if not found:
                rows.append((*head, "-", "-", "-", "-", f"{limit:.2f}", "not evaluated"))
                continue
            returns = _estimate(*_interval_over_seeds([seed["return"] for seed in found]))
            cost = _interval_over_seeds([seed["cost"][name] for seed in found])
            title = label if len(limits[label]) == 1 else f"{label}: {name}"
            rows.append((title, head[1], *returns, *_estimate(*cost), f"{limit:.2f}", _verdict(*cost, limit)))
    return _layout(rows)


def _interval_over_seeds(seeds: Sequence[ArrayLike]) -> tuple[float, float]:
    return interval([interval(seed)[0] for seed in seeds] if len(seeds) > 1 else seeds[0])


def _estimate(mean: float, half_width: float) -> tuple[str, str]:
    bounds = "-" if np.isnan(half_width) else f"[{mean - half_width:.2f}, {mean + half_width:.2f}]"
    return f"{mean:.2f}", bounds


def _verdict(mean: float, half_width: float, limit: float) -> str:
    certain = mean + half_width <= limit or mean - half_width > limit
    return f"{'met' if mean <= limit else 'not met'} ({'certain' if certain else 'within error'})"


def _layout(rows: list[tuple[str, ...]]) -> str:
    """Align the first and last column left and the numbers between them right, and rule off the heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligns = ["<"] + [">"] * (len(widths) - 2) + ["<"]
    lines = [
        "  ".join(f"{cell:{align}{width}}" for cell, align, width in zip(row, aligns, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
