"""The induced Bayesian network of a set of comparisons, in a world whose structural function is exact.

Responses are leaves of a binary tree of bit strings, and the inductive bias says d_IB(u, v) = F(2^l) for two that share
l bits. Only what the comparisons touch matters: the compressed trie (Patricia) of their responses, in which every edge
carries half the difference of F between its ends, plus one edge per compared pair. Source: arXiv 2402.10184, section 4
and appendix B; the world is ours.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt64

from jaxalign.core.errors import UserError
from jaxalign.topology.comparisons import BITS, Comparisons, Responses
from jaxalign.topology.graph import Graph, make_graph
from jaxalign.topology.structural import Structural


class Trie(NamedTuple):
    """Of N distinct strings: leaf i is string i in order, node N + i is where strings i and i + 1 part.

    Attributes:
        parent: of every node, shape (2N - 1,); the root is its own.
        depth: bits shared below every node, shape (2N - 1,); of a leaf, BITS.
    """

    parent: np.ndarray
    depth: np.ndarray


class Network(NamedTuple):
    """Comparisons, inductive bias and the responses whose distances are asked for.

    Attributes:
        graph: edges of both kinds.
        queries: nodes, shape (Q,).
    """

    graph: Graph
    queries: np.ndarray


def shared_bits(x: Responses, y: Responses) -> Int[np.ndarray, " n"]:
    """How many of the first bits are equal."""
    differ = x ^ y
    high, low = (differ >> np.uint64(32)).astype(float), (differ & np.uint64(2**32 - 1)).astype(float)
    length = np.where(high > 0, 32 + np.frexp(high)[1], np.frexp(low)[1])
    return (BITS - length).astype(np.int64)


def build_trie(strings: Responses) -> Trie:
    """The compressed trie of strings that are sorted and distinct."""
    count = len(strings)
    split = np.concatenate([[-1], shared_bits(strings[:-1], strings[1:]), [-1]])  # of string i - 1 and i
    prefix = np.uint64(BITS) - split[1:-1].astype(np.uint64) - np.uint64(1)  # shifted twice: 64 at once is undefined
    lowest = strings[:-1] >> prefix >> np.uint64(1) << prefix << np.uint64(1)
    highest = lowest | ((np.uint64(2) << prefix) - np.uint64(1))
    # The strings below every node, first and last; above it is the deeper of the two splits beside them
    first = np.concatenate([np.arange(count), np.searchsorted(strings, lowest)])
    last = np.concatenate([np.arange(count), np.searchsorted(strings, highest, "right") - 1])
    left, right = split[first], split[last + 1]
    parent = count + np.where(left > right, first - 1, last)
    root = (left < 0) & (right < 0)
    parent[root] = np.flatnonzero(root)
    return Trie(parent, np.concatenate([np.full(count, BITS), split[1:-1]]))


def induced_network(
    structural: Structural, comparisons: Comparisons, queries: UInt64[np.ndarray, " Q"], variance: float
) -> Network:
    """The network of comparisons and inductive bias.

    Args:
        structural: F, whose values are variances.
        comparisons: the compared pairs, shape (n, 2).
        queries: responses whose distances will be asked for, shape (Q,).
        variance: of one comparison; k comparisons of one pair have variance / k (lemma B.22). 0: comparisons are exact.

    Raises:
        UserError: a negative variance, or a query twice.
    """
    if not 0 <= variance < np.inf:
        raise UserError(f"The variance of a comparison is {variance:g}; choose a number of 0 or more.")
    if len(np.unique(queries)) < len(queries):
        raise UserError("A response is queried twice; its distance to itself is 0, so give distinct ones.")
    strings, index = np.unique(np.concatenate([comparisons.ravel(), queries]), return_inverse=True)
    trie = build_trie(strings)
    height = np.where(trie.depth == BITS, 0.0, structural.at_depth(trie.depth) / 2)
    child = np.flatnonzero(trie.parent != np.arange(len(trie.parent)))
    bias = np.stack([child, trie.parent[child]], 1), height[trie.parent[child]] - height[child]
    pairs = np.sort(index[: comparisons.size].reshape(-1, 2), axis=1)
    pairs, times = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0, return_counts=True)
    ends = np.concatenate([bias[0], pairs])
    graph = make_graph(ends, np.concatenate([bias[1], variance / times]), len(trie.parent))
    return Network(graph, index[comparisons.size :])
