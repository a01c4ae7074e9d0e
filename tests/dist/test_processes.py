"""Two processes with four devices each are one run: its curve, its checkpoints, and what happens when one dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxalign import track
from jaxalign.core.errors import UserError
from jaxalign.dist import any_of, from_first, processes

SMALL = [
    *("--env", "SafetySwimmerVelocity-v1", "--eval-episodes", "2", "--seed", "3", "--no-video"),
    *("--learner.num-envs", "16", "--learner.rollout-length", "40", "--learner.hidden", "8"),
]
ITERATIONS = 6
TRAIN = ["train", *SMALL, "--steps", str(16 * 40 * ITERATIONS)]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("on", "--distributed on is not understood; choose auto, off or coordinator"),
        ("coordinator=here:1,process=0", "is not understood"),
        ("coordinator=here,process=0,of=2", "is not understood"),
        ("coordinator=here:1,process=x,of=2", "is not understood"),
        ("coordinator=here:1,process=2,of=2", "process 2 of 2 does not exist; count from 0"),
    ],
)
def test_wrong_settings_are_refused(setting, message):
    with pytest.raises(UserError, match=message):
        processes.parse(setting)


def test_settings():
    assert processes.parse("off") is None
    assert processes.parse("auto") == {}
    found = processes.parse("coordinator=[::1]:12,process=1,of=2")
    assert found == {"coordinator_address": "[::1]:12", "process_id": 1, "num_processes": 2}


def test_one_process_asks_nobody():
    assert from_first(lambda: "x") == "x"
    assert any_of(True, False) == (True, False)


def slurm(process, number, port):
    """What srun tells each of its tasks on one node; JAX takes its port from the number of the job."""
    names = {"JOB_ID": port % 4096, "STEP_NODELIST": "127.0.0.1", "NTASKS": number, "PROCID": process, "LOCALID": 0}
    return {f"SLURM_{name}": str(value) for name, value in names.items()}


def start(arguments, folder, devices, number=1, auto=False):
    """Processes of one run, each with so many devices; they find each other by arguments or as Slurm has it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for process in range(number):
        setting = f"coordinator=127.0.0.1:{port},process={process},of={number}" if number > 1 else "off"
        command = [sys.executable, "-m", "jaxalign", *arguments, "--distributed", "auto" if auto else setting]
        env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices), "XLA_FLAGS": ""}
        env |= slurm(process, number, port) if auto else {}
        with (folder / f"log{process}").open("w") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env, cwd=folder))
    return started


def finish(started, seconds=200):
    """Exit statuses; whatever still runs after so long is killed."""
    try:
        end = time.monotonic() + seconds
        return [process.wait(max(end - time.monotonic(), 0.1)) for process in started]
    finally:
        for process in started:
            process.kill()


def metrics(run):
    return [
        {name: x for name, x in row.items() if not name.startswith("time/")}
        for row in track.read_jsonl(run / "metrics.jsonl")
    ]


def interrupted(folder, number, victim, auto=False):
    """A run of two processes, one of which is sent a signal after two iterations; statuses, and seconds to the end."""
    arguments = [*TRAIN, "--out", str(folder), "--name", "run", "--checkpoint-seconds", "0"]
    started, path = start(arguments, folder, 4, 2, auto), folder / "run" / "metrics.jsonl"
    while all(p.poll() is None for p in started) and (not path.exists() or path.read_text().count("\n") < 2):
        time.sleep(0.01)
    started[victim].send_signal(number)
    begun = time.monotonic()
    return finish(started), time.monotonic() - begun


def assert_close(rows, others):
    assert len(rows) == len(others) == ITERATIONS
    for row, other in zip(rows, others, strict=True):
        assert row.keys() == other.keys()
        np.testing.assert_allclose(list(row.values()), list(other.values()), rtol=2e-3, atol=2e-3)


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """The run as one process with one device makes it."""
    out = tmp_path_factory.mktemp("single")
    assert finish(start([*TRAIN, "--out", str(out), "--name", "run"], out, devices=1)) == [0]
    return metrics(out / "run")


@pytest.mark.slow
def test_two_processes_make_the_run_of_one(tmp_path, single):
    arguments = [*TRAIN, "--out", str(tmp_path), "--name", "run"]
    assert finish(start(arguments, tmp_path, devices=4, number=2)) == [0, 0], (tmp_path / "log0").read_text()
    assert_close(metrics(tmp_path / "run"), single)
    assert "Written to" in (tmp_path / "log0").read_text()
    assert "Written to" not in (tmp_path / "log1").read_text()
    again = start(arguments, tmp_path, devices=4, number=2)  # the first refuses, and tells the other
    assert finish(again) == [2, 2]
    assert all("run exists; choose another --name" in (tmp_path / f"log{i}").read_text() for i in (0, 1))


@pytest.mark.slow
def test_sigterm_to_one_stops_both_and_another_mesh_goes_on(tmp_path, single):
    statuses, _ = interrupted(tmp_path, signal.SIGTERM, victim=1, auto=True)
    assert statuses == [130, 130]
    assert "Stopped by another process and saved" in (tmp_path / "log0").read_text()
    before = metrics(tmp_path / "run")
    assert 0 < len(before) < ITERATIONS
    assert finish(start(["resume", str(tmp_path / "run"), "--devices", "2"], tmp_path, devices=2)) == [0]
    after = metrics(tmp_path / "run")
    assert after[: len(before)] == before
    assert_close(after, single)


@pytest.mark.slow
def test_a_killed_process_ends_the_job_and_two_go_on(tmp_path, single):
    statuses, seconds = interrupted(tmp_path, signal.SIGKILL, victim=1)
    assert statuses[0] not in (0, 130)
    assert statuses[1] == -signal.SIGKILL
    assert seconds < 50
    assert "heartbeat" in (tmp_path / "log0").read_text()
    assert finish(start(["resume", str(tmp_path / "run")], tmp_path, devices=4, number=2)) == [0, 0]
    assert_close(metrics(tmp_path / "run"), single)
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["episodes"] == 2
