"""The induced Bayesian network against definitions: strings, Gaussian conditioning, dense shortest paths."""

import math

import numpy as np
import pytest
from scipy.sparse.csgraph import floyd_warshall

from jaxalign import topology
from jaxalign.core.errors import UserError
from jaxalign.topology.comparisons import generator, uniform
from jaxalign.topology.network import build_trie, induced_network, shared_bits
from jaxalign.topology.structural import FAMILIES, Structural

TOPOLOGIES = (topology.Chain(), topology.Tree("n/2", 1.0), topology.Tree("sqrt n", 0.5))


def common(x, y):
    """Shared first bits of two strings, by Python's integers."""
    return 64 - (int(x) ^ int(y)).bit_length()


def strings(seed, count):
    """Sorted distinct strings, some of which part at the last bit."""
    drawn = uniform(np.random.default_rng(seed), count)
    close = drawn[: count // 3] ^ np.left_shift(np.uint64(1), np.arange(count // 3, dtype=np.uint64) % np.uint64(64))
    return np.unique(np.concatenate([drawn, close, np.array([0, 1, 2**63, 2**64 - 1], np.uint64)]))


def test_shared_bits():
    x, y = strings(0, 90), strings(0, 90)[::-1].copy()
    differ = x != y
    expected = [common(a, b) for a, b in zip(x[differ], y[differ])]
    np.testing.assert_array_equal(shared_bits(x[differ], y[differ]), expected)


def test_the_trie_joins_strings_where_they_part():
    leaves = strings(1, 60)
    trie = build_trie(leaves)
    assert len(trie.parent) == 2 * len(leaves) - 1

    def above(node):
        line = [node]
        while trie.parent[line[-1]] != line[-1]:
            line.append(trie.parent[line[-1]])
        return line

    lines = [above(k) for k in range(len(leaves))]
    for line in lines:
        assert (np.diff(trie.depth[line]) < 0).all()
    for i in range(len(leaves)):
        for j in range(i):
            meet = next(node for node in lines[i] if node in lines[j])
            assert trie.depth[meet] == common(leaves[i], leaves[j])
    assert len({line[-1] for line in lines}) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_inductive_bias_alone_has_the_structural_function_as_distance(family):
    structural = Structural(family, 0.5, 3.0)
    queries = np.random.default_rng(2).permutation(strings(2, 20))
    far = np.array([[0, 2**64 - 1]], np.uint64)  # one comparison, too noisy to help
    network = induced_network(structural, far, queries, 1e6)
    expected = [[0 if a == b else float(structural(2.0 ** common(a, b))) for a in queries] for b in queries]
    np.testing.assert_allclose(topology.distances(network.graph, network.queries), expected, rtol=1e-9)


@pytest.mark.parametrize("shape", TOPOLOGIES, ids=str)
@pytest.mark.parametrize("variance", [0.0, 0.05])
def test_best_paths_are_those_of_the_dense_network(shape, variance):
    """All responses and d_IB between any two as a full matrix: no trie."""
    structural = Structural("polynomial", 0.5)
    pairs, queries = shape(np.random.default_rng(3), 30), uniform(np.random.default_rng(4), 6)
    every, index = np.unique(np.concatenate([queries, pairs.ravel()]), return_inverse=True)
    matrix = np.array([[0.0 if a == b else 2.0 ** (-0.5 * common(a, b)) for a in every] for b in every])
    ends, times = np.unique(np.sort(index[6:].reshape(30, 2)), axis=0, return_counts=True)
    for (i, j), count in zip(ends, times):
        matrix[i, j] = matrix[j, i] = min(matrix[i, j], max(variance / count, 1e-6))  # SciPy takes tiny ones for none
    expected = floyd_warshall(matrix)[np.ix_(index[:6], index[:6])]
    network = induced_network(structural, pairs, queries, variance)
    np.testing.assert_allclose(
        topology.distances(network.graph, network.queries), expected, atol=1e-4 if variance == 0 else 1e-9
    )


@pytest.mark.parametrize("shape", TOPOLOGIES, ids=str)
@pytest.mark.parametrize("variance", [0.0, 0.05])
def test_exact_inference_is_gaussian_conditioning(shape, variance):
    """Rewards that are sums of independent increments down the tree of strings, conditioned on noisy differences."""
    structural = Structural("polynomial", 0.5)
    pairs, queries = shape(np.random.default_rng(5), 25), uniform(np.random.default_rng(6), 5)
    every = np.concatenate([queries, pairs.ravel()])
    within = lambda a, b: 0.0 if a == b else 2.0 ** (-0.5 * common(a, b)) / 2  # variance below where the strings part
    covariance = np.array([[0.5 - within(a, b) for a in every] for b in every])
    difference = np.zeros((25, len(every)))
    difference[np.arange(25), 5 + 2 * np.arange(25)], difference[np.arange(25), 6 + 2 * np.arange(25)] = 1, -1
    told = difference @ covariance @ difference.T + max(variance, 1e-10) * np.eye(25)
    posterior = covariance - covariance @ difference.T @ np.linalg.solve(told, difference @ covariance)
    expected = np.diag(posterior)[:, None] + np.diag(posterior) - 2 * posterior
    network = induced_network(structural, pairs, queries, variance)
    found = topology.resistances(network.graph, network.queries)
    np.testing.assert_allclose(found, expected[:5, :5], rtol=1e-5, atol=1e-8)


def test_repeated_comparisons_divide_the_variance():
    structural, pair = Structural("polynomial", 0.5), np.array([[0, 2**64 - 1]], np.uint64)
    for times in (1, 4):
        pairs = np.concatenate([pair, pair[:, ::-1]] * 2)[:times]
        network = induced_network(structural, pairs, pair[0], 0.4)
        assert topology.distances(network.graph, network.queries)[0, 1] == pytest.approx(0.4 / times)


def test_pairs_of_a_chain_are_independent_and_uniform():
    pairs = topology.Chain()(np.random.default_rng(7), 20_000)
    first = (pairs >> np.uint64(61)).astype(int)
    table = np.bincount(first[:, 0] * 8 + first[:, 1], minlength=64)
    expected = 20_000 / 64
    assert ((table - expected) ** 2 / expected).sum() < 103.4  # chi-square, 63 degrees of freedom, 0.1 %


def test_pairs_of_a_tree_share_few_prefixes_and_many_leaves():
    tree, count = topology.Tree("sqrt n", 1.0), 4096
    pairs = tree(np.random.default_rng(8), count)
    assert tree.subtrees(count) == 64
    assert tree.shared_bits(count) == 12
    prefixes, sizes = np.unique(pairs >> np.uint64(64 - 12), return_counts=True)
    assert len(prefixes) >= 63  # 64 of 4096, drawn with replacement
    assert sizes.max() < 2 * 2 * count / 64
    leaves = len(np.unique(pairs))
    expected = 64**2 * -math.expm1(2 * count * math.log1p(-1 / 64**2))  # of so many draws with replacement
    assert leaves == pytest.approx(expected, rel=0.03)
    same = (pairs[:, 0] >> np.uint64(52)) == (pairs[:, 1] >> np.uint64(52))
    assert same.mean() == pytest.approx(1 / 64, abs=0.01)


def test_streams_have_names():
    draws = {name: generator(3, name).random() for name in ("chain 8", "chain 9", "queries 8")}
    assert len(set(draws.values())) == 3
    assert generator(3, "chain 8").random() == draws["chain 8"]


def test_structural_functions():
    for family in FAMILIES:
        assert Structural(family, 0.5, 7.0)(1) == pytest.approx(7.0)
        assert (np.diff(Structural(family, 0.5)(np.arange(1, 50))) < 0).all()
    np.testing.assert_allclose(Structural("polynomial", 0.25, 2.0)([1, 16]), [2.0, 1.0])
    np.testing.assert_allclose(Structural("logarithmic", 2.0)(math.e**2), 1 / 9)
    large = np.array([1e40, 1e80])
    falls = lambda family: float(np.divide(*Structural(family, 0.5)(large)[::-1]))
    assert falls("logarithmic") == pytest.approx(2**-0.5, abs=0.01)
    assert falls("sublogarithmic") > 0.9  # slower than any power of the logarithm


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Structural("polynomial", 1.0), "alpha is 1"),
        (lambda: Structural("polynomial", -0.1), "alpha is -0.1"),
        (lambda: Structural("logarithmic", 0.0), "alpha is 0"),
        (lambda: Structural("linear", 0.5), "polynomial, logarithmic"),
        (lambda: Structural("polynomial", 0.5, 0.0), "scale"),
        (lambda: topology.Tree("n", 1.0), "'n/2'"),
        (lambda: topology.Tree("n/2", 0.0), "gamma is 0"),
        (lambda: topology.Tree("n/2", 3.0)(np.random.default_rng(0), 2**17), "gamma at most 2.75"),
        (lambda: topology.Chain()(np.random.default_rng(0), 1), "at least 2"),
        (lambda: induced_network(Structural(), np.zeros((1, 2), np.uint64), np.arange(2, dtype=np.uint64), -1.0), "-1"),
        (lambda: induced_network(Structural(), np.zeros((1, 2), np.uint64), np.zeros(2, np.uint64), 1.0), "twice"),
    ],
)
def test_what_makes_no_sense_is_refused(make, told):
    with pytest.raises(UserError, match=told):
        make()
