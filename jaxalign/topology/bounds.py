"""The paper's upper bounds on the mean inference distance, as formulas that print and as functions of n.

`bound` is table 2 (theorem 4.5), orders of magnitude without constants. `proposition` is what the table is derived from
(propositions B.17 and B.20), minimised over the number of clusters for a given n. Source: arXiv 2402.10184. They are
upper bounds: the paper proves no lower ones, so a ratio of bounds is no proof of a difference.
"""

from typing import NamedTuple

import numpy as np

from jaxalign.core.errors import UserError
from jaxalign.topology.structural import FAMILIES, Numbers, Structural


class Order(NamedTuple):
    """The order of magnitude I^scale n^n (log n)^log (log log n)^loglog: its four exponents."""

    scale: float = 0.0
    n: float = 0.0
    log: float = 0.0
    loglog: float = 0.0

    def __call__(self, n: Numbers, scale: float = 1.0) -> np.ndarray:
        """Its value at n > e, any shape, for I = scale."""
        n = np.asarray(n, float)
        log = np.log(n)
        return np.asarray(scale**self.scale * n**self.n * log**self.log * np.log(log) ** self.loglog)

    def over(self, other: "Order") -> "Order":
        """The quotient of two orders."""
        return Order(*(a - b for a, b in zip(self, other, strict=True)))

    def growth(self) -> int:
        """1 if it grows with n without limit, -1 if it vanishes, 0 if it depends on I alone."""
        deciding = next((exponent for exponent in self[1:] if abs(exponent) > 1e-12), 0.0)
        return int(np.sign(deciding))

    def __str__(self):
        names = ("I", "n", "log n", "log log n")
        above = [_power(name, exponent) for name, exponent in zip(names, self, strict=True) if exponent > 1e-12]
        below = [_power(name, -exponent) for name, exponent in zip(names, self, strict=True) if exponent < -1e-12]
        top = " ".join(above) or "1"
        if not below:
            return top
        return f"{top} / {below[0]}" if len(below) == 1 else f"{top} / ({' '.join(below)})"


class Bound(NamedTuple):
    """A cell of table 2.

    Attributes:
        structural: F.
        order: the bound itself; or, of a sublogarithmic F, the number of clusters at which F is to be taken.
        inside: whether `order` is such a number of clusters.
    """

    structural: Structural
    order: Order
    inside: bool = False

    def __call__(self, n: Numbers) -> np.ndarray:
        """Its value for n comparisons, any shape, up to a constant."""
        value = self.order(n, self.structural.scale)
        return self.structural(np.maximum(np.ceil(value), 1)) if self.inside else value

    def __str__(self):
        return f"F(ceil({self.order}))" if self.inside else str(self.order)


def bound(structural: Structural, topology: str, regime: str, epsilon: float = 0.1) -> Bound:
    """The cell of table 2.

    Args:
        structural: F.
        topology: "chain" or "tree".
        regime: "A", where the variance of the inductive bias dominates that of a comparison, or "B", where both vanish.
        epsilon: any positive number, which only the sublogarithmic cells of regime B contain.

    Raises:
        UserError: an unknown topology or regime, or epsilon not above 0.
    """
    if topology not in ("chain", "tree") or regime not in ("A", "B"):
        raise UserError(f"There is no bound for {topology!r} in regime {regime!r}; choose chain or tree, A or B.")
    if not epsilon > 0:
        raise UserError(f"epsilon is {epsilon:g}; choose a positive number.")
    a = structural.alpha
    if structural.family == "logarithmic":
        return Bound(structural, Order(scale=1, log=-a))
    if structural.family == "sublogarithmic":
        clusters = {"A": Order(n=1 / 2), "B": Order(scale=1 / 2, n=1 / 2, log=-epsilon)}
        return Bound(structural, clusters[regime], inside=True)
    cells = {
        ("chain", "A"): Order(1, -a, 1 + a, -1),
        ("tree", "A"): Order(1, -a, 2 * a),
        ("chain", "B"): Order(2 / (2 + a), -a / (2 + a)),
        ("tree", "B"): Order(2 / (2 + a), -a / (2 + a), 2 * a / (2 + a)),
    }
    return Bound(structural, cells[topology, regime])


def separation(structural: Structural, regime: str) -> Order:
    """The bound for the chain over that for the tree: where it grows, the paper's bound is better for the tree."""
    chain, tree = bound(structural, "chain", regime), bound(structural, "tree", regime)
    return chain.order.over(tree.order)


def proposition(structural: Structural, topology: str, n: int, gamma: float = 2.0, noise: float = 1.0) -> float:
    """The bound for n comparisons before asymptotics, minimised over the number M of clusters (chain) or B (tree).

    Chain: log_{n/M} M (w + F(M)) for 2 M log M <= n <= M^2, and F(M) + w M^2 / n for M <= sqrt n. Tree: the three cases
    of proposition B.20. The paper counts a comparison's variance as 1, here it is w.

    Args:
        structural: F.
        topology: of the comparisons.
        n: at least 16.
        gamma: of the tree.
        noise: w, the variance of a comparison.

    Raises:
        UserError: n below 16, an unknown topology, gamma or noise out of range.
    """
    if n < 16 or not gamma > 0 or not noise >= 0:
        raise UserError(f"n is {n}, gamma {gamma:g}, noise {noise:g}; choose at least 16, above 0, at least 0.")
    if topology not in ("chain", "tree"):
        raise UserError(f"There is no bound for {topology!r}; choose chain or tree.")
    m = np.unique(np.geomspace(2, n, 2000).round())
    log = np.log(m)
    with np.errstate(divide="ignore", invalid="ignore"):
        hops = log / np.log(n / m)
        if topology == "chain":
            few = np.where((2 * m * log <= n) & (n <= m**2), hops * (noise + structural(m)), np.inf)
            many = np.where(m**2 <= n, structural(m) + noise * m**2 / n, np.inf)
            return float(np.minimum(few, many).min())
        ends = structural(np.maximum(m / log, 1))
        few = np.where(
            (3 * m * log <= n) & (n <= m**2), ends + hops * (noise + structural.at_log((1 + gamma) * log)), np.inf
        )
        some = np.where((m**2 * log <= n) & (n <= m**4), ends + noise * m**2 / n, np.inf)
        many = np.where(n >= m**4 * log, ends + noise * m**4 / n, np.inf)
    return float(np.minimum(np.minimum(few, some), many).min())


def table(epsilon: float = 0.1, alpha: float = 0.5, scale: float = 1.0) -> list[tuple[str, str, str, str, str]]:
    """Table 2 in words: family, regime, chain, tree, and chain over tree; a heading first."""
    rows = [("F", "regime", "chain", "tree", "chain / tree")]
    for family in FAMILIES:
        structural = Structural(family, alpha, scale)
        for regime in ("A", "B"):
            chain, tree = (str(bound(structural, topology, regime, epsilon)) for topology in ("chain", "tree"))
            rows.append((str(structural), regime, chain, tree, str(separation(structural, regime))))
    return rows


def _power(name: str, exponent: int | float) -> str:
    if abs(exponent - 1) < 1e-12:
        return name
    return f"({name})^{exponent:.3g}" if " " in name else f"{name}^{exponent:.3g}"
