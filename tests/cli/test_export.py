"""`jaxalign export`: from a run's folder to files that act alone."""

import json

import jax
import numpy as np
import pytest

from jaxalign import saferl
from jaxalign.cli import run
from jaxalign.cli.export import Export, export
from jaxalign.core.errors import UserError
from jaxalign.saferl import evaluation, numpy_policy


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run that has only begun: config and first checkpoint. Its policy sees its budget."""
    out = tmp_path_factory.mktemp("runs")
    sizes = saferl.OnPolicyConfig(num_envs=4, rollout_length=20, hidden=(8,))
    config = run.TrainConfig(
        "ppo_saute", "SafetyPointGoal0-v0", devices=1, engine="mujoco", out=out, name="begun", learner=sizes
    )
    (out / "begun").mkdir()
    (out / "begun" / "config.json").write_text(json.dumps(run.to_json(config)))
    run._Run(config, out / "begun", *run.build(config))._begin()
    return out / "begun"


def test_the_policy_of_a_run_is_exported(folder, tmp_path, capsys):
    files = export(Export(folder, tmp_path / "new" / "mine.npz"))
    assert [path.name for path in files] == ["mine.npz", "numpy_policy.py", "mine.stablehlo"]
    printed = capsys.readouterr().out
    assert all(str(path) in printed for path in files)
    env, state = run.restore(folder, run.read_config(folder))
    obs = np.random.default_rng(0).normal(size=(5, env.spec.obs_size)).astype(np.float32)
    act = evaluation.actor(env, run.read_config(folder).sizes, state, deterministic=True)
    expected = jax.vmap(act, (None, 0))(jax.random.key(0), obs)
    policy = numpy_policy.load(files[0])
    np.testing.assert_allclose(policy.action(obs), expected, rtol=1e-4, atol=1e-6)
    program = jax.export.deserialize(bytearray(files[2].read_bytes()))
    np.testing.assert_allclose(program.call(np.zeros((5, 2), np.float32), obs), expected, rtol=1e-4, atol=1e-6)
    about = json.loads(policy.about)
    assert about["env"] == "SafetyPointGoal0-v0"
    assert sum(about["observation"].values()) == env.spec.obs_size
    assert about["observation"]["budget_left"] == 1


def test_mistakes_are_named(folder, tmp_path):
    (tmp_path / "file").write_text("")
    for config, message in (
        (Export(tmp_path / "missing"), "missing/config.json does not exist; give the folder of a run"),
        (Export(folder, tmp_path / "policy.pt"), r"give a file that ends in .npz"),
        (Export(folder, tmp_path / "file" / "policy.npz"), "Cannot write .*; choose another --out"),
    ):
        with pytest.raises(UserError, match=message):
            export(config)
