"""The experiment of the Monte Carlo study: its cells, and that it goes on where it stopped."""

import importlib
import sys
from pathlib import Path

import pytest

from jaxalign.core.errors import UserError

FOLDER = str(Path(__file__).parents[2] / "experiments" / "ibn")


@pytest.fixture(scope="module")
def ibn():
    """Its two modules, forgotten afterwards since other experiments have modules of the same names."""
    sys.path.insert(0, FOLDER)
    try:
        yield importlib.import_module("run")
    finally:
        while FOLDER in sys.path:
            sys.path.remove(FOLDER)
        for name in ("run", "config"):
            sys.modules.pop(name, None)


def test_finished_networks_are_not_measured_again(ibn, tmp_path, monkeypatch):
    config = ibn.Config(arms=("families",), smallest=4, largest=5, seeds=2, queries=4, workers=1, out=tmp_path)
    results = ibn.measured(config, "families")
    assert len(results) == 2 * 2 * 3 * 3 * 2  # sizes, families, alphas, shapes, seeds
    path = tmp_path / "families.jsonl"
    lines = path.read_text().splitlines()
    assert len(lines) == len(results)
    path.write_text("\n".join(lines[:-3]) + "\n")
    asked = []
    whole = ibn.topology.sweep
    monkeypatch.setattr(ibn.topology, "sweep", lambda cells, workers: whole(asked.append(len(cells)) or cells, workers))
    assert ibn.measured(config, "families") == results
    assert asked == [3]


def test_arms_stop_where_they_should(ibn):
    config = ibn.Config()
    assert max(cell.comparisons for cell in config.cells("separation")) == 2**17
    assert max(cell.comparisons for cell in config.cells("gamma")) == 2**14
    assert {cell.noise for cell in config.cells("noise")} == {"n^-alpha", "1", "10"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"arms": ("moon",)}, "'moon'"),
        ({"arms": ()}, "choose from separation"),
        ({"smallest": 9, "largest": 9}, "Sizes go from"),
        ({"largest": 20}, "gamma at most"),
        ({"seeds": 1}, "seeds is 1"),
        ({"workers": 0}, "workers 0"),
    ],
)
def test_what_makes_no_sense_is_refused(ibn, change, told):
    with pytest.raises(UserError, match=told):
        ibn.Config(**change)
