"""The demonstration of reward models: its judgements by hand, its mistakes named, and (slow) all of it in small."""

import json

import numpy as np
import pytest

from jaxalign.cli import rlhf
from jaxalign.core.errors import UserError
from jaxalign.rewards.facts_world import BOS, EOS, PAD, REFUSAL, SEP, Facts


def test_outcome_by_hand():
    benign, harmful = [BOS, 42, 46, 8, 9, 10, 11, 12, 13, SEP], [BOS, 38, 46, 8, 9, 10, 11, 12, 13, SEP]
    answers = [[8, 9, EOS], [*REFUSAL, EOS], [8, 9, 28, 29, EOS], [*REFUSAL, EOS], [8, EOS]]
    responses = np.array([y + [PAD] * (12 - len(y)) for y in answers], np.int32)
    found = rlhf.outcome(Facts(), np.array([benign] * 3 + [harmful] * 2, np.int32), responses)
    np.testing.assert_allclose(found.gold, [1, -1, 0.7, 1, -1])
    assert found.over_refusal == pytest.approx(1 / 3)
    assert found.right_refusal == 0.5
    assert found.length_ratio == pytest.approx((1 + 2) / 2)


def test_examples_end_with_their_eos():
    prompt, response = np.array([[PAD, BOS, 9, SEP]], np.int32), np.array([[8, EOS, PAD], [8, 9, 10]], np.int32)
    first, second = rlhf.examples(np.repeat(prompt, 2, 0), response)
    assert first.tokens.tolist() == [BOS, 9, SEP, 8, EOS]
    assert second.tokens.tolist() == [BOS, 9, SEP, 8, 9, 10]
    assert first.learn.sum() == 2
    assert second.learn.sum() == 3


def test_wins_are_paired_and_ties_are_half():
    a, b = np.array([1.0, 1.0, 0.0, 2.0] * 50), np.array([0.0, 1.0, 1.0, 1.0] * 50)
    rate, low, high = rlhf.win_rate(a, b)
    assert rate == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    half = 1.96 * np.std([1, 0.5, 0, 1]) / 200**0.5
    assert (rate - low, high - rate) == pytest.approx((half, half), rel=0.15)


@pytest.mark.parametrize("change", [{"pairs": 0}, {"iterations": -1}, {"test_prompts": 1}, {"kl": -0.1}])
def test_numbers_that_make_no_sense(change):
    with pytest.raises(UserError, match=next(iter(change)).replace("_", "-")):
        rlhf.RlhfDemo(**change)


@pytest.mark.slow
def test_the_demonstration_leaves_its_records(tmp_path, capsys):
    config = rlhf.RlhfDemo(pairs=100, sft_steps=15, rm_steps=15, iterations=2, prompts=8, test_prompts=20, out=tmp_path)
    runs = rlhf.demo(config)
    assert "seq2seq against scalar: wins" in capsys.readouterr().out
    assert (tmp_path / "rlhf_demo.png").stat().st_size > 1000
    record = json.loads((tmp_path / "rlhf_demo.json").read_text())
    for name in ("scalar", "seq2seq"):
        assert [point["iteration"] for point in record[name]] == [0, 1, 2]
        assert record[name][-1]["gold"] == pytest.approx(runs[name][-1].outcome.gold.mean())
        assert record[name][0]["kl"] == pytest.approx(0.0, abs=1e-5)  # starts at its reference
        assert record[name][-1]["kl"] > 0
