"""Pictures of the compression protocol and of the exact theory."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxalign.elasticity import theory
from jaxalign.elasticity.coding import Depth
from jaxalign.track import replacing

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe-Ito
_LEAVES = 16  # of each source
_STEP = 1e-4  # in l, of central differences


def compression(depths: Sequence[Depth], lines: Mapping[str, float], path: str | Path) -> None:
    """Huffman codes by the depth of the pruned tree, among other compressors as lines; bits per byte of one text."""
    figure = Figure(figsize=(8.6, 4.4), layout="constrained")
    axes = figure.subplots()
    at = [row.depth for row in depths]
    axes.plot(at, [row.entropy for row in depths], ":", color="0.4", label="entropy of the pruned tree")
    axes.plot(at, [row.words for row in depths], "o-", color=_COLOURS[0], label="Huffman code of its leaves")
    axes.plot(at, [row.two_part for row in depths], "s--", color=_COLOURS[0], label="the same with its code book")
    for i, (name, value) in enumerate(lines.items()):
        axes.axhline(value, color=(*_COLOURS[1:], "0.2")[i % 6], linewidth=1.3, label=f"{name}: {value:.3f}")
    axes.set(xlabel="depth of the pruned token tree, bits", ylabel="bits per byte", ylim=(0, None), xticks=at)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _frame(axes, "A deeper tree needs fewer bits for the text, and more for itself")
    save(figure, path)


def theorem(path: str | Path) -> None:
    """The exact theory in four panels: the factor -k, the sign change, disjoint sets, and the balance of forces.

    Lines are closed forms, dots central differences of the rates of explicit leaf distributions.
    """
    figure = Figure(figsize=(10.5, 8.0), layout="constrained")
    panels = figure.subplots(2, 2)
    with jax.enable_x64(True):
        _factor(panels[0, 0])
        _sign(panels[0, 1])
        _supports(panels[1, 0])
        _forces(panels[1, 1])
    figure.suptitle("Elasticity of a fitted mixture: k parts pre-training, 1 part alignment, l parts perturbation")
    save(figure, path)


def _sources(name: str) -> np.ndarray:
    """Three leaf distributions of one shape."""
    rank = np.arange(1, _LEAVES + 1)
    weights = {
        "Pareto": theory.pareto(_LEAVES, 1.2),
        "uniform": np.ones(_LEAVES),
        "geometric": 0.6**rank,
    }[name]
    return np.tile(weights / weights.sum(), (3, 1))


def _differences(sets: theory.Sets, k: float | int, l: float) -> tuple[float, float]:
    """Of the rates of alignment and pre-training set, by l."""
    high, low = (theory.rates(sets, k, l + sign * _STEP) for sign in (1, -1))
    return tuple(float(a - b) / (2 * _STEP) for a, b in zip(high, low))  # pyright: ignore[reportReturnType]


def _factor(axes: Axes) -> None:
    """Sizes of both derivatives at l near 0, by k."""
    sizes, l = np.geomspace(1, 1000, 60), 2 * _STEP
    exact = theory.theorem(sizes, l)
    axes.loglog(sizes, exact.alignment, color=_COLOURS[1], label=r"alignment, $+\gamma_a'$")
    axes.loglog(sizes, -np.asarray(exact.pretraining), color=_COLOURS[0], label=r"pre-training, $-\gamma_p'$")
    for marker, name in zip("osx", ("Pareto", "uniform", "geometric")):
        sets = theory.subpopulations(_sources(name))
        found = np.array([_differences(sets, k, l) for k in (1, 10, 100, 1000)])
        label = f"differences, {name} leaves"
        axes.loglog((1, 10, 100, 1000), found[:, 0], marker, color="k", fillstyle="none", label=label)
        axes.loglog((1, 10, 100, 1000), -found[:, 1], marker, color="k", fillstyle="none")
    axes.set(xlabel="k = pre-training / alignment", ylabel="change of rate by l, at l = 0")
    axes.legend(fontsize=8)
    _frame(axes, r"$\gamma_a' = -k\,\gamma_p'$, whatever the shape")


def _sign(axes: Axes) -> None:
    """The pre-training set's derivative, relative to its size at l = 0."""
    l = np.linspace(0, 1, 101)
    for colour, k in zip(_COLOURS, (1, 10, 100)):
        value = np.asarray(theory.theorem(k, l).pretraining)
        axes.plot(l, value / -value[0], color=colour, label=f"k = {k}")
        sets = theory.subpopulations(_sources("Pareto"))
        found = np.array([_differences(sets, k, x)[1] for x in l[10::20]])
        axes.plot(l[10::20], found / -value[0], "o", color=colour, fillstyle="none")
    axes.axhline(0, color="0.6", linewidth=1)
    axes.axvline(0.5, color="0.6", linewidth=1, linestyle=":")
    axes.set(xlabel="l = perturbation / alignment", ylabel=r"$\gamma_p'$ in units of $|\gamma_p'(0)|$")
    axes.legend(fontsize=8)
    _frame(axes, "At l = 1/2 the pre-training set begins to lose too")


def _supports(axes: Axes) -> None:
    """Rates by l, of sub-populations and of disjoint sets."""
    k, l = 10, np.linspace(0, 0.2, 21)
    for style, name, sets in (
        ("-", "inside pre-training", theory.subpopulations(_sources("Pareto"))),
        ("--", "disjoint", theory.disjoint_sets(_sources("Pareto"))),
    ):
        moved = np.array([theory.rates(sets, k, x) for x in l])
        for i, (what, colour) in enumerate((("alignment", _COLOURS[1]), ("pre-training", _COLOURS[0]))):
            axes.plot(l, 1e3 * (moved[:, i] - moved[0, i]), style, color=colour, label=f"{what}; {name}")
    axes.set(xlabel="l = perturbation / alignment", ylabel="rise of the rate, milli-nats")
    axes.legend(fontsize=8)
    _frame(axes, f"k = {k}: without shared leaves both sets lose alike (ratio +1)")


def _forces(axes: Axes) -> None:
    """Size times change of rate, by l."""
    k, l = 10, np.linspace(0, 1, 51)
    sets = theory.subpopulations(_sources("Pareto"))
    forces = np.array([theory.balance(sets, k, x) for x in l])
    names = (r"pre-training, $k\,\gamma_p'$", r"alignment, $\gamma_a'$", r"perturbation, $l\,\gamma_t'$")
    for name, colour, force in zip(names, (_COLOURS[0], _COLOURS[1], _COLOURS[2]), forces.T):
        axes.plot(l, force, color=colour, label=name)
    axes.plot(l, forces.sum(axis=1), "k:", label="sum")
    axes.set(xlabel="l = perturbation / alignment", ylabel="size times change of rate")
    axes.legend(fontsize=8)
    _frame(axes, f"k = {k}: forces of springs in series balance at every l")


def _frame(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, path: str | Path) -> None:
    """Writes a PNG atomically; missing folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
