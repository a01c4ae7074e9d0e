"""One table places every parameter; a step on eight devices is the step on one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_lm
from jax.sharding import PartitionSpec

from jaxalign import dist
from jaxalign.core.errors import UserError
from jaxalign.dist import Checkpoints
from jaxalign.lm import lora, loss, packing, sharding, training
from jaxalign.lm.config import TINY, ModelConfig
from jaxalign.lm.packing import Example
from jaxalign.lm.transformer import network, parameter_shapes

MODEL = tiny_lm.MODEL


def batch():
    random = np.random.default_rng(0)
    return packing.pad([Example.of(random.integers(0, 24, 3), random.integers(0, 24, 2 + i % 4)) for i in range(8)], 8)


@pytest.fixture(scope="module")
def mesh():
    return dist.make_mesh(2, 2, 2)


@pytest.mark.parametrize("family", TINY)
def test_every_parameter_of_every_family_has_a_place(family, mesh):
    shapes = parameter_shapes(dataclasses.replace(TINY[family], output_bias=True))
    places = sharding.shardings(shapes, mesh)
    for place, x in zip(jax.tree.leaves(places), jax.tree.leaves(shapes), strict=True):
        place.shard_shape(x.shape)  # raises if it does not divide
    assert places["layers"]["q"].spec == PartitionSpec(None, "fsdp", "tensor")
    assert places["layers"]["down"].spec == PartitionSpec(None, "tensor", "fsdp")
    assert places["embed"].spec == PartitionSpec("tensor", "fsdp")


def test_optimiser_states_and_adapters_lie_with_their_matrices(mesh):
    shapes = parameter_shapes(MODEL)
    trainer = training.make(loss.cross_entropy(network(MODEL)), training.TrainingConfig())
    state = jax.eval_shape(trainer.init, shapes)
    places = sharding.shardings(state, mesh)
    moments = [p for path, p in jax.tree_util.tree_leaves_with_path(places.optimiser) if "'up'" in str(path)]
    assert [p.spec for p in moments] == [places.params["layers"]["up"].spec] * 2
    assert places.step.spec == PartitionSpec()
    adapters = jax.eval_shape(lambda: lora.init(lora.LoraConfig(4), shapes, jax.random.key(0)))
    places = sharding.shardings(adapters, mesh)["layers"]
    assert places["q"]["a"].spec == PartitionSpec(None, "fsdp", None)
    assert places["q"]["b"].spec == PartitionSpec(None, None, "tensor")
    assert places["o"]["a"].spec == PartitionSpec(None, "tensor", None)


def test_sharded_step_equals_one_device_step_and_its_checkpoint_moves(mesh, tmp_path):
    config = training.TrainingConfig(learning_rate=1e-2, epsilon=1e-3)
    trainer = training.make(loss.cross_entropy(network(MODEL)), config)
    start = trainer.init(tiny_lm.params(MODEL))
    plain, split = tiny_lm.jit(trainer.step), sharding.jit_step(trainer.step, start, mesh, (), tiny_lm.QUICK)
    one, many = start, jax.device_put(start, sharding.shardings(start, mesh))
    for _ in range(2):
        one, info_one = plain(one, batch())
        many, info_many = split(many, batch())
        np.testing.assert_allclose(info_many.loss, info_one.loss, rtol=1e-5)
        np.testing.assert_allclose(info_many.grad_norm, info_one.grad_norm, rtol=1e-4)
        assert info_many.weight == info_one.weight == batch().learn.sum()
    up = many.params["layers"]["up"]
    assert len(up.sharding.device_set) == 8
    assert up.addressable_shards[0].data.shape == (2, 8, 12)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=2e-4, atol=2e-5), one, many)

    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(2, many)
    other = dist.make_mesh(1, 4, 1)
    moved = checkpoints.restore(sharding.like(start, other))
    checkpoints.close()
    assert moved.params["layers"]["up"].addressable_shards[0].data.shape == (2, 4, 24)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), many, moved)


def test_memory_of_a_large_model_without_building_it(mesh):
    large = ModelConfig(
        vocab_size=32_000,
        hidden_size=4096,
        num_layers=32,
        num_heads=32,
        num_kv_heads=32,
        head_dim=128,
        intermediate_size=11_008,
        dtype="bfloat16",
    )
    shapes = parameter_shapes(large)
    matrices = 2 * 32_000 * 4096 + 32 * (4 * 4096**2 + 3 * 4096 * 11_008)
    norms = (2 * 32 + 1) * 4096
    assert sharding.bytes_per_device(shapes, dist.make_mesh(1)) == 2 * (matrices + norms)
    assert sharding.bytes_per_device(shapes, mesh) == 2 * (matrices // 4 + norms)


def test_what_cannot_be_split(mesh):
    odd = {"layers": {"q": jax.ShapeDtypeStruct((2, 7, 6), jnp.float32)}}
    assert sharding.shardings(odd, mesh)["layers"]["q"].spec == PartitionSpec(None, None, "tensor")
    with pytest.raises(UserError, match=r"TABLE has no row for the parameter \['new'\]"):
        sharding.shardings({"new": jnp.zeros(3)}, mesh)
    with pytest.raises(UserError, match=r"2 x 4 x 2 devices .* JAX sees 8"):
        dist.make_mesh(2, 4, 2)
    with pytest.raises(UserError, match="6 rows cannot be dealt out over 4 devices"):
        sharding.check_rows(6, mesh)
