"""Whole runs through the command line: what they leave behind, and that nothing is lost."""

import json
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign import saferl, track
from jaxalign.cli import run
from jaxalign.cli.main import main

SMALL = [
    *("--env", "SafetyPointGoal0-v0", "--devices", "1", "--eval-episodes", "2", "--seed", "3", "--no-video"),
    *("--learner.num-envs", "8", "--learner.rollout-length", "40", "--learner.hidden", "8"),
]
ITERATIONS = 80
TRAIN = ["train", *SMALL, "--steps", str(8 * 40 * ITERATIONS)]


def metrics(folder):
    """Rows without wall-clock times."""
    rows = track.read_jsonl(folder / "metrics.jsonl")
    return [{name: x for name, x in row.items() if not name.startswith("time/")} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("runs")
    assert main([*TRAIN, "--out", str(out), "--name", "whole"]) == 0
    return out / "whole"


def interrupted(out, name, number):
    """A run of its own process, sent a signal after a few iterations; returns what it printed and its exit status."""
    command = [sys.executable, "-m", "jaxalign", *TRAIN, "--out", str(out), "--name", name, "--checkpoint-seconds", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    path = out / name / "metrics.jsonl"
    while process.poll() is None and (not path.exists() or path.read_text().count("\n") < 5):
        time.sleep(0.005)
    process.send_signal(number)
    text, _ = process.communicate(timeout=100)
    assert 0 < len(track.read_jsonl(path)) < ITERATIONS, "the signal must come in the middle"
    return text, process.returncode


def test_a_run_leaves_its_records(whole):
    for name in ("config.json", "metrics.jsonl", "learning_curve.png", "evaluation.json", "checkpoints", "tensorboard"):
        assert (whole / name).exists(), name
    rows = metrics(whole)
    assert [row["env_steps"] for row in rows] == [320 * i for i in range(1, ITERATIONS + 1)]
    assert {"episode_return", "episode_cost/cost", "multiplier/cost", "kl"} <= rows[0].keys()
    config = json.loads((whole / "config.json").read_text())
    assert config["versions"]["jax"]
    assert config["seed"] == 3
    assert config["engine"] in ("mujoco", "mjx"), "as it was, for whoever goes on elsewhere"
    assert run.read_config(whole).learner.hidden == (8,)
    assert list((whole / "tensorboard").iterdir())


def test_killed_and_resumed_equals_uninterrupted(whole, tmp_path):
    _, status = interrupted(tmp_path, "killed", signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert not (tmp_path / "killed" / "evaluation.json").exists()
    assert main(["resume", str(tmp_path / "killed")]) == 0
    assert metrics(tmp_path / "killed") == metrics(whole), "bit for bit"
    first, second = (json.loads((f / "evaluation.json").read_text()) for f in (whole, tmp_path / "killed"))
    assert first["return"] == second["return"]


def test_ctrl_c_saves_and_says_how_to_resume(whole, tmp_path):
    text, status = interrupted(tmp_path, "stopped", signal.SIGINT)
    assert status == 130
    assert f"jaxalign resume {tmp_path / 'stopped'}" in text
    rows = len(metrics(tmp_path / "stopped"))
    assert (tmp_path / "stopped" / "checkpoints" / str(rows)).exists(), "the last iteration recorded is the one saved"
    assert main(["resume", str(tmp_path / "stopped")]) == 0
    assert metrics(tmp_path / "stopped") == metrics(whole)


def test_evaluation_is_repeatable_and_reported(whole, capsys):
    assert main(["eval", str(whole), "--episodes", "3", "--seed", "7"]) == 0
    text = capsys.readouterr().out
    closing = (whole / "evaluation.json").read_text()
    first = json.loads((whole / "evaluation-seed7.json").read_text())
    assert "95 % interval" in text
    assert f"{np.mean(first['return']):.2f}" in text
    assert main(["eval", str(whole), "--episodes", "3", "--seed", "7"]) == 0
    assert json.loads((whole / "evaluation-seed7.json").read_text()) == first
    assert (whole / "evaluation.json").read_text() == closing, "the closing evaluation of the training stays"


def test_a_damaged_checkpoint_is_named(whole, tmp_path, capsys):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(whole, copy)
    for path in (copy / "checkpoints").rglob("*"):
        if path.is_file() and path.name != "_CHECKPOINT_METADATA":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert main(["resume", str(copy)]) == 2
    error = capsys.readouterr().err
    assert "cannot be read" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--env", "SafetyPointGoal3-v0"], "Did you mean 'SafetyPointGoal"),
        (["train", "--algorithm", "ppolagg"], "Unknown algorithm 'ppolagg'. Known: cpo"),
        (["train", "--cost-limit", "1001"], "--cost-limit 1001 for cost can never be exceeded"),
        (["train", "--config", "nowhere.json"], "nowhere.json does not exist"),
        (["train", "--engine", "bullet"], "Unknown physics engine 'bullet'"),
        (["train", "--cost-limit", "-1"], "The limit of 'cost' is -1.0"),
        (["train", "--cost-limit", "nan"], "The limit of 'cost' is nan"),
        (["train", "--cost-limit", "1", "2"], "--cost-limit has 2 numbers for 1 costs"),
        (["train", "--costs", "cost_fire"], "has no cost 'cost_fire'; choose among: cost, cost_hazards"),
        (["train", "--steps", "0"], "--steps is 0"),
        (["train", "--devices", "0"], "--devices is 0"),
        (["train", "--devices", "99"], "--devices is 99, but JAX sees"),
        (["train", "--devices", "3"], "num_envs is 512, which cannot be split over 3 devices"),
        (["train", "--learner.num-envs", "-4"], "--learner.num-envs is -4"),
        (["train", "--learner.rollout-length", "7"], "rollout_length is 7, which cannot be split"),
        (["train", "--eval-episodes", "0"], "--eval-episodes is 0"),
        (["train", "--learner.learning-rate", "nan"], "learning_rate is nan; choose 0"),
        (["train", "--learner.hidden", "64", "0"], "hidden is (64, 0)"),
        (["train", "--algorithm", "sac", "--off-policy.num-envs", "0"], "--off-policy.num-envs is 0"),
        (["train", "--algorithm", "sac", "--off-policy.discount", "1.5"], "discount is 1.5; choose a number up to 1"),
        (["train", "--algorithm", "sac", "--off-policy.update-to-data", "nan"], "update_to_data is nan"),
        (["train", "--costs", "cost", "cost", "--cost-limit", "25", "1"], "--costs names one twice"),
        (["train", "--seed", "99999999999999999999"], "--seed is 99999999999999999999"),
        (["resume", "nowhere"], "nowhere/config.json does not exist"),
        (["eval", "nowhere"], "nowhere/config.json does not exist"),
    ],
)
def test_bad_input_is_one_sentence(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists(), "nothing may be left behind"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"learner": 5}, "learner is 5, but an object"),
        ({"steps": "many"}, "steps is 'many', but it is of the kind int"),
        ({"steps": 1.5}, "steps is 1.5"),
        ({"seed": True}, "seed is True"),
        ({"cost_limit": 25}, "cost_limit is 25"),
        ({"learner": {"hidden": [64, "wide"]}}, "hidden is [64, 'wide']"),
        ({"speed": 1}, "unknown field 'speed'"),
    ],
)
def test_a_config_file_of_wrong_kinds_is_refused(content, message, tmp_path, capsys):
    (tmp_path / "c.json").write_text(json.dumps(content))
    assert main(["train", "--config", str(tmp_path / "c.json")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_policy_that_diverges_stops_the_run_and_keeps_the_checkpoint_before(tmp_path, capsys, monkeypatch):
    make = saferl.make

    def poisoned(*args, **kwargs):
        learner = make(*args, **kwargs)

        def step(state):
            state, info = learner.step(state)
            spoil = jnp.where(state.iteration == 3, jnp.nan, 1.0)
            return state._replace(policy=jax.tree.map(lambda x: x * spoil, state.policy)), info

        return learner._replace(step=step)

    monkeypatch.setattr(saferl, "make", poisoned)
    assert main([*TRAIN, "--out", str(tmp_path), "--name", "wild", "--checkpoint-seconds", "0"]) == 2
    assert "not finite after iteration 3" in capsys.readouterr().err
    saved = [int(path.name) for path in (tmp_path / "wild" / "checkpoints").iterdir() if path.name.isdigit()]
    assert max(saved) == 2
    assert not (tmp_path / "wild" / "evaluation.json").exists()


def test_existing_name_is_refused(whole, capsys):
    assert main([*TRAIN, "--out", str(whole.parent), "--name", "whole"]) == 2
    assert "exists; choose another --name, or continue it with `jaxalign resume" in capsys.readouterr().err


def test_list_names_everything(capsys):
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for name in ("ppo_lag", "pcpo", "SafetyPointGoal2-v0"):
        assert name in text
