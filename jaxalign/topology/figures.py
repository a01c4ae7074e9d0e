"""Pictures of the topology study: mean inference distances, advantage of the tree, bounds, autoencoding."""

from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxalign.core.errors import UserError
from jaxalign.topology.autoencoder import Autoencoded
from jaxalign.topology.bounds import bound
from jaxalign.topology.comparisons import Chain
from jaxalign.topology.report import READ_OUTS, Group, Results, Series, advantage, groups, growth, regime, scaled, trees
from jaxalign.topology.slopes import hop_cost
from jaxalign.track import interval, replacing

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe-Ito
_TITLES = {"best_path": "best single path (the paper's distance)", "exact": "exact inference (all paths)"}


def mean_distances(results: Results, path: str | Path) -> None:
    """MID without its common fall against log n: a column per structural function, a row per read-out.

    The chain rises where it has to pay for every hop; a tree that does not is flat.
    """
    shown = groups(results)
    figure, panels = _grid(
        len(shown), "What is left of the reward's variance, over F(n): a flat line falls like F(n), a rising one slower"
    )
    for column, (group, of) in zip(panels.T, shown.items(), strict=True):
        for axes, read_out in zip(column, READ_OUTS, strict=True):
            for colour, (topology, series) in zip(np.resize(COLOURS, len(of)), of.items(), strict=True):
                _band(axes, series.sizes, scaled(group, series, read_out), colour, str(topology))
            if read_out == "best_path" and Chain() in of and _is_percolation(group):
                _prediction(axes, group, of[Chain()])
            axes.set_ylabel(f"{'MID' if read_out == 'best_path' else 'posterior variance'} / F(n)")
            _title(axes, group, read_out)
    panels[0, 0].legend(fontsize=8, frameon=False)
    _save(figure, path)


def advantages(results: Results, path: str | Path) -> None:
    """MID of the chain over that of every tree against log n, with fitted slopes; above 1 the tree is better.

    Raises:
        UserError: no tree was measured at the sizes of a chain.
    """
    shown = {group: list(trees(of)) for group, of in groups(results).items() if any(trees(of))}
    if not shown:
        raise UserError("No tree was measured beside a chain, so there is nothing to compare; measure both.")
    figure, panels = _grid(len(shown), "Chain over tree: above 1 the tree leaves less variance, below 1 the chain")
    for column, (group, pairs) in zip(panels.T, shown.items(), strict=True):
        for axes, read_out in zip(column, READ_OUTS, strict=True):
            axes.axhline(1.0, color="0.4", lw=1.0)
            for colour, (chain, topology, tree) in zip(np.resize(COLOURS[1:], len(pairs)), pairs, strict=True):
                slope = f"; slope {growth(chain, tree, read_out)}" if len(tree.sizes) > 1 else ""
                _band(axes, tree.sizes, advantage(chain, tree, read_out), colour, f"{topology}{slope}")
            axes.set_ylabel("MID chain / MID tree")
            axes.set_ylim(0, None)
            axes.legend(fontsize=7, frameon=False)
            _title(axes, group, read_out)
    _save(figure, path)


def against_bounds(results: Results, path: str | Path) -> None:
    """Measured over the bound of table 2 against n: constant where its order is right, falling where loose."""
    shown = groups(results)
    figure, panels = _grid(
        len(shown), "Measured over the upper bound of table 2, which has no constants: flat where its order is right"
    )
    for column, (group, of) in zip(panels.T, shown.items(), strict=True):
        for axes, read_out in zip(column, READ_OUTS, strict=True):
            for colour, (topology, series) in zip(np.resize(COLOURS, len(of)), of.items(), strict=True):
                name = "chain" if topology == Chain() else "tree"
                upper = bound(group.structural, name, regime(group))
                label = f"{topology}: {upper}" if read_out == "best_path" else str(topology)
                _band(axes, series.sizes, series.of(read_out) / upper(series.sizes)[:, None], colour, label)
            axes.set_yscale("log")
            axes.set_ylabel("measured / bound")
            axes.legend(fontsize=6, frameon=False)
            _title(axes, group, read_out)
    _save(figure, path)


def autoencoding(outcome: Autoencoded, path: str | Path) -> None:
    """Convergence of p_LM to p_H with comparisons, the premise of theorem 3.1, and the error bound, all samples."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    n = outcome.comparisons
    _band(left, n, outcome.total_variation, COLOURS[0], f"slope {outcome.convergence}")
    reference = outcome.total_variation.mean(1)[-1] * (n / n[-1]) ** -0.5
    left.plot(n, reference, color="0.4", ls="--", label="slope -1/2")
    left.set(ylabel="total variation of p_LM from p_H", title="RLHF as autoencoding: the text distribution returns")
    _band(middle, n, outcome.variance, COLOURS[1], "sup Var[r_RM(y1) | r_RM(y2)]")
    middle.set(ylabel="variance", title="premise of theorem 3.1: it vanishes")
    share = outcome.error / outcome.bound[..., None]
    for quantile, style in ((0.5, ":"), (0.95, "--"), (1.0, "-")):
        values = np.quantile(share.reshape(len(n), -1), quantile, axis=1)
        label = "largest" if quantile == 1 else f"{100 * quantile:g} %"
        right.plot(n, values, style, color=COLOURS[2], label=f"{label} of {share[0].size} responses")
    right.axhline(1.0, color="k", lw=1.2, label="bound")
    right.set(ylabel="|p_LM - p_H| / bound", title="error propagation, response by response")
    for axes in (left, middle, right):
        axes.set(xscale="log", yscale="log", xlabel="comparisons n")
        axes.legend(fontsize=8, frameon=False)
        axes.title.set_fontsize(10)
        _frame(axes)
    _save(figure, path)


def _is_percolation(group: Group) -> bool:
    return group.structural.family == "polynomial" and group.noise == "0"


def _prediction(axes: Axes, group: Group, chain: Series) -> None:
    """The slope of first-passage percolation, through the chain's last point."""
    rise = hop_cost(group.structural.alpha) * (chain.log_sizes - chain.log_sizes[-1])
    level = scaled(group, chain, "best_path")[-1].mean()
    axes.plot(chain.sizes, level + rise, color="0.3", ls="--", lw=1, label="slope predicted for the chain")


def _grid(columns: int, title: str) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(1.0 + 4.4 * columns, 7.6), layout="constrained")
    figure.suptitle(title, wrap=True)
    panels = figure.subplots(2, columns, squeeze=False)
    for axes in panels.flat:
        axes.set_xscale("log", base=2)
        axes.set_xlabel("comparisons n")
        _frame(axes)
    return figure, panels


def _title(axes: Axes, group: Group, read_out: str) -> None:
    axes.set_title(f"{group}\n{_TITLES[read_out]}", fontsize=9)


def _band(axes: Axes, sizes: np.ndarray, values: Float[np.ndarray, "sizes seeds"], colour: str, label: str) -> None:
    """Mean over seeds with its 95 % interval."""
    mean, half = np.array([interval(row) for row in values]).T
    axes.plot(sizes, mean, "o-", ms=3.5, lw=1.5, color=colour, label=label)
    if values.shape[1] > 1:
        axes.fill_between(sizes, mean - half, mean + half, color=colour, alpha=0.2, lw=0)


def _frame(axes: Axes) -> None:
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: str | Path) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
