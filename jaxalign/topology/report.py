"""Tables of a Monte Carlo study, and what they say in words."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxalign.core.errors import UserError
from jaxalign.topology.bounds import bound, proposition
from jaxalign.topology.comparisons import Chain, Tree
from jaxalign.topology.monte_carlo import NOISES, Cell, Measured
from jaxalign.topology.slopes import Slope, fit_slope, hop_cost
from jaxalign.topology.structural import Structural
from jaxalign.track import interval

Results = Mapping[Cell, Measured]
READ_OUTS = ("best_path", "exact")


class Group(NamedTuple):
    """What is compared across topologies and sizes: a structural function and a noise law."""

    structural: Structural
    noise: str

    def __str__(self):
        return f"F = {self.structural}, comparison variance {self.noise}"


class Series(NamedTuple):
    """MID of one topology of a group by size and seed.

    Attributes:
        sizes: n, increasing, shape (sizes,).
        best_path: shape (sizes, seeds).
        exact: shape (sizes, seeds).
    """

    sizes: np.ndarray
    best_path: np.ndarray
    exact: np.ndarray

    @property
    def log_sizes(self) -> Float[np.ndarray, " sizes"]:
        """Natural logarithm of the sizes."""
        return np.log(self.sizes)

    def of(self, read_out: str) -> Float[np.ndarray, "sizes seeds"]:
        """By the name of a read-out."""
        return getattr(self, read_out)


def groups(results: Results) -> dict[Group, dict[Chain | Tree, Series]]:
    """The results in order: group, topology, series over the sizes and seeds that it has in full.

    Raises:
        UserError: there are no results.
    """
    if not results:
        raise UserError("There are no results to report; measure some cells first.")
    found: dict[Group, dict[Chain | Tree, dict[int, dict[int, Measured]]]] = {}
    for cell, measured in results.items():
        sizes = found.setdefault(Group(cell.structural, cell.noise), {}).setdefault(cell.topology, {})
        sizes.setdefault(cell.comparisons, {})[cell.seed] = measured
    return {group: {top: _series(sizes) for top, sizes in of.items()} for group, of in found.items()}


def _series(sizes: Mapping[int, Mapping[int, Measured]]) -> Series:
    common = sorted(set.intersection(*(set(seeds) for seeds in sizes.values())))
    values = np.array([[sizes[n][seed] for seed in common] for n in sorted(sizes)]).reshape(len(sizes), len(common), 2)
    return Series(np.array(sorted(sizes)), values[..., 0], values[..., 1])


def scaled(group: Group, series: Series, read_out: str) -> Float[np.ndarray, "sizes seeds"]:
    """MID without the fall that every topology shares: n^alpha MID / I, and MID / F(n) in other families."""
    return series.of(read_out) / group.structural(series.sizes)[:, None]


def advantage(chain: Series, tree: Series, read_out: str) -> Float[np.ndarray, "sizes seeds"]:
    """MID of the chain over that of the tree, seed by seed (they share their queries); above 1 the tree is better."""
    both = min(chain.of(read_out).shape[1], tree.of(read_out).shape[1])
    return chain.of(read_out)[:, :both] / tree.of(read_out)[:, :both]


def trees(of: Mapping[Chain | Tree, Series]) -> Iterator[tuple[Series, Tree, Series]]:
    """The chain beside every tree that was measured at the same sizes: series of the chain, tree, its series."""
    chain = of.get(Chain())
    for topology, series in of.items():
        if chain is not None and isinstance(topology, Tree) and series.sizes.tolist() == chain.sizes.tolist():
            yield chain, topology, series


def growth(chain: Series, tree: Series, read_out: str) -> Slope:
    """Slope of the advantage against log n."""
    return fit_slope(chain.log_sizes, advantage(chain, tree, read_out))


def tables(results: Results) -> str:
    """All tables as text: a heading and a table for every group, then one of slopes."""
    parts = [_group_table(group, of, read) for group, of in groups(results).items() for read in READ_OUTS]
    said = f"Chain against tree, 95 % intervals\n{layout(verdicts(results))}\n{summary(results)}"
    return "\n\n".join([*parts, _slope_table(results), _bound_table(results), said])


def _group_table(group: Group, of: Mapping[Chain | Tree, Series], read_out: str) -> str:
    sizes = sorted({int(n) for series in of.values() for n in series.sizes})
    rows = [(_scale_name(group, read_out), *(f"n = 2^{np.log2(n):g}" for n in sizes))]

    def add(name: str, series: Series, values: Float[np.ndarray, "sizes seeds"]) -> None:
        at = dict(zip(series.sizes.tolist(), values, strict=True))
        rows.append((name, *(_mean(at[n]) if n in at else "-" for n in sizes)))

    for topology, series in of.items():
        add(str(topology), series, scaled(group, series, read_out))
    for chain, topology, series in trees(of):
        add(f"chain / {topology}", series, advantage(chain, series, read_out))
    return f"{group}; {_WORDS[read_out]}\n{layout(rows)}"


def _slope_table(results: Results) -> str:
    """Fitted slopes beside what is predicted."""
    heading = "slope against log n, 95 % interval", "log MID, best path", "log MID, exact", "bound"
    rows: list[tuple[str, ...]] = [(*heading, "n^a MID, best path", "predicted")]
    for group, of in groups(results).items():
        for topology, series in of.items():
            if len(series.sizes) < 2:
                continue
            x, poly = series.log_sizes, group.structural.family == "polynomial"
            fits = [str(fit_slope(x, series.of(read_out), np.log)) for read_out in READ_OUTS]
            linear = str(fit_slope(x, scaled(group, series, "best_path"))) if poly and group.noise == "0" else "-"
            predicted = topology == Chain() and poly and group.noise == "0"
            rows.append((f"{group.structural}, {group.noise}: {topology}", *fits, _bound_slope(group), linear,
                         f"{hop_cost(group.structural.alpha):.3f}" if predicted else "-"))  # fmt: skip
    return (
        "Slopes; the bound's is that of its power of n (regime B for a constant variance of comparisons, else A)\n"
        + layout(rows)
    )


def _bound_slope(group: Group) -> str:
    if group.structural.family != "polynomial":
        return "0"
    return f"{bound(group.structural, 'chain', regime(group)).order.n:.3f}"


def _bound_table(results: Results) -> str:
    """Best path over bound by size: constant, if the bound has the right order."""
    rows = [("MID / bound", "bound", "read-out", "smallest n", "largest n", "MID / proposition at the largest n")]
    for group, of in groups(results).items():
        for topology, series in of.items():
            name = "chain" if topology == Chain() else "tree"
            upper = bound(group.structural, name, regime(group))
            for read_out in READ_OUTS:
                mean = series.of(read_out).mean(1)
                ratio = mean / upper(series.sizes)
                n, gamma = int(series.sizes[-1]), getattr(topology, "gamma", 2.0)
                noise = NOISES[group.noise](n, group.structural.alpha)
                sharp = proposition(group.structural, name, n, gamma, noise)
                rows.append((f"{group.structural}, {group.noise}: {topology}", str(upper), read_out,
                             f"{ratio[0]:.3f}", f"{ratio[-1]:.3f}", f"{mean[-1] / sharp:.3f}"))  # fmt: skip
    return "Measured over the bounds of table 2 (no constants) and of propositions B.17, B.20\n" + layout(rows)


def verdicts(results: Results) -> list[tuple[str, ...]]:
    """Whether chain or tree is better at the largest n, and whether that changes with n: a table, its heading first."""
    rows = [
        ("F, comparison variance", "tree", "read-out", "chain / tree at largest n", "its slope against log n", "better")
    ]
    for group, of in groups(results).items():
        for chain, topology, series in trees(of):
            for read_out in READ_OUTS:
                ratios = advantage(chain, series, read_out)[-1]
                slope = str(growth(chain, series, read_out)) if len(chain.sizes) > 1 else "-"
                where = f"{group.structural}, {group.noise}", str(topology).removeprefix("tree, "), _WORDS[read_out]
                rows.append((*where, _mean(ratios), slope, better(ratios)))
    return rows


def better(ratios: Float[np.ndarray, " seeds"]) -> str:
    """The topology whose MID is smaller, if the 95 % interval of chain over tree leaves no doubt."""
    mean, half = interval(ratios)
    if mean - half > 1:
        return "tree"
    return "chain" if mean + half < 1 else "undecided"


def summary(results: Results) -> str:
    """The verdicts counted, a sentence per read-out."""
    rows, sentences = verdicts(results)[1:], []
    for read_out in READ_OUTS:
        said = [row[-1] for row in rows if row[2] == _WORDS[read_out]]
        count = {name: said.count(name) for name in ("tree", "chain", "undecided")}
        sentences.append(
            f"By {_WORDS[read_out]} the tree is better in {count['tree']} of {len(said)} cases at the largest n, the "
            f"chain in {count['chain']}; {count['undecided']} are undecided."
        )
    return "\n".join(sentences)


_WORDS = {"best_path": "best path", "exact": "exact inference"}


def regime(group: Group) -> str:
    """Of the bounds: B if a comparison has a constant variance while that of the inductive bias vanishes, else A."""
    return "B" if group.noise in ("1", "10") else "A"


def _scale_name(group: Group, read_out: str) -> str:
    value = "MID" if read_out == "best_path" else "variance"
    if group.structural.family != "polynomial":
        return f"{value} / F(n)"
    return f"{value} n^{group.structural.alpha:g}" + ("" if group.structural.scale == 1 else " / I")


def _mean(values: Iterable[float]) -> str:
    mean, half = interval(np.fromiter(values, float))
    return f"{mean:.2f}" if np.isnan(half) else f"{mean:.2f} +- {half:.2f}"


def layout(rows: Sequence[Sequence[str]]) -> str:
    """A table as text: columns aligned, the first to the left, a rule under the heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:{'<' if k == 0 else '>'}{widths[k]}}" for k, cell in enumerate(row)) for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
