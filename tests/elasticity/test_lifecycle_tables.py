"""Rows and tables of lives that were never led, and the figures made from them."""

import numpy as np
import pytest

from jaxalign.core.errors import UserError
from jaxalign.elasticity import lifecycle_figures, lifecycle_tables
from jaxalign.elasticity.lifecycle import Resistance, Settings
from jaxalign.elasticity.measures import Observation
from jaxalign.elasticity.mitigation import Method

SETTINGS = Settings(seeds=(4, 7), volumes=(0, 9), aligned=(16, 32), slice=32, perturbation=32, every=16)


def observation(kl, shape):
    """Every measure is a function of its place; the KL is given."""
    ramp = np.arange(np.prod(shape), dtype=float).reshape(shape)
    bits = np.stack([ramp + d for d in range(4)], -1)
    return Observation(bits, kl, kl / 2, kl / 4, ramp / ramp.size, -ramp)


@pytest.fixture
def rows():
    """Two volumes; KL of the start 0.8 (1.6 for the second seed), a share of which is left at each point."""
    found = []
    for volume, left in ((0, (1.0, 0.9, 0.95)), (9, (1.0, 0.4, 0.2))):
        kl = np.zeros((1, 3, 2, 3))
        kl[0, 0] = (0.0, 0.08, 0.16)  # the base itself
        kl[0, 1:] = np.outer((0.8, 1.6), left)
        found += lifecycle_tables.rebound_rows(SETTINGS, volume, ("novel",), observation(kl, kl.shape))
    return found


def test_rebound_by_hand(rows):
    table = lifecycle_tables.rebound_table(rows, 64)
    assert [(line["volume"], line["aligned"]) for line in table] == [(0, 16), (0, 32), (9, 16), (9, 32)]
    line = table[3]
    np.testing.assert_allclose(line["start"].value, 1.2)
    np.testing.assert_allclose(line["lowest"].value, 0.2)
    np.testing.assert_allclose(line["floor"].value, np.mean([0.16 / 0.8, 0.16 / 1.6]))
    np.testing.assert_allclose(line["n_half"].value, 16 * 0.5 / 0.6)
    np.testing.assert_allclose(line["floor_kl"].value, 0.16)
    assert (line["reached"], table[0]["reached"], table[0]["n_half"].value) == (2, 0, np.inf)
    np.testing.assert_allclose(table[0]["lowest"].value, 0.9)
    np.testing.assert_allclose(line["spring_aligned"].value, 32 * 2)  # bits rise by 2 from first to last point
    np.testing.assert_allclose(line["spring_pretrained"].value, 9 * 64 * 2)


def test_rows_say_where_they_are_from(rows):
    row = next(r for r in rows if (r["aligned"], r["seed"], r["sequences"], r["volume"]) == (32, 7, 16, 9))
    place = np.ravel_multi_index((0, 2, 1, 1), (1, 3, 2, 3))
    assert row["kl"] == pytest.approx(0.64)
    assert (row["bits_safe"], row["bits_novel"], row["margin"]) == (place, place + 3, -place)


def test_what_is_written_is_read_again(rows, tmp_path):
    lifecycle_tables.write(tmp_path / "deep" / "rows.csv", rows)
    assert lifecycle_tables.read(tmp_path / "deep" / "rows.csv") == rows
    table = lifecycle_tables.rebound_table(rows, 64)
    lifecycle_tables.write(tmp_path / "table.csv", table)
    again = lifecycle_tables.read(tmp_path / "table.csv")
    assert again[0]["n_half"] == np.inf
    assert [line["lowest_low"] for line in again] == [line["lowest"].low for line in table]
    assert lifecycle_tables.text(table, ("volume", "n_half")).splitlines()[2] == "| 0 | never [never, never] |"


@pytest.fixture
def resistance():
    loss = np.zeros((2, 3, 2)) + np.array([1.0, 1.5])[:, None, None] + np.array([0.0, 0.2])
    entropy = np.full((2, 3, 2), 0.5)
    curve = np.broadcast_to(np.array([1.5, 1.1, 0.7]), (2, 3, 2, 3))
    found = Resistance(loss, entropy, curve[..., 0], np.ones_like(loss), curve)
    return lifecycle_tables.resistance_rows(SETTINGS, 9, 0.5, found)


def test_resistance_by_hand(resistance):
    (line, *_) = table = lifecycle_tables.resistance_table(resistance)
    assert [row["pair"] for row in table] == ["1-2", "2-3", "1-3"]
    np.testing.assert_allclose(line["loss_inverse"].value, 1.1)
    np.testing.assert_allclose(line["loss_difference"], [-0.5] * 3)  # paired: seeds do not spread
    np.testing.assert_allclose(line["excess_forward"].value, 1.1)
    np.testing.assert_allclose(line["n_half_inverse"].value, 16 + 16 * 0.1 / 0.4)


@pytest.fixture
def mitigation():
    methods = (Method("aligned"), Method("none"), Method("mixing", 0.1), Method("anchoring", 1.0))
    methods = (*methods, Method("averaging", 0.5))
    kl = np.array([[1.0, 2.0], [0.5, 0.5], [0.6, 0.6], [0.7, 0.7], [0.8, 0.8]])
    found = observation(kl, kl.shape)
    with pytest.raises(UserError, match="The first method is 'none'; put 'aligned'"):
        lifecycle_tables.mitigation_rows(SETTINGS, 9, "novel", methods[1:], found)
    return lifecycle_tables.mitigation_rows(SETTINGS, 9, "novel", methods, found)


def test_bargain_by_hand(mitigation):
    line = lifecycle_tables.mitigation_table(mitigation)[1]
    assert (line["name"], line["seeds"]) == ("none", 2)
    np.testing.assert_allclose([line["learned"].value, line["lost"].value], [-2.0, 2.0])
    np.testing.assert_allclose(line["kept"].value, np.mean([0.5, 0.25]))


def test_every_table_has_a_figure(rows, resistance, mitigation, tmp_path):
    table = lifecycle_tables.rebound_table(rows, 64)
    lifecycle_figures.rebound_figure(rows, table, tmp_path / "rebound.png")
    lifecycle_figures.n_half_figure(table, tmp_path / "n_half.png", SETTINGS.perturbation)
    lifecycle_figures.score_figure(rows, tmp_path / "score.png", "novel")
    lifecycle_figures.resistance_figure(lifecycle_tables.resistance_table(resistance), tmp_path / "resistance.png")
    lifecycle_figures.mitigation_figure(lifecycle_tables.mitigation_table(mitigation), tmp_path / "mitigation.png")
    assert sorted(path.stem for path in tmp_path.glob("*.png") if path.stat().st_size > 10_000) == [
        "mitigation",
        "n_half",
        "rebound",
        "resistance",
        "score",
    ]
