"""The same learning curve on 1, 2 and 8 devices."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from probe_envs import constrained

import envs_mjx
from jaxalign import dist, saferl
from jaxalign.core.errors import UserError


MESHES = Path(__file__).parents[2] / "tpu" / "mesh"


def curve(name, env, mesh, iterations=4, num_envs=16):
    mesh = dist.make_mesh(mesh) if isinstance(mesh, int) else mesh
    config = saferl.OnPolicyConfig(num_envs=num_envs, rollout_length=40, hidden=(16,))
    learner = saferl.make(name, env, (1.0,), total_iterations=iterations, config=config, mesh=mesh)
    where = dist.shardings(jax.eval_shape(learner.init, jax.random.key(0)), mesh, saferl.SPLIT)
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    state = jax.jit(learner.init, out_shardings=where)(jax.device_put(jax.random.key(5), everywhere))
    step = jax.jit(learner.step, in_shardings=(where,), out_shardings=(where, None))
    infos = []
    for _ in range(iterations):
        state, info = step(state)
        infos.append(jax.device_get(info))
    return state, infos


@pytest.mark.parametrize("name", ["ppo_lag", "cpo"])
def test_devices_do_not_change_the_curve(name):
    env = constrained()
    one_state, one = curve(name, env, 1)
    for num_devices in (2, 8):
        state, many = curve(name, env, num_devices)
        assert len(state.rollout.obs.sharding.device_set) == num_devices
        assert state.rollout.obs.addressable_shards[0].data.shape[0] == 16 // num_devices
        for a, b in zip(one, many, strict=True):
            np.testing.assert_allclose(b.episode_return, a.episode_return, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(b.episode_cost, a.episode_cost, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(b.multiplier, a.multiplier, rtol=1e-3, atol=1e-6)
        for a, b in zip(jax.tree.leaves(one_state.policy), jax.tree.leaves(state.policy), strict=True):
            # a gradient multiplied by the number of devices would be off by far more
            np.testing.assert_allclose(np.asarray(b), np.asarray(a), rtol=5e-3, atol=5e-4)


def test_real_environment_on_several_devices():
    """Point's turn servo amplifies rounding about fourfold per step in closed loop: after the first update, whose
    parameters agree to rounding, single trajectories part, and curves agree only as far as averages do."""
    env = saferl.select_costs(envs_mjx.make("SafetyPointGoal0-v0"), ("cost",))
    _, one = curve("ppo_lag", env, 1, iterations=2)
    _, eight = curve("ppo_lag", env, 8, iterations=2)
    np.testing.assert_allclose(eight[0].episode_return, one[0].episode_return, rtol=1e-4)
    np.testing.assert_allclose(eight[0].extra["kl"], one[0].extra["kl"], rtol=1e-3)
    np.testing.assert_allclose(eight[1].episode_return, one[1].episode_return, rtol=0.05)


def test_device_counts_that_make_no_sense():
    with pytest.raises(UserError, match=r"9 x 1 x 1 devices .* JAX sees 8"):
        dist.make_mesh(9)
    with pytest.raises(UserError, match="num_envs is 12, which cannot be split over 8 devices"):
        curve("ppo", constrained(), 8, num_envs=12)


@pytest.mark.parametrize("path", sorted(MESHES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_mesh_file_is_read(path):
    config = dist.read_mesh(path)
    assert config.devices == {"cpu8": 8, "v5e-16": 16, "v6e-16": 16, "h100x8": 8, "two-v5e-16-slices": 32}[path.stem]


def test_environments_are_dealt_out_over_all_axes():
    mesh = dist.make_mesh(**dataclasses.asdict(dist.read_mesh(MESHES / "cpu8.yaml")))
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    _, flat = curve("ppo_lag", constrained(), 8)
    state, cube = curve("ppo_lag", constrained(), mesh)
    assert state.rollout.obs.addressable_shards[0].data.shape[0] == 2
    for a, b in zip(flat, cube, strict=True):
        np.testing.assert_array_equal(b.episode_return, a.episode_return)


def test_what_is_left_goes_to_data():
    assert dict(dist.make_mesh(fsdp=4).shape) == {"data": 2, "fsdp": 4, "tensor": 1}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("data: 0", "The mesh's data is 0"),
        ("data: many", "data is 'many'; give a whole number"),
        ("data: 3\nslices: 2", "cannot be split over 2 slices"),
        ("chips: 4", "must be a mapping with keys among data, fsdp, tensor, slices"),
        ("[1, 2]", "must be a mapping"),
        ("data: [", "cannot be read as YAML"),
        ("data: 8\nslices: 2", "JAX sees 8 devices in 1"),
        (None, "There is no mesh file"),
    ],
)
def test_mesh_files_that_make_no_sense(tmp_path, text, sentence):
    path = tmp_path / "mesh.yaml"
    if text is not None:
        path.write_text(text)

    def attempt():
        return dist.make_mesh(**dataclasses.asdict(dist.read_mesh(path)))

    with pytest.raises(UserError, match=sentence):
        attempt()
