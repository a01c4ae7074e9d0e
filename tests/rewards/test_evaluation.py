"""Accuracy, calibration and RewardBench's weighting against numbers worked out by hand or in another way."""

import math

import numpy as np
import pytest

from jaxalign.core.errors import UserError
from jaxalign.rewards import SECTIONS, accuracy, benchmark, calibration


def test_accuracy_counts_ties_half():
    assert accuracy([1.0, 2.0, 0.0, 5.0], [0.0, 2.0, 1.0, 4.0]) == (1 + 0.5 + 0 + 1) / 4


def test_a_true_bradley_terry_model_is_calibrated_and_an_exaggerated_one_is_not():
    random = np.random.default_rng(0)
    difference = random.normal(size=100_000) * 1.5
    wins = random.random(difference.size) < 1 / (1 + np.exp(-difference))
    chosen = np.where(wins, difference, -difference)
    honest, loud = calibration(chosen, 0 * chosen), calibration(3 * chosen, 0 * chosen)
    assert honest.ece < 0.01
    p = 1 / (1 + np.exp(-3 * np.abs(difference)))
    assert math.isclose(loud.ece, (p - (chosen > 0)).mean(), rel_tol=0.02)  # overconfident in every bin
    assert honest.nll < loud.nll
    assert honest.count.sum() == loud.count.sum() == 100_000
    q = 1 / (1 + np.exp(-chosen))
    np.testing.assert_allclose(honest.nll, -np.log(q).mean(), rtol=1e-9)
    np.testing.assert_allclose(honest.brier, ((1 - q) ** 2).mean(), rtol=1e-9)


def test_calibration_by_hand():
    """Confidences 0.64, 0.64, 0.93; the first two right and wrong, the third right."""
    logit = lambda p: math.log(p / (1 - p))
    found = calibration([logit(0.64), -logit(0.64), logit(0.93)], [0.0] * 3, bins=5)
    np.testing.assert_allclose(found.ece, (2 * abs(0.5 - 0.64) + abs(1 - 0.93)) / 3, rtol=1e-9)
    assert found.count.tolist() == [0, 2, 0, 0, 1]
    np.testing.assert_allclose(found.accuracy[[1, 4]], [0.5, 1.0])
    np.testing.assert_allclose(found.confidence[[1, 4]], [0.64, 0.93])
    ignorant = calibration([0.0, 0.0], [0.0, 0.0])
    assert (ignorant.ece, ignorant.nll) == (0.0, math.log(2))


def test_sections_weigh_as_rewardbench_does():
    subsets = (
        ["alpacaeval-easy"] * 3 + ["mt-bench-easy"] + ["math-prm"] * 4 + ["hep-go"] * 2 + ["hep-rust"] * 6 + ["mine"]
    )
    right = [1, 1, 1, 0, *[1, 1, 1, 0], *[1, 0], *[1, 1, 1, 0, 0, 0], 1]
    found = benchmark(right, [0.5] * len(right), subsets)
    assert found.sections["Chat"] == 3 / 4
    code, math_prm = 4 / 8, 3 / 4
    np.testing.assert_allclose(found.sections["Reasoning"], (8 * math_prm + 8 * code) / 16)
    assert set(found.sections) == {"Chat", "Reasoning"}
    np.testing.assert_allclose(found.score, (0.75 + 0.625) / 2)
    assert found.subsets["mine"] == (1.0, 1)
    assert found.accuracy == sum(right) / len(right)
    assert "alpacaeval-easy" in found.table()
    own = benchmark(right, [0.5] * len(right), subsets, {"All": sorted({*subsets} - {"math-prm"})})
    np.testing.assert_allclose(own.score, (sum(right) - 3) / 13)


def test_sections_name_every_subset_once():
    names = [name for members in SECTIONS.values() for name in members]
    assert len(names) == len(set(names)) == 23


def test_faults():
    with pytest.raises(UserError, match="no pairs"):
        accuracy([], [])
    with pytest.raises(UserError, match="no pairs"):
        accuracy([1.0], [1.0, 2.0])
    with pytest.raises(UserError, match="Pair 1 has the rewards nan"):
        calibration([0.0, math.nan], [0.0, 1.0])
    with pytest.raises(UserError, match="0 bins"):
        calibration([0.0], [0.0], bins=0)
    with pytest.raises(UserError, match="1 subset names for 2 pairs"):
        benchmark([0.0, 1.0], [0.0, 1.0], ["a"])
