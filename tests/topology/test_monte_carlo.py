"""Cells of the study: recorded pilot figures, the device's answer, reports of made-up results."""

import dataclasses

import numpy as np
import pytest

from jaxalign import topology
from jaxalign.core.errors import UserError
from jaxalign.topology import report
from jaxalign.topology.monte_carlo import Cell, Measured, draw, measure, sweep

CHAIN, TREE = topology.Chain(), topology.Tree("n/2", 1.0)
HALF = topology.Structural("polynomial", 0.5)
SEEDS = range(6)


@pytest.fixture(scope="module")
def at_1024():
    shapes = {"chain": CHAIN, "tree": TREE, "proof": topology.Tree("n/(3 log n)", 1.0)}
    cells = {name: [Cell(HALF, shape, 1024, seed=seed) for seed in SEEDS] for name, shape in shapes.items()}
    return {name: 32 * np.array([measured for _, measured in sweep(some)]) for name, some in cells.items()}


@pytest.mark.parametrize(
    ("name", "best_path", "exact"), [("chain", 4.77, 1.53), ("tree", 4.77 / 1.58, 2.28), ("proof", None, 6.82)]
)
def test_agrees_with_the_pilot(at_1024, name, best_path, exact):
    """Another implementation, alpha = .5, gamma = 1 (2 for exact inference), n = 2^10, 3 seeds."""
    mean, error = at_1024[name].mean(0), at_1024[name].std(0, ddof=1) / len(SEEDS) ** 0.5
    for found, spread, expected in zip(mean, error, (best_path, exact)):
        if expected is not None:
            assert abs(found - expected) < max(4 * spread, 0.05 * expected)  # the pilot has an error of the like
            assert spread < 0.15 * expected


def test_best_path_and_exact_inference_disagree_about_the_tree(at_1024):
    """With exact comparisons and B = n/2: what the pilots found, and what the room is about."""
    ratio = at_1024["chain"] / at_1024["tree"]
    assert report.better(ratio[:, 0]) == "tree"
    assert report.better(ratio[:, 1]) == "chain"
    assert report.better(at_1024["chain"][:, 0] / at_1024["proof"][:, 0]) == "chain"


def test_the_device_measures_the_same():
    cells = [Cell(HALF, shape, 64, noise, queries=6, seed=1) for shape in (CHAIN, TREE) for noise in ("0", "n^-alpha")]
    for here, there in zip(map(measure, cells), topology.measure_on_device(cells), strict=True):
        assert there.best_path == pytest.approx(here.best_path, rel=1e-5)
        assert there.exact == pytest.approx(here.exact, rel=1e-6)


def test_noise_costs_and_more_comparisons_help():
    value = {
        (noise, n): np.mean([measure(Cell(HALF, CHAIN, n, noise, 12, seed)) for seed in range(4)], axis=0)
        for noise in topology.NOISES
        for n in (64, 512)
    }
    for noise in topology.NOISES:
        assert value[noise, 512][1] < value[noise, 64][1]
    for n in (64, 512):
        exact = [value[noise, n][1] for noise in ("0", "n^-alpha", "1", "10")]
        assert exact == sorted(exact)
    # Comparisons noisier than the whole world: no single path improves on the inductive bias, all together do
    assert value["10", 512][0] == pytest.approx(value["10", 64][0], rel=0.1)
    assert value["10", 512][1] < 0.8 * value["10", 512][0]


def test_networks_are_reproducible_and_share_queries():
    cell = Cell(HALF, CHAIN, 64, queries=8, seed=3)
    first, again, other = draw(cell), draw(cell), draw(dataclasses.replace(cell, seed=4))
    np.testing.assert_array_equal(first.graph.variance, again.graph.variance)
    assert len(first.graph.variance) != len(other.graph.variance) or not np.allclose(
        first.graph.variance, other.graph.variance
    )
    assert len({cell.key for cell in (cell, dataclasses.replace(cell, noise="1"), Cell(HALF, TREE, 64, seed=3))}) == 3


@pytest.mark.slow
def test_processes_measure_the_same():
    cells = [Cell(HALF, CHAIN, 64, queries=4, seed=seed) for seed in range(3)]
    assert list(sweep(cells, workers=2)) == list(sweep(cells))


def made_up(trend):
    """Results in which chain over tree is 1 + trend log n by best path and 1/2 exactly."""
    results = {}
    for n in (256, 1024, 4096):
        for seed in range(4):
            tree = n**-0.5 * (1 + 0.01 * seed)
            chain = Measured(tree * (1 + trend * np.log(n)), tree / 2)
            results |= {Cell(HALF, CHAIN, n, seed=seed): chain, Cell(HALF, TREE, n, seed=seed): Measured(tree, tree)}
    return results


def test_verdicts_follow_the_numbers():
    for trend, expected in ((0.1, "tree"), (-0.1, "chain")):
        best, exact = report.verdicts(made_up(trend))[1:]
        assert (best[-1], exact[-1]) == (expected, "chain")
        assert best[4].startswith(f"{trend:.3f} [")
        assert exact[3] == "0.50 +- 0.00"
    assert "By best path the tree is better in 1 of 1 cases" in report.summary(made_up(0.1))
    assert report.better(np.array([0.7, 1.3])) == "undecided"


def test_tables_say_slopes():
    text = report.tables(made_up(0.0))
    row = next(line for line in text.splitlines() if line.startswith("M^-0.5, 0: chain") and "[" in line)
    assert row.count("-0.500 [") == 2  # by both read-outs
    assert row.split()[-1] == "0.500"  # predicted for the hops
    assert "I (log n)^1.5 / (n^0.5 log log n)" in text


def test_series_keep_the_seeds_that_all_sizes_have():
    results = made_up(0.1)
    results.pop(Cell(HALF, CHAIN, 1024, seed=2))
    of = report.groups(results)[report.Group(HALF, "0")]
    assert of[CHAIN].best_path.shape == (3, 3)
    assert report.advantage(of[CHAIN], of[TREE], "best_path").shape == (3, 3)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Cell(HALF, CHAIN, 1), "1 comparisons"),
        (lambda: Cell(HALF, CHAIN, 8, queries=1), "1 queries"),
        (lambda: Cell(HALF, CHAIN, 8, noise="2"), "'n\\^-alpha'"),
        (lambda: Cell(HALF, topology.Tree("n/2", 5.0), 2**14), "gamma at most"),
        (lambda: list(sweep([], workers=0)), "0 workers"),
        (lambda: topology.measure_on_device([]), "0 cells"),
        (lambda: report.groups({}), "no results"),
    ],
)
def test_what_makes_no_sense_is_refused(make, told):
    with pytest.raises(UserError, match=told):
        make()
