"""The whole experiment as one frozen value."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

from jaxalign.core.errors import UserError
from jaxalign.topology import Chain, Structural, Tree
from jaxalign.topology.monte_carlo import Cell

POLYNOMIAL = (0.25, 0.5, 0.9)
_SMALLER = 3  # the arms besides the first stop so many powers of 2 earlier


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes:
        arms: parts of the study, names in `ARMS`.
        smallest: exponent of 2 of the fewest comparisons.
        largest: of the most; only the arm "separation" goes so far, the others stop at an eighth.
        seeds: random networks per cell.
        queries: responses whose distances are averaged, per network.
        responses: |Y| of the macro view.
        worlds: samples per size of the macro view.
        workers: processes that share the cells.
        out: where results, tables and figures go.
    """

    arms: tuple[str, ...] = ("separation", "gamma", "noise", "families")
    smallest: int = 8
    largest: int = 17
    seeds: int = 10
    queries: int = 32
    responses: int = 64
    worlds: int = 20
    workers: int = 2
    out: Path = Path("runs/ibn")

    def __post_init__(self):
        unknown = [arm for arm in self.arms if arm not in ARMS]
        if unknown or not self.arms:
            raise UserError(f"There is no arm {unknown[:1] or self.arms}; choose from {', '.join(ARMS)}.")
        if not 4 <= self.smallest < self.largest <= 20:
            raise UserError(
                f"Sizes go from 2^{self.smallest} to 2^{self.largest}; choose exponents from 4 to 20, the lower first."
            )
        if self.seeds < 2 or self.worlds < 2 or self.workers < 1:
            raise UserError(
                f"seeds is {self.seeds}, worlds {self.worlds}, workers {self.workers}; choose at least 2, 2 and 1."
            )

        for arm in self.arms:
            self.cells(arm)  # which refuses a gamma that is too large for the largest n

    def cells(self, arm: str) -> list[Cell]:
        """Of an arm, small networks first."""
        smaller = max(self.smallest + 1, self.largest - _SMALLER)
        largest = self.largest if arm == "separation" else smaller
        return [
            Cell(structural, shape, 2**exponent, noise, self.queries, seed)
            for exponent in range(self.smallest, largest + 1)
            for structural, shape, noise in ARMS[arm]()
            for seed in range(self.seeds)
        ]


def _separation() -> Iterator[tuple[Structural, Chain | Tree, str]]:
    """Exact comparisons, the paper's regime A with I growing without limit; every number of subtrees."""
    for alpha in POLYNOMIAL:
        for shape in (Chain(), Tree("n/2", 2.0), Tree("n/(3 log n)", 2.0), Tree("sqrt n", 2.0)):
            yield Structural("polynomial", alpha), shape, "0"


def _gamma() -> Iterator[tuple[Structural, Chain | Tree, str]]:
    """How close the leaves of a subtree must be."""
    for alpha in (0.25, 0.5):
        for shape in (Chain(), *(Tree("n/2", gamma) for gamma in (0.5, 1.0, 2.0, 3.0))):
            yield Structural("polynomial", alpha), shape, "0"


def _noise() -> Iterator[tuple[Structural, Chain | Tree, str]]:
    """Noisy comparisons; constant noise and I = 1 are regime B, where the paper's bound favours the chain."""
    for alpha in POLYNOMIAL:
        for noise in ("n^-alpha", "1", "10"):
            for shape in (Chain(), Tree("n/2", 2.0), Tree("n/(3 log n)", 2.0), Tree("sqrt n", 2.0)):
                yield Structural("polynomial", alpha), shape, noise


def _families() -> Iterator[tuple[Structural, Chain | Tree, str]]:
    """The other structural functions, for which the paper's bounds are the same for both topologies."""
    for family in ("logarithmic", "sublogarithmic"):
        for alpha in (0.5, 1.0, 2.0):
            for shape in (Chain(), Tree("n/2", 2.0), Tree("n/(3 log n)", 2.0)):
                yield Structural(family, alpha), shape, "0"


ARMS: dict[str, Callable[[], Iterator[tuple[Structural, Chain | Tree, str]]]] = {
    "separation": _separation,
    "gamma": _gamma,
    "noise": _noise,
    "families": _families,
}
"""Parts of the study: structural function, topology and noise of its cells."""
