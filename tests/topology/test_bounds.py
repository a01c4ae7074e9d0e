"""The table of bounds against the formulas of the paper, the propositions against a plain loop, fits against NumPy."""

import math

import numpy as np
import pytest

from jaxalign.core.errors import UserError
from jaxalign.topology.bounds import Order, bound, proposition, separation, table
from jaxalign.topology.slopes import fit_slope, hop_cost
from jaxalign.topology.structural import Structural

N = np.array([10**3, 10**5, 10**9])
L = np.log(N)


@pytest.mark.parametrize("a", [0.25, 0.9])
@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_polynomial_cells(a, scale):
    f, i = Structural("polynomial", a, scale), scale
    expected = {
        ("chain", "A"): i * L ** (1 + a) / (N**a * np.log(L)),
        ("tree", "A"): i * L ** (2 * a) / N**a,
        ("chain", "B"): i ** (2 / (2 + a)) / N ** (a / (2 + a)),
        ("tree", "B"): i ** (2 / (2 + a)) * L ** (2 * a / (2 + a)) / N ** (a / (2 + a)),
    }
    for (topology, regime), values in expected.items():
        np.testing.assert_allclose(bound(f, topology, regime)(N), values, rtol=1e-12)


def test_other_cells_are_the_same_for_chain_and_tree():
    logarithmic, slow = Structural("logarithmic", 0.7, 3.0), Structural("sublogarithmic", 0.7, 3.0)
    for topology in ("chain", "tree"):
        for regime in ("A", "B"):
            np.testing.assert_allclose(bound(logarithmic, topology, regime)(N), 3 * L**-0.7)
        np.testing.assert_allclose(bound(slow, topology, "A")(N), slow(np.ceil(np.sqrt(N))))
        clusters = np.ceil(np.sqrt(3.0 * N) / L**0.2)
        np.testing.assert_allclose(bound(slow, topology, "B", epsilon=0.2)(N), slow(clusters))
    for family in (logarithmic, slow):
        assert separation(family, "A") == separation(family, "B") == Order()


def test_where_the_bounds_separate():
    f = Structural("polynomial", 0.5)
    in_favour_of_the_tree, of_the_chain = separation(f, "A"), separation(f, "B")
    np.testing.assert_allclose(in_favour_of_the_tree(N), L**0.5 / np.log(L))
    assert in_favour_of_the_tree.growth() == 1
    np.testing.assert_allclose(of_the_chain(N), L**-0.4)
    assert of_the_chain.growth() == -1
    assert separation(Structural("logarithmic"), "A").growth() == 0
    # The numbers of the specification: alpha = .1 gives 3.3 at n = 1e4 and 4.4 at 1e7
    ratio = separation(Structural("polynomial", 0.1), "A")
    np.testing.assert_allclose(ratio(np.array([1e4, 1e7])), [3.3, 4.4], atol=0.06)


def test_orders_print():
    f = Structural("polynomial", 0.5)
    assert str(bound(f, "chain", "A")) == "I (log n)^1.5 / (n^0.5 log log n)"
    assert str(bound(f, "tree", "A")) == "I log n / n^0.5"
    assert str(bound(Structural("sublogarithmic"), "tree", "A")) == "F(ceil(n^0.5))"
    assert str(Order()) == "1"
    assert str(Order(log=-1)) == "1 / log n"
    assert Order(1, 2, 3, 4).over(Order(1, 1, 1, 1)) == Order(0, 1, 2, 3)
    rows = table(alpha=0.5)
    assert len(rows) == 7
    assert rows[1][1:] == ("A", "I (log n)^1.5 / (n^0.5 log log n)", "I log n / n^0.5", "(log n)^0.5 / log log n")
    assert [row[-1] for row in rows[3:]] == ["1"] * 4


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_propositions_are_minima_over_the_number_of_clusters(noise):
    f, n, gamma = Structural("polynomial", 0.5, 2.0), 400, 1.5
    chain, tree = [], []
    for m in range(2, n + 1):
        hops = math.log(m) / math.log(n / m) if m < n else math.inf
        ends = float(f(max(m / math.log(m), 1.0)))
        if 2 * m * math.log(m) <= n <= m**2:
            chain.append(hops * (noise + float(f(m))))
        if m**2 <= n:
            chain.append(float(f(m)) + noise * m**2 / n)
        if 3 * m * math.log(m) <= n <= m**2:
            tree.append(ends + hops * (noise + float(f(m ** (1 + gamma)))))
        if m**2 * math.log(m) <= n <= m**4:
            tree.append(ends + noise * m**2 / n)
        if n >= m**4 * math.log(m):
            tree.append(ends + noise * m**4 / n)
    assert proposition(f, "chain", n, gamma, noise) == pytest.approx(min(chain))
    assert proposition(f, "tree", n, gamma, noise) == pytest.approx(min(tree))


def test_the_table_follows_from_the_propositions():
    """In the order of n: the propositions, over the cells, stay within a constant from n = 1e6 to 1e12."""
    sizes = [10**k for k in (6, 9, 12)]
    for regime, noise in (("A", 0.0), ("B", 1.0)):
        f = Structural("polynomial", 0.5)
        for name in ("chain", "tree"):
            ratio = np.array([proposition(f, name, n, 2.0, noise) for n in sizes]) / bound(f, name, regime)(sizes)
            assert ratio.min() > 0.1
            assert ratio.max() < 10
            assert ratio.max() / ratio.min() < 2


def test_slopes_are_least_squares_and_intervals_cover():
    random = np.random.default_rng(0)
    x = np.linspace(0, 3, 5)
    y = (2.0 + 0.7 * x)[:, None] + random.normal(0, 0.3, (5, 12))
    assert fit_slope(x, y).estimate == pytest.approx(np.polyfit(x, y.mean(1), 1)[0])
    positive = np.exp(y / 5)
    logarithm = fit_slope(x, positive, np.log)
    assert logarithm.estimate == pytest.approx(np.polyfit(x, np.log(positive.mean(1)), 1)[0])
    covered = [
        fit_slope(x, 0.7 * x[:, None] + random.normal(0, 0.3, (5, 12)), seed=k).contains(0.7) for k in range(100)
    ]
    assert 85 <= sum(covered) <= 99
    assert np.isnan(fit_slope(x, y[:, :1]).low)


def test_cost_of_a_hop():
    assert hop_cost(0.5) == pytest.approx(0.5)
    assert hop_cost(0.25) == pytest.approx(0.38, abs=0.001)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: bound(Structural(), "star", "A"), "'star'"),
        (lambda: bound(Structural(), "chain", "C"), "'C'"),
        (lambda: bound(Structural(), "chain", "A", epsilon=0.0), "epsilon is 0"),
        (lambda: proposition(Structural(), "chain", 3), "n is 3"),
        (lambda: proposition(Structural(), "tree", 100, gamma=-1.0), "gamma -1"),
        (lambda: proposition(Structural(), "star", 100), "'star'"),
        (lambda: hop_cost(1.5), "alpha is 1.5"),
        (lambda: fit_slope(np.ones(1), np.ones((1, 3))), "at least two"),
    ],
)
def test_what_makes_no_sense_is_refused(call, told):
    with pytest.raises(UserError, match=told):
        call()
