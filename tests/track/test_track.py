"""What is tracked can be read back, resumed, seen and trusted."""

import json
import math
import os
import time

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from PIL import Image

from jaxalign.track import (
    Composite,
    Jsonl,
    Progress,
    TensorBoard,
    evaluation_table,
    figures,
    interval,
    learning_curve,
    learning_curves_over_seeds,
    progress,
    read_jsonl,
)


def lines(path):
    return [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]


def written(path, steps, resume_step=None):
    tracker = Jsonl(path, resume_step)
    for step in steps:
        tracker.log(step, {"loss": step / 10})
    tracker.close()
    return path


# --- tracker


def test_jsonl_is_strict_and_flushed_line_by_line(tmp_path):
    tracker = Jsonl(tmp_path / "new" / "metrics.jsonl")
    tracker.log(10, {"a": math.nan, "b": -math.inf, "c": np.float32(0.5)})
    assert lines(tmp_path / "new" / "metrics.jsonl") == [{"env_steps": 10, "a": None, "b": None, "c": 0.5}]
    tracker.log(20, {"a": 1})
    assert len(lines(tmp_path / "new" / "metrics.jsonl")) == 2
    tracker.close()


def test_jsonl_starts_afresh_without_a_resume_step(tmp_path):
    path = written(tmp_path / "m.jsonl", [10, 20])
    assert [row["env_steps"] for row in lines(written(path, [5]))] == [5]


def test_jsonl_resumes_after_the_checkpoint(tmp_path):
    path = written(tmp_path / "m.jsonl", [10, 20, 30])
    with path.open("a") as file:
        file.write('{"env_steps": 40, "lo')
    assert [row["env_steps"] for row in read_jsonl(path)] == [10, 20, 30]
    written(path, [25, 35], resume_step=20)
    assert lines(path) == [{"env_steps": s, "loss": s / 10} for s in (10, 20, 25, 35)]
    assert os.listdir(tmp_path) == ["m.jsonl"]


def test_jsonl_keeps_a_whole_last_line_without_its_line_break(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"env_steps": 10, "a": 1}\n{"env_steps": 20, "a": 2}')
    written(path, [30], resume_step=20)
    assert [row["env_steps"] for row in lines(path)] == [10, 20, 30]


def test_jsonl_resumes_where_there_is_no_file(tmp_path):
    assert len(lines(written(tmp_path / "m.jsonl", [10], resume_step=5))) == 1


@pytest.mark.parametrize("bad", ["{cut", "[1]", '{"loss": 1}', ""])
def test_corruption_in_the_middle_is_reported_and_left_alone(tmp_path, bad):
    path = tmp_path / "m.jsonl"
    path.write_text(text := '{"env_steps": 1}\n' + bad + '\n{"env_steps": 2}\n')
    with pytest.raises(ValueError, match=r"m\.jsonl, line 2 is no JSON object"):
        read_jsonl(path)
    with pytest.raises(ValueError, match="line 2"):
        Jsonl(path, resume_step=2)
    assert path.read_text() == text


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.jsonl"):
        read_jsonl(tmp_path / "nothing.jsonl")


def events(directory):
    from tensorboardX.proto import event_pb2

    for path in sorted(directory.iterdir()):
        data = path.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            yield event_pb2.Event.FromString(data[12 : 12 + size])
            data = data[16 + size :]


def test_tensorboard_writes_finite_scalars_and_purges_only_what_comes_after_the_checkpoint(tmp_path):
    tracker = TensorBoard(tmp_path, resume_step=100)
    tracker.log(120, {"a": 1.5, "b": math.nan})
    tracker.close()
    found = list(events(tmp_path))
    scalars = [(e.step, v.tag, v.simple_value) for e in found for v in e.summary.value]
    assert scalars == [(120, "a", 1.5)]
    assert [e.step for e in found if e.HasField("session_log")] == [101]


class Recorder:
    def __init__(self, fails=False):
        self.calls, self._fails = [], fails

    def log(self, step, metrics):
        self.calls.append((step, dict(metrics)))

    def close(self):
        self.calls.append("closed")
        if self._fails:
            raise OSError("disk full")


def test_composite_logs_to_all_and_closes_all_despite_a_failure():
    trackers = [Recorder(), Recorder(fails=True), Recorder()]
    composite = Composite(trackers)
    composite.log(3, {"a": 1.0})
    with pytest.raises(OSError, match="disk full"):
        composite.close()
    assert [tracker.calls for tracker in trackers] == [[(3, {"a": 1.0}), "closed"]] * 3


# --- progress


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


METRICS = {"episode_return": 7.25, "episode_cost/hazards": 12.34, "multiplier/hazards": 0.4, "loss": 3.0}


def test_plain_lines_come_every_ten_seconds_and_at_the_end(capsys, clock):
    shown = Progress(1000, cost_limits=[25.0])
    for step in range(100, 1000, 100):
        shown.log(step, METRICS)
        clock[0] += 4
    shown.close()
    shown.close()
    out = capsys.readouterr().err
    assert "\r" not in out
    assert [line.split("/")[0] for line in out.splitlines()] == ["100", "400", "700", "900"]
    assert out.splitlines()[0] == "100/1,000 env-steps  return 7.2  cost 12.3/25  lambda 0.4"
    assert out.splitlines()[1].endswith("25.0 steps/s  00:24 left")  # 300 steps in 12 s, 600 to go


def test_the_bar_shows_the_same(capsys, clock):
    shown = Progress(1000, initial=500, cost_limits=[25.0], disable=False)
    shown.log(600, METRICS)
    clock[0] += 10
    shown.log(800, METRICS)
    shown.close()
    last = capsys.readouterr().err.split("\r")[-1]
    assert "800/1.00k" in last
    assert "cost 12.3/25  lambda 0.4  20.0 steps/s  00:10 left" in last


def test_several_constraints_are_named_and_unfinished_episodes_left_out(capsys):
    shown = Progress(1000, cost_limits=[25.0, 10.0])
    costs = {
        "episode_cost/hazards": 1.0,
        "episode_cost/vases": 2.0,
        "multiplier/hazards": 0.5,
        "multiplier/vases": 0.25,
    }
    shown.log(100, {"episode_return": math.nan} | costs)
    shown.close()
    line = capsys.readouterr().err.splitlines()[0]
    assert line == "100/1,000 env-steps  hazards 1.0/25  lambda 0.5  vases 2.0/10  lambda 0.25"


@pytest.mark.parametrize("disable", [None, False])
def test_compiling_is_shown_until_the_first_log(capsys, monkeypatch, disable):
    monkeypatch.setattr(progress, "_TICK", 0.02)
    monkeypatch.setattr(progress, "_PLAIN_PERIOD", 0.02)
    shown = Progress(1000, disable=disable)
    time.sleep(0.3)
    assert "compiling 00:00" in capsys.readouterr().err
    shown.log(1, {})
    capsys.readouterr()
    time.sleep(0.1)
    assert "compiling" not in capsys.readouterr().err
    shown.close()


def test_disabled_shows_nothing(capsys):
    shown = Progress(1000, disable=True)
    shown.log(1000, METRICS)
    shown.close()
    assert capsys.readouterr().err == ""


# --- figures


def rows(costs=(30.0, 20.0, 10.0), **more):
    return [
        {"env_steps": 100 * (i + 1), "episode_return": float(i), "episode_cost/hazards": cost} | more
        for i, cost in enumerate(costs)
    ]


def dashed(panel):
    return [line.get_ydata()[0] for line in panel.lines if line.get_linestyle() == "--"]


def test_learning_curve_has_gaps_limits_and_a_multiplier_panel():
    data = rows((30.0, None, 10.0), **{"multiplier/hazards": 0.5, "episode_cost/vases": 5.0})
    del data[2]["episode_return"]
    top, middle, bottom = figures._curve_figure(data, {"hazards": 25.0, "vases": 8.0}, "run").axes
    np.testing.assert_array_equal(top.lines[0].get_ydata(), [0, 1, np.nan])
    np.testing.assert_array_equal(middle.lines[0].get_ydata(), [30, np.nan, 10])
    np.testing.assert_array_equal(middle.lines[0].get_xdata(), [100, 200, 300])
    assert dashed(middle) == [25.0, 8.0]
    np.testing.assert_array_equal(bottom.lines[0].get_ydata(), [0.5] * 3)
    assert [panel.get_ylabel() for panel in (top, middle, bottom)] == [
        "return per episode",
        "cost per episode",
        "multiplier",
    ]
    assert bottom.get_xlabel() == "env-steps"


def test_learning_curve_png_shows_the_limit_line(tmp_path):
    for limit, path in ((25.0, tmp_path / "with.png"), (None, tmp_path / "without.png")):
        learning_curve(rows(), path, {} if limit is None else {"hazards": limit}, "run")
    orange = np.array(to_rgba(figures._COLOURS[1])[:3]) * 255
    widest = []
    for name in ("with.png", "without.png"):
        picture = np.asarray(Image.open(tmp_path / name).convert("RGB")).astype(int)
        widest.append((np.abs(picture - orange).max(axis=-1) < 30).sum(axis=1).max())
    assert widest[0] > 300 > 2 * widest[1]
    assert sorted(os.listdir(tmp_path)) == ["with.png", "without.png"]


@pytest.mark.parametrize("data", [[], [{"env_steps": 5, "episode_return": None, "loss": 1.0}]])
def test_no_finished_episode_is_said(tmp_path, data):
    learning_curve(data, tmp_path / "a.png", {"hazards": 25.0}, "run")
    learning_curves_over_seeds({"ppo": [data]}, tmp_path / "b.png", {"hazards": 25.0}, "runs")
    for figure in (
        figures._curve_figure(data, {"hazards": 25.0}, "run"),
        figures._seeds_figure({"ppo": [data]}, {"hazards": 25.0}, "runs"),
    ):
        assert [text.get_text() for text in figure.axes[0].texts] == ["no finished episode yet"]
        assert dashed(figure.axes[1]) == [25.0]


def test_seeds_are_averaged_on_the_steps_they_share():
    one = [{"env_steps": s, "episode_return": s / 100} for s in (100, 300, 500)]
    two = [{"env_steps": s, "episode_return": s / 100 + 2} for s in (200, 250, 400)] + [{"env_steps": 900}]
    steps, mean, half_width = figures._band([one, two, []], "episode_return")
    assert (steps[0], steps[-1]) == (200, 400)
    np.testing.assert_allclose(mean, steps / 100 + 1)
    np.testing.assert_allclose(half_width, 12.7062, rtol=1e-5)  # t(0.975, 1) * sqrt(2) / sqrt(2)


def test_seeds_figure_has_one_line_per_label_and_the_limits(tmp_path):
    runs = {"ppo": [rows(), rows((40.0, 30.0, 20.0))], "lagrangian": [rows()]}
    returns, costs = figures._seeds_figure(runs, {"hazards": 25.0}, "runs").axes
    assert [line.get_label() for line in returns.lines] == ["ppo (2 seeds)", "lagrangian (1 seed)"]
    assert np.asarray(costs.lines[0].get_ydata())[0] == pytest.approx(35.0)
    assert dashed(costs) == [25.0]
    learning_curves_over_seeds(runs, tmp_path / "runs.png", {"hazards": 25.0}, "runs")
    with Image.open(tmp_path / "runs.png") as picture:
        assert picture.format == "PNG"


# --- table


def test_interval_by_hand():
    # mean 3, standard deviation sqrt(2.5), t(0.975, 4) = 2.776445
    assert interval([1, 2, 3, 4, 5]) == pytest.approx((3.0, 2.776445 * math.sqrt(2.5 / 5)), rel=1e-6)
    mean, half_width = interval([4.0])
    assert mean == 4.0
    assert math.isnan(half_width)


@pytest.mark.filterwarnings("error")
def test_interval_of_nothing():
    assert all(map(math.isnan, interval([])))


@pytest.mark.parametrize(
    ("limit", "verdict"),
    [
        (4.9, "met (within error)"),
        (5.0, "met (certain)"),
        (3.0, "met (within error)"),
        (2.9, "not met (within error)"),
        (1.0, "not met (certain)"),
    ],
)
def test_table_verdicts(limit, verdict):
    costs = {"hazards": [1.0, 2.0, 3.0, 4.0, 5.0]}  # 95 % interval [1.04, 4.96]
    heading, _, returns, cost = evaluation_table([10.0, 12.0], costs, {"hazards": limit}).splitlines()
    assert heading.split() == ["mean", "95", "%", "interval", "limit", "met?"]
    assert returns.split() == ["return", "11.00", "[-1.71,", "23.71]", "-", "-"]
    assert cost.split() == ["cost", "hazards", "3.00", "[1.04,", "4.96]", f"{limit:.2f}", *verdict.split()]
    assert heading.index("met?") == cost.index(verdict)


def test_one_episode_is_never_certain():
    assert evaluation_table([1.0], {"hazards": [0.0]}, {"hazards": 25.0}).endswith("met (within error)")


def test_table_refuses_what_it_cannot_judge():
    with pytest.raises(ValueError, match="finished episodes"):
        evaluation_table([], {"hazards": []}, {"hazards": 1.0})
    with pytest.raises(ValueError, match="same constraints"):
        evaluation_table([1.0], {"hazards": [1.0]}, {"vases": 1.0})
