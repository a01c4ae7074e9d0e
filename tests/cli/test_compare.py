"""`jaxalign compare`: runs are grouped by what they share, drawn with their limits, and tabulated."""

import dataclasses
import json

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image

from jaxalign import saferl, track
from jaxalign.cli import compare as module
from jaxalign.cli import run
from jaxalign.cli.compare import Compare, compare
from jaxalign.core.errors import UserError


def fabricated(out, name, height, evaluated=True, **settings):
    """A run that has risen to `height` in return and sunk to it in cost."""
    config = run.TrainConfig(**{"env": "SafetyPointGoal1-v0", "out": out, "name": name} | settings)
    folder = out / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(run.to_json(config)))
    tracker = track.Jsonl(folder / "metrics.jsonl")
    for step in (100, 200, 300):
        costs = {f"episode_cost/{cost}": 300 / step * height for cost in config.costs}
        tracker.log(step, {"episode_return": step / 300 * height} | costs)
    tracker.close()
    if evaluated:
        values = [height - 1.0, height + 1.0]
        outcome = {"return": values, "cost": {cost: [2 * x for x in values] for cost in config.costs}}
        (folder / "evaluation.json").write_text(json.dumps(outcome))
    return folder


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved."""
    figures, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k)))
    return figures


def test_seeds_are_averaged_and_rows_tabulated(tmp_path, drawn, capsys):
    folders = [fabricated(tmp_path, f"a{seed}", 10.0 + seed, seed=seed) for seed in (0, 2)]
    folders += [fabricated(tmp_path, "b", 14.0, algorithm="cpo")]
    folders += [fabricated(tmp_path, "c", 9.0, algorithm="trpo_lag", evaluated=False)]
    table = compare(Compare(tuple(folders), tmp_path / "new" / "figure.png"))
    half = track.interval([10.0, 12.0])[1]
    cells = [line.split() for line in table.splitlines()[2:]]
    assert (
        cells[0]
        == (
            f"ppo_lag 2 11.00 [{11 - half:.2f}, {11 + half:.2f}] 22.00 [{22 - 2 * half:.2f}, {22 + 2 * half:.2f}] 25.00"
            " met (within error)"
        ).split()
    )
    assert cells[1][:3] == ["cpo", "1", "14.00"]
    assert cells[1][-5:] == ["25.00", "not", "met", "(within", "error)"]
    assert cells[2] == ["trpo_lag", "0", "-", "-", "-", "-", "25.00", "not", "evaluated"]
    assert table in capsys.readouterr().out
    with Image.open(tmp_path / "new" / "figure.png") as image:
        assert image.format == "PNG"
    (figure,) = drawn
    upper, lower = figure.axes
    assert [text.get_text() for text in upper.get_legend().get_texts()] == [
        "ppo_lag (2 seeds)",
        "cpo (1 seed)",
        "trpo_lag (1 seed)",
    ]
    mean = upper.lines[0]
    np.testing.assert_allclose(np.interp([100, 300], mean.get_xdata(), mean.get_ydata()), [11 / 3, 11])
    assert [line.get_ydata()[0] for line in lower.lines if line.get_linestyle() == "--"] == [25.0]


def test_what_varies_is_in_the_label_and_every_limit_is_drawn(tmp_path, drawn):
    wide = dataclasses.replace(saferl.OnPolicyConfig(), hidden=(32, 32))
    folders = [
        fabricated(tmp_path, "a", 1.0, cost_limit=(10.0,)),
        fabricated(tmp_path, "b", 2.0, cost_limit=(25.0,), learner=wide),
        fabricated(tmp_path, "c", 3.0, cost_limit=(25.0,), algorithm="sac_lag"),  # has no such sizes
    ]
    trained = {folder: run.read_config(folder) for folder in folders}
    first, second, third = module.labelled(trained)
    assert first == "ppo_lag, cost_limit 10, learner.hidden 64 64"
    assert second == "ppo_lag, cost_limit 25, learner.hidden 32 32"
    assert third == "sac_lag, cost_limit 25"
    compare(Compare(tuple(folders), tmp_path / "figure.png"))
    limits = [line.get_ydata()[0] for line in drawn[0].axes[1].lines if line.get_linestyle() == "--"]
    assert limits == [10.0, 25.0]


def test_many_curves_are_told_apart(tmp_path, drawn):
    folders = [fabricated(tmp_path, str(i), 1.0, cost_limit=(float(i),)) for i in range(14)]
    compare(Compare(tuple(folders), tmp_path / "figure.png"))
    lines = drawn[0].axes[0].lines
    assert len({(to_rgba(line.get_color()), line.get_linestyle()) for line in lines}) == 14


def test_mistakes_are_named(tmp_path):
    a = fabricated(tmp_path, "a", 1.0)
    for runs, message in (
        ((), "nothing to compare"),
        ((a, tmp_path / "missing"), "missing/config.json does not exist; give the folder of a run"),
        ((a, fabricated(tmp_path, "b", 1.0, env="SafetyCarGoal1-v0")), "of SafetyPointGoal1-v0 and of SafetyCarGoal1"),
        ((a, fabricated(tmp_path, "c", 1.0)), "a and .*c have the same settings and seed"),
    ):
        with pytest.raises(UserError, match=message):
            compare(Compare(runs, tmp_path / "figure.png"))
    with pytest.raises(UserError, match=r"ends in .png"):
        compare(Compare((a,), tmp_path / "figure.pdf"))
    (a / "evaluation.json").write_text("{}")
    with pytest.raises(UserError, match="jaxalign resume"):
        compare(Compare((a,), tmp_path / "figure.png"))
    (a / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match="no metrics file"):
        compare(Compare((a,), tmp_path / "figure.png"))
