"""The demonstration of elasticity: mistakes named, and its compression in small."""

import json

import pytest

from jaxalign.cli import elasticity
from jaxalign.core.errors import UserError


@pytest.mark.parametrize("change", [{"sentences": 0}, {"test_sentences": -1}, {"steps": 0}, {"window": 4}])
def test_numbers_that_make_no_sense(change):
    with pytest.raises(UserError, match=next(iter(change)).replace("_", "-")):
        elasticity.Demo(**change)


@pytest.mark.slow
def test_the_demonstration_in_small(tmp_path, capsys):
    config = elasticity.Demo(sentences=200, test_sentences=20, steps=30, window=32, life=False, out=tmp_path)
    record = elasticity.demo(config)
    lines, header = record["lines"], 8 * 8 / record["bytes"]
    assert "the source itself" in capsys.readouterr().out
    assert lines["language model"] == pytest.approx(lines["its cross-entropy"] + header, abs=0.01)
    assert lines["the source itself"] < lines["language model"] < 8
    assert json.loads((tmp_path / "compression.json").read_text())["lines"] == lines
    for name in ("compression.png", "theory.png"):
        assert (tmp_path / name).stat().st_size > 10_000
