"""The exact theory: closed forms against differences, automatic differentiation and token trees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.core.errors import UserError
from jaxalign.elasticity import figures, theory
from jaxalign.elasticity.token_tree import END, TokenTree, compression_rate, normalised_compression_rate, union

SIZES = (1, 10, 100, 1000)  # k
LEAVES = 12


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def sources(shape):
    """Three distributions; "mixed" has a different one in each."""
    rank = np.arange(1, LEAVES + 1)
    rows = {"pareto": theory.pareto(LEAVES, 1.2), "uniform": np.ones(LEAVES), "geometric": 0.6**rank}
    chosen = [*rows.values()] if shape == "mixed" else [rows[shape]] * 3
    return np.stack([row / row.sum() for row in chosen])


def differences(sets, k, l, step=1e-3):
    """Of both rates by l, from five points: the error is of order step^4."""
    values = np.array([theory.rates(sets, k, l + i * step) for i in (-2, -1, 1, 2)])
    return np.array([1, -8, 8, -1]) @ values / (12 * step)


@pytest.mark.parametrize("shape", ["pareto", "uniform", "geometric", "mixed"])
@pytest.mark.parametrize("k", SIZES)
def test_theorem_by_differences_for_any_shape(k, shape):
    sets = theory.subpopulations(sources(shape))
    for l in (1e-3, 0.1, 0.5, 0.8):
        alignment, pretraining = differences(sets, k, l)
        exact = theory.theorem(k, l)
        assert alignment == pytest.approx(exact.alignment, rel=1e-8)
        assert pretraining == pytest.approx(exact.pretraining, abs=1e-9, rel=1e-6)
        assert alignment > 0
        assert np.sign(round(pretraining, 8)) == np.sign(l - 0.5)


@pytest.mark.parametrize("k", SIZES)
def test_factor_is_minus_k_at_the_start(k):
    sets = theory.subpopulations(sources("pareto"))
    assert float(theory.derivatives(sets, k, 1e-9).ratio) == pytest.approx(-k, rel=1e-6)
    assert float(theory.theorem(k, 0.0).ratio) == -k
    for l in (0.01, 0.3, 0.9):
        found, exact = theory.derivatives(sets, k, l), theory.theorem(k, l)
        np.testing.assert_allclose(found, exact, rtol=1e-9)


@pytest.mark.parametrize("k", SIZES)
def test_disjoint_sets_are_not_elastic(k):
    sets = theory.disjoint_sets(sources("pareto"))
    for l in (1e-3, 0.2):
        np.testing.assert_allclose(differences(sets, k, l), [1 / (k + 1 + l)] * 2, rtol=1e-5)
        np.testing.assert_allclose(theory.derivatives(sets, k, l), theory.theorem_disjoint(k, l), rtol=1e-9)
    assert theory.theorem_disjoint(k, 0.1).ratio == 1


def overlapping(seed, covered=True):
    """Any three distributions; `covered`: the model has all leaves of the perturbation at l = 0."""
    random = np.random.default_rng(seed)
    rows = random.dirichlet(np.full(9, 0.7), 3)
    rows[0, :2] = rows[1, 2:4] = 0
    if not covered:
        rows[:2, 8] = 0
    return theory.Sets(*(rows / rows.sum(axis=1, keepdims=True)))


@pytest.mark.parametrize("seed", range(4))
def test_derivative_of_any_sets_is_that_of_autodiff(seed):
    sets, k, l = overlapping(seed), 7.0, 0.4
    slopes = jax.jacfwd(lambda l: jnp.stack(theory.rates(sets, k, l)))(l)
    np.testing.assert_allclose(theory.derivatives(sets, k, l)[:2], slopes, rtol=1e-10)


@pytest.mark.parametrize("seed", range(4))
def test_forces_balance_and_so_the_factor_is_minus_k_where_the_model_covers(seed):
    k = 7.0
    for l in (1e-6, 0.4, 3.0):
        forces = np.asarray(theory.balance(overlapping(seed), k, l))
        assert abs(forces.sum()) < 1e-9 < abs(forces).max()
        moved = jax.grad(lambda l: theory.rate(overlapping(seed).perturbation, theory.fitted(overlapping(seed), k, l)))
        assert forces[2] == pytest.approx(l * float(moved(l)), rel=1e-8, abs=1e-14)
    start = theory.derivatives(overlapping(seed), k, 0.0)  # so that -k needs no equal sub-populations
    assert float(start.ratio) == pytest.approx(-k, rel=1e-9)
    uncovered = overlapping(seed, covered=False)  # then the perturbation's own force stays: the share that is new
    forces, new = np.asarray(theory.balance(uncovered, k, 1e-12)), uncovered.perturbation[8]
    np.testing.assert_allclose([forces[:2].sum(), forces[2]], [new, -new], rtol=1e-6)


def test_hooke_holds_with_the_data_first_and_not_with_the_model_first():
    k, l, sets = 50.0, 1e-7, theory.subpopulations(sources("pareto"))

    def data_first(l):
        model = theory.fitted(sets, k, l)
        return jnp.stack([theory.rate(x, model) - theory.rate(x, x) for x in (sets.pretraining, sets.alignment)])

    pretraining, alignment = np.asarray(jax.jacfwd(data_first)(l))
    assert k * pretraining == pytest.approx(-alignment, rel=1e-5)

    def model_first(l, smoothing):
        model = theory.fitted(sets, k, l)
        smooth = [(1 - smoothing) * x + smoothing / x.size for x in (sets.pretraining, sets.alignment)]
        return jnp.stack([jnp.sum(model * jnp.log(model / x)) for x in smooth])

    forces = {}
    for smoothing in (1e-3, 1e-6):
        moved = theory.smoothed_kl_derivative(sets, k, l, smoothing)
        np.testing.assert_allclose(moved, jax.jacfwd(model_first)(l, smoothing), rtol=1e-9)
        forces[smoothing] = np.asarray(moved) * [k, 1]
    grown = forces[1e-6][1] - forces[1e-3][1]
    assert grown == pytest.approx(np.log(1e3) / 3 / (k + 1), rel=0.1)  # a third of the leaves are the perturbation's
    assert forces[1e-6][1] > 3 * abs(forces[1e-6][0])


def test_rates_are_those_of_token_trees():
    """The same mixture by `token_tree.union`, pruned or not; the normalisation does not move with l."""
    rows = np.random.default_rng(0).dirichlet(np.ones(8), 3)
    paths = [(a, b, c, END) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    trees, k = [TokenTree(dict(zip(paths, row))) for row in rows], 5.0
    for depth in (2, 4):
        coarse = rows.reshape(3, 4, 2).sum(axis=2) if depth == 2 else rows
        sets = theory.Sets(*coarse)
        found = [compression_rate(trees[1], union(trees, [k, 1, l]), depth) * depth * np.log(2) for l in (0.3, 0.4)]
        np.testing.assert_allclose(found, [float(theory.rates(sets, k, l)[0]) for l in (0.3, 0.4)], rtol=1e-12)
        shifted = [normalised_compression_rate(trees[1], union(trees, [k, 1, l]), depth) for l in (0.3, 0.4)]
        assert (shifted[1] - shifted[0]) * depth * np.log(2) == pytest.approx(found[1] - found[0])


def test_pareto_leaves_have_a_pareto_tail():
    shape, mass = 1.5, np.sort(theory.pareto(20_000, 1.5))[::-1]
    share = np.arange(1, len(mass) + 1) / len(mass)
    slope = np.polyfit(np.log(mass[20:4000]), np.log(share[20:4000]), 1)[0]
    assert slope == pytest.approx(-shape, rel=0.02)
    assert mass.sum() == pytest.approx(1)


def test_a_rate_without_a_code_is_infinite():
    sets = theory.disjoint_sets(sources("uniform"))
    assert theory.rate(sets.perturbation, theory.fitted(sets, 3.0, 0.0)) == np.inf


def test_figure(tmp_path):
    figures.theorem(tmp_path / "new" / "theory.png")
    assert (tmp_path / "new" / "theory.png").stat().st_size > 10_000


def test_what_is_refused():
    with pytest.raises(UserError, match="no distribution"):
        theory.subpopulations(np.array([[0.5, 0.5], [0.5, 0.5], [0.5, 0.6]]))
    with pytest.raises(UserError, match="shape 0"):
        theory.pareto(3, 0.0)
    with pytest.raises(UserError, match="smoothing is 0"):
        theory.smoothed_kl_derivative(theory.subpopulations(sources("uniform")), 3.0, 0.0, 0.0)
