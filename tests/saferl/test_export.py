"""An exported policy acts as the learner's does: in a Python that has nothing but NumPy, and as a StableHLO program."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probe_envs import constrained

from jaxalign import nets
from jaxalign.core.statistics import RunningStatistics
from jaxalign.saferl import OffPolicyConfig, OnPolicyConfig, evaluation, export, numpy_policy
from jaxalign.saferl.offpolicy import OffPolicyState
from jaxalign.saferl.onpolicy import OnPolicyState, gaussian_policy

ENV = constrained()
ENV = ENV._replace(spec=ENV.spec._replace(action_low=(-2.0, -1.0), action_high=(1.0, 3.0)))  # two actions, uneven
RANDOM = np.random.default_rng(0)
OBS = (RANDOM.normal(size=(200, 2)) * [3.0, 0.2] + [1.0, -4.0]).astype(np.float32)
KEYS = jax.random.split(jax.random.key(5), len(OBS))
NOISE = jax.vmap(lambda key: jax.random.normal(key, (2,)))(KEYS)  # what the learner's policy draws with these keys

# refuses to import anything but NumPy and the reader
SCRIPT = """
import sys

class Only:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in ("numpy", "numpy_policy"):
            raise ModuleNotFoundError(f"{name} is not needed here")

sys.meta_path.insert(0, Only())
sys.path.insert(0, ".")
import numpy as np
import numpy_policy

policy = numpy_policy.load("policy.npz")
obs, noise = np.load("obs.npy"), np.load("noise.npy")
draws = policy.sample(np.repeat(obs[:1], 20000, 0), np.random.default_rng(0))
np.savez("out.npz", mean=policy.action(obs), single=policy.action(obs[3]), noisy=policy.action(obs, noise), draws=draws)
assert "jax" not in sys.modules
"""


def on_policy(normalise):
    config = OnPolicyConfig(hidden=(16, 8, 4), normalise_obs=normalise)
    params = gaussian_policy(ENV, config).init(jax.random.key(1)) | {"log_std": jnp.array([-0.7, 0.2])}
    statistics = RunningStatistics.empty(2).update(jnp.asarray(OBS[:50] * 0.5 + 1.0))  # of other observations
    rest = dict.fromkeys(set(OnPolicyState._fields) - {"policy", "statistics"})
    return config, OnPolicyState(policy=params, statistics=statistics, **rest)


def off_policy(outputs):
    config = OffPolicyConfig(hidden=(16, 8))
    params = nets.mlp((2, *config.hidden, outputs), jax.nn.relu).init(jax.random.key(2))
    return config, OffPolicyState(actor=params, **dict.fromkeys(set(OffPolicyState._fields) - {"actor"}))


KINDS = {
    "gaussian": lambda: on_policy(True),
    "gaussian, raw observations": lambda: on_policy(False),
    "squashed": lambda: off_policy(4),
    "deterministic": lambda: off_policy(2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_exports_act_as_the_learner(kind, tmp_path):
    config, state = KINDS[kind]()
    mean, noisy = (
        jax.vmap(evaluation.actor(ENV, config, state, deterministic))(KEYS, OBS) for deterministic in (True, False)
    )
    export.write(tmp_path / "policy.npz", ENV, config, state, '{"env": "Probe"}')

    program = jax.export.deserialize(bytearray((tmp_path / "policy.stablehlo").read_bytes()))
    np.testing.assert_allclose(program.call(jnp.zeros_like(NOISE), OBS), mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(program.call(NOISE[:7], OBS[:7]), noisy[:7], rtol=1e-4, atol=1e-5)
    assert set(program.platforms) == {"cpu", "cuda", "tpu"}

    np.save(tmp_path / "obs.npy", OBS)
    np.save(tmp_path / "noise.npy", NOISE)
    subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, check=True, timeout=60)
    with np.load(tmp_path / "out.npz") as out:
        np.testing.assert_allclose(out["mean"], mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(out["single"], mean[3], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(out["noisy"], noisy, rtol=1e-4, atol=1e-5)
        draws = out["draws"]
    key, first = jax.random.split(jax.random.key(6), len(draws)), jnp.repeat(OBS[:1], len(draws), 0)
    ours = jax.vmap(evaluation.actor(ENV, config, state))(key, first)
    np.testing.assert_allclose(draws.mean(0), ours.mean(0), atol=0.05)
    np.testing.assert_allclose(draws.std(0, dtype=float), np.std(ours, 0, dtype=float), rtol=0.03, atol=1e-6)
    assert numpy_policy.load(tmp_path / "policy.npz").about == '{"env": "Probe"}'


def test_other_files_are_no_policy(tmp_path):
    np.savez(tmp_path / "other.npz", obs=OBS)
    with pytest.raises(ValueError, match="holds obs but no policy"):
        numpy_policy.load(tmp_path / "other.npz")
