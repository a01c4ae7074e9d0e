"""Mean inference distances of random sets of comparisons, by both read-outs."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np

from jaxalign.core.errors import UserError
from jaxalign.topology import best_path, exact
from jaxalign.topology.comparisons import Chain, Tree, generator, uniform
from jaxalign.topology.graph import Graph, reduce_graph, stack
from jaxalign.topology.network import Network, induced_network
from jaxalign.topology.structural import Structural

NOISES = {"0": lambda n, alpha: 0.0, "n^-alpha": lambda n, alpha: n**-alpha, "1": lambda n, alpha: 1.0,
          "10": lambda n, alpha: 10.0}  # fmt: skip
"""Laws for the variance of a comparison. "0" is the paper's regime A with I growing without limit."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One random network.

    Attributes:
        structural: F.
        topology: how the compared pairs are chosen.
        comparisons: n.
        noise: variance of a comparison, by a name of `NOISES`.
        queries: Q responses, uniform, whose pairs are averaged over.
        seed: of comparisons and queries; topologies of one size share their queries.

    Raises:
        UserError: numbers that make no sense.
    """

    structural: Structural
    topology: Chain | Tree
    comparisons: int
    noise: str = "0"
    queries: int = 32
    seed: int = 0

    def __post_init__(self):
        if self.comparisons < 2 or self.queries < 2:
            raise UserError(
                f"{self.comparisons} comparisons and {self.queries} queries were asked for; choose at least 2 of both."
            )
        if self.noise not in NOISES:
            raise UserError(f"There is no noise law {self.noise!r}; choose from {', '.join(map(repr, NOISES))}.")
        if isinstance(self.topology, Tree):
            self.topology.shared_bits(self.comparisons)

    @property
    def key(self) -> str:
        """Names the cell, in files too."""
        family = self.structural
        return (
            f"{family.family} alpha={family.alpha:g} I={family.scale:g} | {self.topology} | n={self.comparisons} "
            f"noise={self.noise} Q={self.queries} seed={self.seed}"
        )


class Measured(NamedTuple):
    """MID of one network: by the best path, and the mean posterior variance of exact inference."""

    best_path: float
    exact: float


def draw(cell: Cell) -> Network:
    """The random network of a cell, simplified as far as its distances allow (`graph.reduce_graph`)."""
    pairs = cell.topology(generator(cell.seed, f"{cell.topology} {cell.comparisons}"), cell.comparisons)
    queries = uniform(generator(cell.seed, f"queries {cell.comparisons}"), cell.queries)
    noise = NOISES[cell.noise](cell.comparisons, cell.structural.alpha)
    whole = induced_network(cell.structural, pairs, queries, noise)
    return Network(*reduce_graph(whole.graph, whole.queries))


def measure(cell: Cell) -> Measured:
    """Both read-outs of a cell, on the CPU (SciPy)."""
    graph, queries = draw(cell)
    return Measured(
        float(best_path.mean_distance(best_path.distances(graph, queries))),
        float(best_path.mean_distance(exact.resistances(graph, queries))),
    )


def measure_on_device(cells: list[Cell]) -> list[Measured]:
    """Both read-outs of cells as one batch in JAX; for accelerators.

    Raises:
        UserError: no cells, or cells with different numbers of queries.
    """
    if len({cell.queries for cell in cells}) != 1:
        raise UserError(f"A batch of {len(cells)} cells needs one number of queries for all; split it.")
    networks = [draw(cell) for cell in cells]
    graphs: Graph = stack([network.graph for network in networks])
    queries = np.stack([network.queries for network in networks])
    paths = best_path.mean_distance(best_path.distances_on_device(graphs, queries))
    resistances = best_path.mean_distance(exact.resistances_on_device(graphs, queries))
    return [Measured(float(a), float(b)) for a, b in zip(paths, resistances, strict=True)]


def sweep(
    cells: Iterable[Cell], workers: int = 1, function: Callable[[Cell], Measured] = measure
) -> Iterator[tuple[Cell, Measured]]:
    """Measures cells one after the other, or several at once in processes of their own; in their order.

    Raises:
        UserError: less than one worker.
    """
    cells = list(cells)
    if workers < 1:
        raise UserError(f"{workers} workers were asked for; choose 1 or more.")
    if workers == 1:
        yield from zip(cells, map(function, cells))
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from zip(cells, pool.map(function, cells))
