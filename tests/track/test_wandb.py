"""The Weights & Biases tracker: what it sends, how a resumed run goes on, and what is said where it is missing."""

import math
import sys

import numpy as np
import pytest

from jaxalign.core.errors import UserError
from jaxalign.track import Tracker
from jaxalign.track.wandb import Wandb


class Sent:
    """Stands for the library and for its run: what is called, in order."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        def call(*args, **kwargs):
            self.calls.append((name, *args, kwargs))
            return self

        return call


@pytest.fixture
def sent(monkeypatch):
    library = Sent()
    monkeypatch.setitem(sys.modules, "wandb", library)
    return library


def test_finite_metrics_go_out_over_env_steps(sent, tmp_path):
    tracker = Wandb("project", tmp_path / "new", "run", {"seed": 3})
    assert isinstance(tracker, Tracker)
    tracker.log(20, {"a": np.float32(0.5), "b": math.nan, "c": -math.inf, "d": 1})
    tracker.close()
    (_, begun), axis, logged, (end, _) = sent.calls
    assert (begun["project"], begun["name"], begun["config"]) == ("project", "run", {"seed": 3})
    assert axis == ("define_metric", "*", {"step_metric": "env_steps"})
    assert logged == ("log", {"env_steps": 20, "a": 0.5, "d": 1.0}, {})
    assert all(type(value) in (int, float) for value in logged[1].values())
    assert end == "finish"


def test_a_resumed_run_goes_on_under_its_identifier(sent, tmp_path):
    for resume_step in (None, 100, None):
        Wandb("project", tmp_path, resume_step=resume_step)
    first, resumed, fresh = (call[-1]["id"] for call in sent.calls if call[0] == "init")
    assert first == resumed != fresh


def test_the_extra_is_named_where_it_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r'pip install "jaxalign\[wandb\]"'):
        Wandb("project", tmp_path / "new")
    assert not (tmp_path / "new").exists()
