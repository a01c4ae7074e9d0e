"""What of the launch material can be checked offline: syntax, structure, the loop that trains or resumes, lowering."""

import subprocess
from pathlib import Path

import jax
import pytest
import yaml

import envs_mjx
from jaxalign import dist, saferl

TPU = Path(__file__).parents[2] / "tpu"
SHELL = sorted([*TPU.glob("*.sh"), *TPU.glob("slurm/*")])


@pytest.mark.parametrize("path", SHELL, ids=lambda path: path.name)
def test_shell_syntax(path):
    subprocess.run(["bash", "-n", path], check=True)


MANIFESTS = sorted([*TPU.glob("gke/*.yaml"), *TPU.glob("skypilot/*.yaml")])


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: "/".join(path.parts[-2:]))
def test_yaml_says_what_its_reader_expects(path):
    documents = list(yaml.safe_load_all(path.read_text()))
    if path.parent.name == "gke":
        assert all({"apiVersion", "kind", "metadata"} <= document.keys() for document in documents)
        for document in documents:
            if document["kind"] == "JobSet":
                (job,) = document["spec"]["replicatedJobs"]
                spec = job["template"]["spec"]
                assert spec["completionMode"] == "Indexed"  # what JAX tells the processes apart by
                assert spec["completions"] == spec["parallelism"]
                pod = spec["template"]["spec"]
                assert pod["serviceAccountName"] == "jaxalign"
                assert pod["nodeSelector"]
                mounts = {m["name"] for c in pod["containers"] for m in c["volumeMounts"]}
                assert mounts == {volume["name"] for volume in pod["volumes"]}
    else:
        (document,) = documents
        assert {"resources", "setup", "run"} <= document.keys()
        subprocess.run(["bash", "-n"], input=document["run"], text=True, check=True)


def shell(folder, script):
    """Runs a script beside a `jaxalign` that says how it was called and ends with the status in the file `status`."""
    program = folder / "jaxalign"
    program.write_text('#!/bin/bash\necho "$@"\nstatus=$(head -n 1 status)\nsed -i 1d status\nexit ${status:-0}\n')
    program.chmod(0o755)
    script = f"PATH={folder}:$PATH; sleep() {{ :; }}; source {TPU / 'restart.sh'}; {script}"
    return subprocess.run(["bash", "-c", script], cwd=folder, text=True, capture_output=True, check=False)


def test_the_first_time_trains_and_every_other_resumes(tmp_path):
    (tmp_path / "status").touch()
    command = 'train_or_resume auto --name "a b" --out there --algorithm cpo'
    assert shell(tmp_path, command).stdout == "train --name a b --out there --algorithm cpo --distributed auto\n"
    (tmp_path / "there" / "a b").mkdir(parents=True)
    (tmp_path / "there" / "a b" / "config.json").touch()
    assert shell(tmp_path, command).stdout == "resume there/a b --distributed auto\n"
    refused = shell(tmp_path, "train_or_resume auto --algorithm cpo")
    assert refused.returncode == 2
    assert "give --name" in refused.stderr


def test_what_was_stopped_from_outside_is_started_again(tmp_path):
    (tmp_path / "status").write_text("130\n134\n0\n")
    out = shell(tmp_path, "until_done jaxalign x")
    assert out.returncode == 0
    assert out.stdout == "x\n" * 3
    (tmp_path / "status").write_text("130\n2\n0\n")  # a mistake is not repeated
    out = shell(tmp_path, "until_done jaxalign x")
    assert out.returncode == 2
    assert out.stdout == "x\n" * 2


@pytest.mark.parametrize("env_id", ["SafetyPointGoal0-v0", "SafetyPointGoal1-v0"])
def test_a_training_step_is_lowered_for_gpus_and_tpus(env_id):
    """Ahead of time and without the hardware, with the engine of accelerators: what XLA is given there exists."""
    env = saferl.select_costs(envs_mjx.make(env_id, "mjx"), ("cost",))
    config = saferl.OnPolicyConfig(num_envs=8, rollout_length=20)
    learner = saferl.make("ppo_lag", env, (25.0,), total_iterations=10, config=config, mesh=dist.make_mesh(1))
    state = jax.eval_shape(learner.init, jax.random.key(0))
    exported = jax.export.export(jax.jit(learner.step), platforms=("cuda", "tpu"))(state)
    assert exported.platforms == ("cuda", "tpu")
    assert len(exported.mlir_module_serialized) > 10_000
