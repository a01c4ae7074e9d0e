"""Checkpoint folders: round trips and what is said about broken ones."""

import dataclasses
import json

import jax
import ml_dtypes
import numpy as np
import pytest

from jaxalign.core import UserError
from jaxalign.lm import TINY, ModelConfig, load_pretrained, save_pretrained
from jaxalign.lm.chat import end_of_turn
from jaxalign.lm.tokenizer import demo_tokenizer, load_tokenizer, same_tokenizer
from jaxalign.lm.transformer import parameter_shapes

safetensors = pytest.importorskip("safetensors.numpy")


def assert_same_bits(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize("name", list(TINY))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_round_trip(random_params, tmp_path, name, dtype):
    config = dataclasses.replace(TINY[name], dtype=dtype)
    params = random_params(config)
    save_pretrained(tmp_path, config, params)
    again, loaded = load_pretrained(tmp_path)
    assert again == config
    assert_same_bits(params, loaded)


def test_a_checkpoint_says_where_its_turns_end(random_params, tmp_path):
    """So that a server stops there, and not at the family's own ids."""
    transformers = pytest.importorskip("transformers")
    tokenizer, config = demo_tokenizer(), dataclasses.replace(TINY["llama3"], vocab_size=512)
    save_pretrained(tmp_path, config, random_params(config), tokenizer=tokenizer)
    served = transformers.GenerationConfig.from_pretrained(tmp_path)
    ends = served.eos_token_id if isinstance(served.eos_token_id, list) else [served.eos_token_id]
    assert {*ends} == {tokenizer.eos_token_id, end_of_turn(tokenizer)}
    assert served.pad_token_id == tokenizer.pad_token_id
    assert transformers.AutoConfig.from_pretrained(tmp_path).bos_token_id == tokenizer.bos_token_id
    assert load_pretrained(tmp_path)[0] == config
    assert same_tokenizer(load_tokenizer(tmp_path), tokenizer)


def test_shards_and_their_index(random_params, tmp_path):
    config = dataclasses.replace(TINY["gemma2"], dtype="bfloat16")
    params = random_params(config)
    save_pretrained(tmp_path, config, params, max_shard_bytes=12_000)
    files = sorted(file.name for file in tmp_path.glob("*.safetensors"))
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    for name, file in index["weight_map"].items():
        assert safetensors.load_file(tmp_path / file)[name].dtype == ml_dtypes.bfloat16
    assert index["metadata"]["total_size"] == 2 * sum(leaf.size for leaf in jax.tree.leaves(params))
    assert_same_bits(params, load_pretrained(tmp_path)[1])
    (tmp_path / files[1]).unlink()
    with pytest.raises(UserError, match=f"lacks {files[1]}"):
        load_pretrained(tmp_path)


def test_saving_again_leaves_no_stale_files(random_params, tmp_path):
    config = TINY["llama2"]
    save_pretrained(tmp_path, config, random_params(config), max_shard_bytes=20_000)
    save_pretrained(tmp_path, config, random_params(config))
    assert {file.name for file in tmp_path.iterdir()} == {"config.json", "model.safetensors"}


@pytest.fixture
def folder(random_params, tmp_path):
    save_pretrained(tmp_path, TINY["qwen2"], random_params(TINY["qwen2"]))
    return tmp_path


def rewrite(folder, change):
    tensors = safetensors.load_file(folder / "model.safetensors")
    change(tensors)
    safetensors.save_file(tensors, folder / "model.safetensors")


def test_wrong_tensors_are_named(folder):
    def change(tensors):
        del tensors["model.layers.1.self_attn.q_proj.bias"]
        tensors["model.layers.0.mlp.up_proj.weight"] = np.zeros((48, 31), np.float32)
        tensors["model.extra.weight"] = np.zeros(3, np.float32)

    rewrite(folder, change)
    with pytest.raises(UserError) as caught:
        load_pretrained(folder)
    message = str(caught.value)
    assert "model.layers.1.self_attn.q_proj.bias is missing" in message
    assert "model.layers.0.mlp.up_proj.weight has shape (48, 31), not (48, 32)" in message
    assert "model.extra.weight is not expected" in message


def test_tensors_that_follow_from_others_are_passed_over(folder):
    before = load_pretrained(folder)[1]

    def change(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.zeros(4, np.float32)

    rewrite(folder, change)
    assert_same_bits(before, load_pretrained(folder)[1])


def test_broken_folders_are_explained(folder, tmp_path):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="cannot be read"):
        load_pretrained(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        load_pretrained(folder)
    with pytest.raises(UserError, match="does not exist"):
        load_pretrained(tmp_path / "nowhere")


def test_parameters_of_another_shape_are_not_saved(random_params, tmp_path):
    config = TINY["llama2"]
    params = random_params(config)
    params["layers"]["gate"] = params["layers"]["gate"][:, :, :-1]
    params["adapter"] = np.zeros(2, np.float32)
    with pytest.raises(UserError, match=r"\['adapter'\], \['layers'\]\['gate'\]"):
        save_pretrained(tmp_path, config, params)


def test_parameters_go_where_they_are_told(folder):
    devices = jax.devices()
    mesh = jax.make_mesh((2,), ("x",), devices=devices[:2], axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None))
    shardings = jax.tree.map(lambda _: sharding, parameter_shapes(TINY["qwen2"]))
    params = load_pretrained(folder, shardings)[1]
    assert {leaf.sharding for leaf in jax.tree.leaves(params)} == {sharding}


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"factor": 2.0}, "of type None is not supported"),
        ({"rope_type": "yarn", "factor": 2.0}, "of type 'yarn' is not supported"),
        ({"rope_type": "linear"}, "of type 'linear' lacks the number 'factor'"),
        ({"rope_type": "llama3", "factor": 8.0, "high_freq_factor": 4.0}, "lacks the number 'low_freq_factor'"),
    ],
)
def test_a_scaling_that_is_not_whole_is_refused(scaling, message):
    raw = TINY["llama3"].to_hf() | {"rope_scaling": scaling}
    raw.pop("rope_parameters", None)
    with pytest.raises(UserError, match=message):
        ModelConfig.from_hf(raw)
