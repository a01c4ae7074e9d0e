"""The paper's read-out: the inference distance is the variance along the best single path.

d(u, v) = min over paths S from u to v of IV[S], IV[S] = sum of the variances of its edges (lemma B.11). All other paths
are ignored (assumption B.10); `exact` does not ignore them. Source: arXiv 2402.10184, section 4.
"""

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy import sparse
from scipy.sparse.csgraph import dijkstra

from jaxalign.core.errors import UserError
from jaxalign.topology.graph import Graph, check_all_connected, check_connected, contract


def logistic_variance(scale: float) -> float:
    """Variance of a logistic distribution: scale^2 pi^2 / 3; of an edge with beta = 1 / scale."""
    return (scale * np.pi) ** 2 / 3


def inference_variance(graph: Graph, path: Sequence[int]) -> float:
    """IV of a path: the sum of its edges' variances, each the least of parallel ones.

    Raises:
        UserError: two nodes of the path that no edge joins.
    """
    total = 0.0
    for u, v in itertools.pairwise(path):
        joins = (graph.ends == (u, v)).all(1) | (graph.ends == (v, u)).all(1)
        least = graph.variance[joins].min(initial=np.inf)
        if not np.isfinite(least):
            raise UserError(f"No edge joins nodes {u} and {v}; a path goes along edges.")
        total += float(least)
    return total


def distances(graph: Graph, nodes: Int[np.ndarray, " Q"]) -> Float[np.ndarray, "Q Q"]:
    """Inference distances between some nodes of one graph, by Dijkstra's algorithm (SciPy).

    Raises:
        UserError: nodes that do not exist or are not connected.
    """
    check_connected(graph, nodes)
    smaller, new = contract(graph)  # SciPy takes an entry of 0 for no edge
    where = new[nodes]
    if smaller.nodes == 1:
        return np.zeros((len(nodes), len(nodes)))
    return dijkstra(_least(smaller), directed=False, indices=where)[:, where]


def mean_distance(distance: Float[np.ndarray, "*batch Q Q"]) -> Float[np.ndarray, "*batch"]:
    """MID: the mean over pairs of different queries. With independent uniform queries it estimates E[d(y1, y2)]."""
    first, second = np.triu_indices(distance.shape[-1], 1)
    return np.asarray(distance[..., first, second].mean(-1))


def distances_on_device(graph: Graph, nodes: Int[np.ndarray, "S Q"]) -> Float[np.ndarray, "S Q Q"]:
    """Inference distances in a batch of graphs at once, by Bellman and Ford's relaxation in JAX, in float32.

    As many rounds as the longest best path has edges, over all graphs, sources and edges in parallel. For accelerators:
    on a CPU Dijkstra's algorithm is faster (benchmarks/ibn.py).

    Args:
        graph: a batch, such as `graph.stack` returns.
        nodes: of every graph, shape (S, Q).

    Raises:
        UserError: as `distances`, or no batch.
    """
    check_all_connected(graph, nodes)
    ends, variance = jnp.asarray(graph.ends, jnp.int32), jnp.asarray(graph.variance, jnp.float32)
    return np.asarray(_relaxed(ends, variance, jnp.asarray(nodes, jnp.int32), graph.nodes))


@functools.partial(jax.jit, static_argnums=3)
def _relaxed(
    ends: Int[Array, "S E 2"], variance: Float[Array, "S E"], queries: Int[Array, "S Q"], nodes: int
) -> Float[Array, "S Q Q"]:
    return jax.vmap(lambda e, v, q: _bellman_ford(e, v, q, nodes)[q].T)(ends, variance, queries)


def _bellman_ford(
    ends: Int[Array, "E 2"], variance: Float[Array, " E"], sources: Int[Array, " Q"], nodes: int
) -> Float[Array, "N Q"]:
    """Distances of all nodes from every source; infinite where there is no path."""
    sender, receiver, step = directed(ends, variance)
    columns = jnp.arange(len(sources))
    start = jnp.full((nodes, len(sources)), jnp.inf, variance.dtype).at[sources, columns].set(0.0)

    def relax(carry):
        distance, _ = carry
        reached = distance[sender] + step[:, None]
        nearer = jax.ops.segment_min(reached, receiver, nodes, indices_are_sorted=True)
        better = jnp.minimum(distance, nearer)
        return better, (better < distance).any()

    return jax.lax.while_loop(lambda carry: carry[1], relax, (start, jnp.bool_(True)))[0]


def directed(
    ends: Int[Array, "E 2"], values: Float[Array, " E"]
) -> tuple[Int[Array, " 2*E"], Int[Array, " 2*E"], Float[Array, " 2*E"]]:
    """Every edge in both directions, in the order of receivers: senders, receivers and values."""
    sender, receiver = jnp.concatenate([ends[:, 0], ends[:, 1]]), jnp.concatenate([ends[:, 1], ends[:, 0]])
    order = jnp.argsort(receiver)
    return sender[order], receiver[order], jnp.concatenate([values, values])[order]


def _least(graph: Graph) -> sparse.csr_array:
    """The matrix of the least variance between any two nodes, upper triangle."""
    low, high = np.sort(graph.ends, axis=1).T
    order = np.lexsort((graph.variance, high, low))
    low, high, variance = low[order], high[order], graph.variance[order]
    first = np.concatenate([[True], (low[1:] != low[:-1]) | (high[1:] != high[:-1])])
    shape = (graph.nodes, graph.nodes)
    return sparse.coo_array((variance[first], (low[first], high[first])), shape=shape).tocsr()
