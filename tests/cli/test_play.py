"""`jaxalign play`: a film and its numbers, of random actions or of a trained policy."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from envs_mjx import render
from jaxalign.cli import play
from jaxalign.cli.main import main

ENV = "SafetyPointGoal0-v0"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder of a run of one iteration, with its film."""
    out = tmp_path_factory.mktemp("runs")
    sizes = ["--learner.num-envs", "8", "--learner.rollout-length", "40", "--learner.hidden", "8", "--steps", "320"]
    common = ["--env", ENV, "--engine", "mujoco", "--devices", "1", "--eval-episodes", "2"]
    with pytest.MonkeyPatch.context() as patch:  # its film is drawn flat, with or without OpenGL
        patch.setattr(render.film, "canvas", _no_canvas)
        assert main(["train", *common, *sizes, "--out", str(out), "--name", "small"]) == 0
    return out / "small"


def _no_canvas(*_):
    raise render.GLUnavailable("none here")


def seconds_and_frames(path):
    with Image.open(path) as gif:
        return gif.info["duration"] * gif.n_frames / 1000, gif.n_frames


def test_random_actions_are_filmed_and_counted(tmp_path, capsys):
    arguments = [ENV, "--steps", "30", "--episodes", "2", "--seed", "4", "--renderer", "plot"]
    for name in ("a.gif", "b.gif"):
        assert main(["play", *arguments, "--out", str(tmp_path / name)]) == 0
    first, second = (
        re.findall(r"Episode (\d): return (-?\d+\.\d\d), cost 0, 30 steps", text)
        for text in re.split(r"Film: .*\n", capsys.readouterr().out)[:2]
    )
    assert [number for number, _ in first] == ["1", "2"]
    assert first[0][1] != first[1][1]
    assert first == second, "the same seed plays the same"
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()
    assert seconds_and_frames(tmp_path / "a.gif") == (2 * 30 * 0.02, 30)


def test_the_default_film_is_an_mp4_named_after_its_world(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["play", ENV, "--steps", "4", "--renderer", "plot"]) == 0
    assert f"Film: {ENV}-seed0.mp4 (drawn with plot)" in capsys.readouterr().out
    assert (tmp_path / f"{ENV}-seed0.mp4").read_bytes()[4:8] == b"ftyp"


def test_a_trained_policy_acts(trained, tmp_path, capsys, monkeypatch):
    seen = []
    actor = play.evaluation.actor

    def spy(env, config, state, deterministic):
        act = actor(env, config, state, deterministic)
        seen.append(SimpleNamespace(act=act, deterministic=deterministic, iteration=int(state.iteration)))
        return act

    monkeypatch.setattr(play.evaluation, "actor", spy)
    common = ["--policy", str(trained), "--steps", "20", "--renderer", "plot", "--out", str(tmp_path / "a.gif")]
    assert main(["play", *common, "--deterministic"]) == 0
    assert main(["play", ENV, "--steps", "20", "--renderer", "plot", "--out", str(tmp_path / "b.gif")]) == 0
    acted, random = re.findall(r"return (-?\d+\.\d+)", capsys.readouterr().out)
    assert acted != random
    assert [(s.deterministic, s.iteration) for s in seen] == [(True, 1)]
    assert json.loads((trained / "config.json").read_text())["env"] == ENV


def test_training_films_its_policy(trained):
    assert seconds_and_frames(trained / "policy.gif")[1] == play.run.VIDEO_FRAMES


def test_a_film_ends_with_its_episode(tmp_path):
    drawn = []
    run = SimpleNamespace(config=SimpleNamespace(env=ENV), folder=tmp_path)
    film = play.evaluation.Film({"qpos": np.zeros((10, 3))}, np.ones(10), np.zeros((10, 1)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(play.run.render, "frames", lambda states, *numbers: drawn.append((states, *numbers)) or [])
        patch.setattr(play.run.render, "video", lambda *_: "plot")
        play.run._Run._film(run, film, 4)
    assert drawn[0][0]["qpos"].shape == (4, 3)
    assert [len(x) for x in drawn[0][1:3]] == [4, 4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["SafetyPointGaol0-v0"], "Did you mean 'SafetyPointGoal0-v0'"),
        (["SafetyPointGoal0Vision-v0"], "envs_mjx.vision.make('SafetyPointGoal0Vision-v0')"),
        ([ENV, "--out", "film.avi"], "film.avi: end its name in .gif or .mp4"),
        ([ENV, "--policy", "nowhere"], "nowhere/config.json does not exist"),
        ([ENV, "--episodes", "0"], "--episodes is 0"),
        ([ENV, "--steps", "0"], "--steps is 0"),
        ([ENV, "--renderer", "cairo"], "unknown renderer 'cairo': choose one of auto, gl, plot"),
        ([ENV, "--camera", "top"], "there is no camera 'top'; choose one of: fixednear, fixedfar, track, vision"),
        ([ENV, "--camera", "track", "--renderer", "plot"], "--camera is of the renderer gl"),
    ],
)
def test_bad_input_is_one_sentence(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["play", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == [], "nothing may be left behind"


def test_a_policy_plays_only_its_own_world(trained, capsys, tmp_path):
    assert main(["play", "SafetyPointGoal1-v0", "--policy", str(trained), "--out", str(tmp_path / "a.gif")]) == 2
    assert f"was trained on {ENV}, not on SafetyPointGoal1-v0; leave the id out" in capsys.readouterr().err


def test_without_opengl_asking_for_it_is_one_sentence(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(render.film, "canvas", _no_canvas)
    assert main(["play", ENV, "--renderer", "gl", "--out", str(tmp_path / "a.gif")]) == 2
    assert capsys.readouterr().err == "jaxalign: none here\n"


def test_a_folder_that_cannot_be_written_is_named(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "a.gif"
    assert main(["play", ENV, "--steps", "2", "--renderer", "plot", "--out", str(out)]) == 2
    assert f"Cannot write {out}" in capsys.readouterr().err
