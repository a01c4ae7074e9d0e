"""Best paths and exact inference on graphs whose distances are known, and against other computations."""

import itertools

import numpy as np
import pytest
from scipy.linalg import pinvh

from jaxalign import topology
from jaxalign.core.errors import UserError
from jaxalign.topology import best_path
from jaxalign.topology.graph import contract, make_graph, reduce_graph, stack

READ_OUTS = {
    "best path": topology.distances,
    "best path, device": lambda graph, nodes: topology.distances_on_device(stack([graph]), nodes[None])[0],
    "exact": topology.resistances,
    "exact, device": lambda graph, nodes: topology.resistances_on_device(stack([graph]), nodes[None])[0],
}
_TOLERANCE = {"best path": 1e-12, "best path, device": 1e-6, "exact": 1e-9, "exact, device": 1e-9}


def random_graph(seed, nodes=9, edges=8, zeros=0):
    """A connected multigraph: a random tree, further edges, some of them without variance."""
    random = np.random.default_rng(seed)
    tree = np.array([(random.integers(k), k) for k in range(1, nodes)])
    more = random.integers(nodes, size=(edges, 2))
    ends = np.concatenate([tree, more[more[:, 0] != more[:, 1]]])
    variance = random.uniform(0.1, 2.0, len(ends))
    variance[random.permutation(len(ends))[:zeros]] = 0.0
    return make_graph(ends, variance, nodes)


def brute_force_path(graph, u, v):
    """Least variance over all simple paths."""
    best = np.inf
    others = [k for k in range(graph.nodes) if k not in (u, v)]
    for length in range(len(others) + 1):
        for middle in itertools.permutations(others, length):
            try:
                best = min(best, topology.inference_variance(graph, [u, *middle, v]))
            except UserError:
                continue
    return best


def dense_resistance(graph):
    """From the pseudo-inverse of the Laplacian."""
    laplacian = np.zeros((graph.nodes, graph.nodes))
    for (u, v), variance in zip(graph.ends, graph.variance):
        if u != v and np.isfinite(variance):
            laplacian[[u, v, u, v], [u, v, v, u]] += np.array([1, 1, -1, -1]) / variance
    inverse = pinvh(laplacian)
    return np.diag(inverse)[:, None] + np.diag(inverse) - 2 * inverse


@pytest.mark.parametrize("read_out", READ_OUTS)
def test_in_series_variances_add(read_out):
    variance = np.array([0.5, 2.0, 0.25, 1.0])
    graph = make_graph([(0, 1), (1, 2), (2, 3), (3, 4)], variance)
    place = np.concatenate([[0], np.cumsum(variance)])
    expected = np.abs(place[:, None] - place)
    np.testing.assert_allclose(READ_OUTS[read_out](graph, np.arange(5)), expected, atol=_TOLERANCE[read_out])


def test_in_parallel_only_exact_inference_gains():
    graph = make_graph([(0, 1), (0, 1), (0, 2), (2, 1)], [1.0, 2.0, 1.5, 2.5])
    ends = np.array([0, 1])
    for read_out in ("exact", "exact, device"):
        assert READ_OUTS[read_out](graph, ends)[0, 1] == pytest.approx(1 / (1 / 1 + 1 / 2 + 1 / 4))
    for read_out in ("best path", "best path, device"):
        assert READ_OUTS[read_out](graph, ends)[0, 1] == pytest.approx(1.0)


@pytest.mark.parametrize("read_out", READ_OUTS)
def test_ring_and_complete_graph(read_out):
    n, step = 7, np.arange(7)
    ring = make_graph([(k, (k + 1) % n) for k in range(n)], np.ones(n))
    complete = make_graph(list(itertools.combinations(range(n), 2)), np.ones(n * (n - 1) // 2))
    is_exact = read_out.startswith("exact")
    around = step * (n - step) / n if is_exact else np.minimum(step, n - step)
    np.testing.assert_allclose(READ_OUTS[read_out](ring, step)[0], around, atol=1e-6)
    across = 2 / n if is_exact else 1.0
    np.testing.assert_allclose(READ_OUTS[read_out](complete, step), across * (1 - np.eye(n)), atol=1e-6)


def test_best_paths_are_those_of_brute_force():
    for seed in range(3):
        graph = random_graph(seed, nodes=6, edges=5, zeros=seed)
        expected = [[0 if u == v else brute_force_path(graph, u, v) for v in range(6)] for u in range(6)]
        for read_out in ("best path", "best path, device"):
            np.testing.assert_allclose(READ_OUTS[read_out](graph, np.arange(6)), expected, atol=_TOLERANCE[read_out])


@pytest.mark.parametrize("read_out", ["exact", "exact, device"])
def test_exact_inference_is_that_of_the_dense_laplacian(read_out):
    graph = random_graph(5, nodes=40, edges=50)
    nodes = np.array([3, 17, 0, 39, 8])
    expected = dense_resistance(graph)[np.ix_(nodes, nodes)]
    np.testing.assert_allclose(READ_OUTS[read_out](graph, nodes), expected, rtol=1e-8, atol=1e-10)


def test_as_networkx():
    networkx = pytest.importorskip("networkx")
    graph = random_graph(6, nodes=30, edges=30)
    other = networkx.MultiGraph()
    other.add_weighted_edges_from([(*ends, v) for ends, v in zip(graph.ends.tolist(), graph.variance.tolist())])
    nodes = np.array([0, 11, 29])
    for (i, u), (j, v) in itertools.product(enumerate(nodes.tolist()), repeat=2):
        path = networkx.dijkstra_path_length(other, u, v)
        assert topology.distances(graph, nodes)[i, j] == pytest.approx(path)
        resistance = networkx.resistance_distance(other, u, v, weight="weight")
        assert topology.resistances(graph, nodes)[i, j] == pytest.approx(resistance, abs=1e-9)


def test_all_paths_say_at_least_as_much_as_the_best():
    graph, nodes = random_graph(7, nodes=50, edges=70), np.arange(50)
    path, exact = topology.distances(graph, nodes), topology.resistances(graph, nodes)
    assert (exact <= path + 1e-9).all()
    assert (exact < 0.9 * path).any()


@pytest.mark.parametrize("seed", range(4))
def test_simplifying_changes_no_distance(seed):
    graph = random_graph(seed, nodes=60, edges=12, zeros=9)
    keep = np.array([1, 5, 30, 59])
    smaller, new = reduce_graph(graph, keep)
    assert smaller.nodes < 60 - 9
    degree = np.bincount(smaller.ends.ravel(), minlength=smaller.nodes)
    degree[new] = 0
    assert not (degree == 2).any()
    by_hand = contract(graph)
    expected = dense_resistance(by_hand[0])[np.ix_(by_hand[1][keep], by_hand[1][keep])]
    np.testing.assert_allclose(topology.resistances(smaller, new), expected, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(topology.distances(smaller, new), topology.distances(graph, keep), atol=1e-12)


def test_rings_and_loops_of_folded_nodes_vanish():
    # A ring through node 0 alone, a ring of its own, and a chain from 0 to 1 of three edges
    ends = [(0, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 4), (0, 7), (7, 8), (8, 1)]
    smaller, new = reduce_graph(make_graph(ends, np.arange(1.0, 10.0)), np.array([0, 1]))
    assert smaller.nodes == 2
    np.testing.assert_array_equal(np.sort(smaller.ends), [np.sort(new)])
    np.testing.assert_allclose(smaller.variance, [7 + 8 + 9])


def test_a_batch_is_padded_with_edges_that_say_nothing():
    graphs = [random_graph(8, nodes=12, edges=20), random_graph(9, nodes=7, edges=0)]
    batch, nodes = stack(graphs), np.array([[0, 5, 11], [6, 2, 3]])
    assert np.isinf(batch.variance[1]).sum() == len(graphs[0].variance) - 6
    path, exact = topology.distances_on_device(batch, nodes), topology.resistances_on_device(batch, nodes)
    for k, graph in enumerate(graphs):
        np.testing.assert_allclose(path[k], topology.distances(graph, nodes[k]), rtol=1e-5)
        np.testing.assert_allclose(exact[k], topology.resistances(graph, nodes[k]), rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(topology.mean_distance(path)[0], path[0][[0, 0, 1], [1, 2, 2]].mean(), rtol=1e-6)


@pytest.mark.parametrize("read_out", READ_OUTS)
def test_distances_without_a_path_are_refused(read_out):
    graph = make_graph([(0, 1), (2, 3)], [1.0, 1.0])
    assert READ_OUTS[read_out](graph, np.array([2, 3]))[0, 1] == pytest.approx(1.0)
    with pytest.raises(UserError, match="not connected: no path leads from node 0 to node 3"):
        READ_OUTS[read_out](graph, np.array([0, 1, 3]))
    with pytest.raises(UserError, match="nodes 0 to 3"):
        READ_OUTS[read_out](graph, np.array([0, 4]))


def test_what_is_no_graph_is_refused():
    with pytest.raises(UserError, match="shape"):
        make_graph([(0, 1)], [1.0, 2.0])
    with pytest.raises(UserError, match="node 5"):
        make_graph([(0, 5)], [1.0], nodes=3)
    with pytest.raises(UserError, match="edge 1 is -2"):
        make_graph([(0, 1), (1, 2)], [1.0, -2.0])
    with pytest.raises(UserError, match="edge 0 is nan"):
        make_graph([(0, 1)], [np.nan])
    with pytest.raises(UserError, match="No edge joins nodes 0 and 2"):
        topology.inference_variance(make_graph([(0, 1), (1, 2)], [1.0, 1.0]), [0, 2])
    with pytest.raises(UserError, match="contract"):
        topology.resistances_on_device(stack([make_graph([(0, 1)], [0.0])]), np.array([[0, 1]]))


def test_nodes_of_equal_reward_have_distance_0():
    graph = make_graph([(0, 1), (1, 2)], [0.0, 3.0])
    for read_out in (topology.distances, topology.resistances):
        np.testing.assert_allclose(read_out(graph, np.arange(3)), [[0, 0, 3], [0, 0, 3], [3, 3, 0]], atol=1e-12)
        np.testing.assert_array_equal(read_out(make_graph([(0, 1)], [0.0]), np.arange(2)), np.zeros((2, 2)))


def test_variance_of_a_logistic():
    drawn = np.random.default_rng(0).logistic(scale=0.7, size=400_000)
    assert best_path.logistic_variance(0.7) == pytest.approx(drawn.var(), rel=0.01)
