"""Graphs whose edges carry variances, as padded arrays; what may be simplified without changing any distance.

An edge of infinite variance says nothing, so it is the padding: it is in no shortest path and conducts nothing.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from jaxalign.core.errors import UserError

Ends = Int[np.ndarray, "*batch E 2"]
Variances = Float[np.ndarray, "*batch E"]


class Graph(NamedTuple):
    """Undirected; parallel edges are allowed.

    Attributes:
        ends: nodes of every edge, shape (..., E, 2); leading axes are a batch of graphs.
        variance: Var[r_u | r_v] along every edge, shape (..., E), float64; infinite where there is no edge.
        nodes: how many there are, in every graph of a batch.
    """

    ends: np.ndarray
    variance: np.ndarray
    nodes: int


def make_graph(ends: ArrayLike, variance: ArrayLike, nodes: int | None = None) -> Graph:
    """A graph from its edges.

    Args:
        ends: shape (E, 2), whole numbers from 0.
        variance: shape (E,), at least 0; infinite for padding.
        nodes: how many; by default the highest that an edge names and those below it.

    Raises:
        UserError: shapes that do not fit, nodes that do not exist, negative variances.
    """
    ends, variance = np.asarray(ends, dtype=np.int64), np.asarray(variance, dtype=np.float64)
    if ends.ndim != 2 or ends.shape[1] != 2 or variance.shape != ends.shape[:1]:
        raise UserError(f"Edges have shape {ends.shape} and variances {variance.shape}; give (E, 2) and (E,).")
    highest = int(ends.max(initial=-1))
    nodes = highest + 1 if nodes is None else nodes
    if ends.size and (ends.min() < 0 or highest >= nodes):
        raise UserError(
            f"An edge names node {highest if highest >= nodes else ends.min()}; nodes are 0 to {nodes - 1}."
        )
    bad = np.flatnonzero(~(variance >= 0))
    if bad.size:
        raise UserError(f"The variance of edge {bad[0]} is {variance[bad[0]]}; variances are 0 or more.")
    return Graph(ends, variance, nodes)


def stack(graphs: Sequence[Graph]) -> Graph:
    """One batch of graphs of different sizes: edges padded with infinite variance, nodes with none."""
    width, nodes = max(len(g.variance) for g in graphs), max(g.nodes for g in graphs)
    ends = np.zeros((len(graphs), width, 2), np.int64)
    variance = np.full((len(graphs), width), np.inf)
    for k, graph in enumerate(graphs):
        ends[k, : len(graph.ends)], variance[k, : len(graph.ends)] = graph.ends, graph.variance
    return Graph(ends, variance, nodes)


def components(graph: Graph, edges: Bool[np.ndarray, " E"] | None = None) -> Int[np.ndarray, " N"]:
    """The number of the connected component of every node, over all edges of finite variance or some of them."""
    some = np.isfinite(graph.variance) if edges is None else edges
    u, v = graph.ends[some].T
    matrix = sparse.coo_array((np.ones(len(u), bool), (u, v)), shape=(graph.nodes, graph.nodes))
    return connected_components(matrix, directed=False)[1].astype(np.int64)


def check_connected(graph: Graph, nodes: Int[np.ndarray, " Q"]) -> None:
    """Refuses distances that would be infinite.

    Raises:
        UserError: some of the nodes do not exist, or no path leads from one to another.
    """
    if len(nodes) and not (nodes.min() >= 0 and nodes.max() < graph.nodes):
        raise UserError(
            f"Distances of nodes {nodes.min()} to {nodes.max()} in a graph of nodes 0 to {graph.nodes - 1}."
        )
    component = components(graph)[nodes]
    apart = np.flatnonzero(component != component[:1])
    if apart.size:
        raise UserError(
            f"The graph is not connected: no path leads from node {nodes[0]} to node {nodes[apart[0]]}, so their "
            f"inference distance is infinite; add edges, or ask for nodes of one component."
        )


def check_all_connected(graph: Graph, nodes: Int[np.ndarray, "S Q"]) -> None:
    """`check_connected` for every graph of a batch.

    Raises:
        UserError: no batch, or as `check_connected`.
    """
    if graph.ends.ndim != 3 or nodes.ndim != 2 or len(nodes) != len(graph.ends):
        raise UserError(f"Edges have shape {graph.ends.shape}, nodes {nodes.shape}; give (S, E, 2) and (S, Q).")
    for ends, variance, some in zip(graph.ends, graph.variance, nodes, strict=True):
        check_connected(Graph(ends, variance, graph.nodes), some)


def contract(graph: Graph) -> tuple[Graph, Int[np.ndarray, " N"]]:
    """Makes one node of nodes that an edge of variance 0 joins: their rewards are equal up to a known difference.

    Returns:
        The smaller graph, without loops and padding, and for every old node its new one, shape (N,).
    """
    new = components(graph, graph.variance == 0)
    ends = new[graph.ends]
    keep = (ends[:, 0] != ends[:, 1]) & np.isfinite(graph.variance)
    return Graph(ends[keep], graph.variance[keep], int(new.max(initial=-1)) + 1), new


def fold_series(graph: Graph, keep: Int[np.ndarray, " Q"]) -> tuple[Graph, Int[np.ndarray, " Q"]]:
    """Replaces every chain of nodes of degree 2 by one edge, whose variance is the sum.

    Distances between other nodes stay, by best path as well as exactly: variances add in series.

    Args:
        graph: without loops and padding, such as `contract` returns.
        keep: nodes that stay whatever their degree, shape (Q,).

    Returns:
        The smaller graph and the new numbers of `keep`.
    """
    degree = np.bincount(graph.ends.ravel(), minlength=graph.nodes)
    inner = degree == 2
    inner[keep] = False
    inside = inner[graph.ends]  # (E, 2)
    chain = components(graph, inside.all(1))
    touches = inside.any(1)
    chains = np.unique(chain[inner])
    number = np.full(graph.nodes, -1)
    number[chains] = np.arange(len(chains))
    of = np.where(inside[:, 0], chain[graph.ends[:, 0]], chain[graph.ends[:, 1]])[touches]
    variance = np.bincount(number[of], graph.variance[touches], minlength=len(chains))
    # The two outer ends of every chain; a ring of inner nodes has none
    border = inside[:, 0] != inside[:, 1]
    outer = np.where(inside[border, 0], graph.ends[border, 1], graph.ends[border, 0])
    owner = number[np.where(inside[border, 0], chain[graph.ends[border, 0]], chain[graph.ends[border, 1]])]
    order = np.argsort(owner, kind="stable")
    folded = outer[order].reshape(-1, 2)
    length = variance[owner[order][::2]]
    real = folded[:, 0] != folded[:, 1]
    ends = np.concatenate([graph.ends[~touches], folded[real]])
    new = np.cumsum(~inner) - 1
    return Graph(new[ends], np.concatenate([graph.variance[~touches], length[real]]), int((~inner).sum())), new[keep]


def reduce_graph(graph: Graph, keep: Int[np.ndarray, " Q"]) -> tuple[Graph, Int[np.ndarray, " Q"]]:
    """`contract`, then `fold_series`: a smaller graph with the same distances between the nodes `keep`."""
    smaller, new = contract(graph)
    return fold_series(smaller, new[keep])
