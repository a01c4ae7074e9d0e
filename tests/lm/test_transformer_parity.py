"""The transformer against `transformers` (torch) on tiny random checkpoints of every family."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.core import UserError
from jaxalign.lm import TINY, ModelConfig, Sampling, generate, load_pretrained, network, save_pretrained
from jaxalign.lm.hf_config import DEFAULTS
from jaxalign.lm.transformer import count_parameters, segment_positions, unembed, unstack

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors = pytest.importorskip("safetensors.numpy")

CASES = TINY | {
    "qwen3 with biases and windows": dataclasses.replace(
        TINY["qwen3"], attention_bias=True, output_bias=True, sliding_window=6, sliding_layers=(False, True)
    )
}
PAD, ROWS, COLUMNS, NEW = 0, 3, 20, 8


def random_checkpoint(name, folder):
    """A model of `transformers` in which every parameter, norms and biases too, is random, written by itself."""
    raw = CASES[name].to_hf()
    config = transformers.CONFIG_MAPPING[raw.pop("model_type")](**raw)
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.dim() == 1:
                weight.add_(0.3 * noise)
            else:
                weight.copy_(noise / weight.shape[1] ** 0.5)
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module", params=list(CASES))
def pair(request, tmp_path_factory):
    """Name, folder, model of `transformers`, our config and parameters."""
    folder = tmp_path_factory.mktemp("checkpoint")
    model = random_checkpoint(request.param, folder)
    return request.param, folder, model, *load_pretrained(folder)


@pytest.fixture(scope="module")
def prompts():
    """Tokens and a mask with padding on the left."""
    tokens = np.random.default_rng(0).integers(1, TINY["llama2"].vocab_size, (ROWS, COLUMNS)).astype(np.int32)
    mask = np.arange(COLUMNS) >= np.array([[0], [3], [9]])
    return np.where(mask, tokens, PAD), mask


def test_config_and_logits(pair, prompts, quick_jit):
    name, _, model, config, params = pair
    assert config == CASES[name]
    tokens, mask = prompts
    with torch.no_grad():
        theirs = model(
            torch.tensor(tokens).long(),
            attention_mask=torch.tensor(mask).long(),
            position_ids=torch.tensor(np.maximum(mask.cumsum(1) - 1, 0)),
        ).logits.numpy()
    ours = quick_jit(network(config).apply)(params, jnp.asarray(tokens), segment_ids=jnp.asarray(mask, jnp.int32))
    assert ours.dtype == jnp.float32
    assert np.abs(theirs).max() > 1.0
    np.testing.assert_allclose(np.asarray(ours)[mask], theirs[mask], atol=1e-4)


def test_greedy_continuations(pair, prompts, quick_jit):
    _, _, model, config, params = pair
    tokens, mask = prompts
    theirs = model.generate(
        torch.tensor(tokens).long(),
        attention_mask=torch.tensor(mask).long(),
        generation_config=transformers.GenerationConfig(
            max_new_tokens=NEW, do_sample=False, pad_token_id=PAD, eos_token_id=None, bos_token_id=None
        ),
    ).numpy()
    greedy, key = Sampling(NEW, temperature=0.0), jax.random.key(0)
    ours = quick_jit(lambda p, t, m: generate(network(config), config, p, t, m, key, greedy))(params, tokens, mask)
    np.testing.assert_array_equal(np.asarray(ours.tokens), theirs)


def test_round_trip_is_bit_exact_and_transformers_reads_it(pair, tmp_path):
    _, folder, model, config, params = pair
    save_pretrained(tmp_path, config, params)
    theirs, ours = (safetensors.load_file(f / "model.safetensors") for f in (folder, tmp_path))
    assert theirs.keys() == ours.keys()
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(tensor.view(np.int32), ours[name].view(np.int32), err_msg=name)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    tokens = torch.arange(1, 19)[None]
    with torch.no_grad():
        assert torch.equal(again(tokens).logits, model(tokens).logits)


def test_initial_parameters_are_as_said(random_params, quick_jit):
    config = dataclasses.replace(TINY["qwen2"], num_layers=8)
    params = quick_jit(network(config).init)(jax.random.key(0))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(
        lambda x: (x.shape, x.dtype), random_params(config)
    )
    layers = params["layers"]
    for draws, deviation in {
        "embed": (params["embed"], 0.02),
        "q": (layers["q"], 32**-0.5),
        "down": (layers["down"], 48**-0.5 / 4),
        "o": (layers["o"], 32**-0.5 / 4),
    }.values():
        assert abs(draws.mean()) < 5 * deviation / draws.size**0.5
        assert abs(draws.std() / deviation - 1) < 5 / (2 * draws.size) ** 0.5
    assert not layers["q_bias"].any()
    assert (params["final_norm"] == 1).all()
    assert abs(np.corrcoef(layers["k"].ravel(), layers["v"].ravel())[0, 1]) < 0.05


def test_number_of_parameters(pair):
    _, _, model, config, _ = pair
    assert count_parameters(config) == model.num_parameters()


@pytest.fixture(scope="module")
def own(random_params, quick_jit):
    """Config, parameters and compiled apply of a model with windowed and full layers, deep enough for a loop."""
    config = dataclasses.replace(TINY["gemma3"], num_layers=5, sliding_layers=(True, False, True, True, False))
    return config, random_params(config), quick_jit(network(config).apply, static_argnames=("hidden", "last"))


def test_packed_segments_do_not_see_each_other(own):
    config, params, apply = own
    rng = np.random.default_rng(1)
    pieces = [rng.integers(0, config.vocab_size, n) for n in (9, 7, 4)]
    ids = np.repeat([1, 2, 0], [9, 7, 4])
    packed = apply(params, jnp.asarray(np.concatenate(pieces)[None], jnp.int32), segment_ids=jnp.asarray(ids[None]))
    start = 0
    for piece in pieces[:2]:
        row = np.zeros((1, 20), np.int32)
        row[0, : len(piece)] = piece
        alone = apply(params, jnp.asarray(row), segment_ids=jnp.asarray(np.arange(20)[None] < len(piece), jnp.int32))
        np.testing.assert_allclose(packed[0, start : start + len(piece)], alone[0, : len(piece)], atol=2e-5)
        start += len(piece)


def test_positions_count_within_segments():
    ids = jnp.array([[0, 0, 1, 1, 1, 2, 2, 0], [3, 3, 3, 3, 3, 3, 3, 3]])
    np.testing.assert_array_equal(segment_positions(ids), [[0, 1, 0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 4, 5, 6, 7]])


def test_states_last_column_and_layers_apart_give_the_same_logits(own):
    config, params, apply = own
    tokens = jnp.arange(20, dtype=jnp.int32).reshape(1, 20)
    logits = apply(params, tokens)
    np.testing.assert_allclose(unembed(config, params, apply(params, tokens, hidden=True)), logits, atol=2e-5)
    np.testing.assert_allclose(apply(params, tokens, last=True), logits[:, -1:], atol=2e-5)
    np.testing.assert_allclose(apply(unstack(params), tokens), logits, atol=2e-5)


def test_recomputation_changes_no_gradient(random_params, quick_jit):
    config = dataclasses.replace(TINY["llama3"], num_layers=5)
    params = random_params(config)
    tokens = jnp.arange(24, dtype=jnp.int32).reshape(2, 12)

    def gradient(config):
        apply = network(config).apply
        return quick_jit(jax.grad(lambda p: jax.nn.logsumexp(apply(p, tokens)[..., 3])))(params)

    kept, recomputed = gradient(config), gradient(dataclasses.replace(config, remat=True))
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6, rtol=1e-4), kept, recomputed)


def test_bfloat16_stays_near_float32_and_gives_float32_logits(own, quick_jit):
    config, params, apply = own
    tokens = jnp.arange(20, dtype=jnp.int32).reshape(1, 20)
    half = network(dataclasses.replace(config, dtype="bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(half.init, jax.random.key(0)))} == {
        jnp.bfloat16.dtype
    }
    logits = quick_jit(half.apply)(params, tokens)
    assert logits.dtype == jnp.float32
    exact = apply(params, tokens)
    error = np.abs(logits - exact).max() / np.abs(exact).max()
    assert 1e-5 < error < 5e-2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "gpt2"}, "'gpt2' is not supported; choose a checkpoint of llama, qwen2"),
        ({"hidden_act": "relu"}, "'relu' is not supported"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2}}, "'yarn' is not supported"),
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"num_key_value_heads": 3}, "does not divide"),
    ],
)
def test_what_is_not_supported_is_said(change, words):
    with pytest.raises(UserError, match=words):
        ModelConfig.from_hf(TINY["llama3"].to_hf() | change)


def test_config_of_transformers_5_and_4_are_read_alike():
    """Version 5 keeps the rotary settings in one dictionary, for Gemma 3 per type of layer."""
    for name in ("llama3", "gemma3"):
        raw = TINY[name].to_hf()
        scaling = raw.pop("rope_scaling") | {"rope_theta": raw.pop("rope_theta")}
        if name == "gemma3":
            local = {"rope_type": "default", "rope_theta": raw.pop("rope_local_base_freq")}
            scaling = {"full_attention": scaling, "sliding_attention": local}
        assert ModelConfig.from_hf(raw | {"rope_parameters": scaling}) == TINY[name]


@pytest.mark.parametrize("family", list(DEFAULTS))
def test_what_a_file_leaves_out_is_what_transformers_assumes(family):
    raw = {"hidden_size": 64, "num_hidden_layers": 12, "num_attention_heads": 32, "intermediate_size": 48}
    for change in ({}, {"use_sliding_window": True, "max_window_layers": 7} if family.startswith("qwen") else {}):
        theirs = transformers.CONFIG_MAPPING[family](**raw, **change).to_dict()
        assert ModelConfig.from_hf(theirs) == ModelConfig.from_hf(raw | change | {"model_type": family})


def test_what_hugging_face_cannot_express_is_refused():
    with pytest.raises(UserError, match="cannot express qk_norm"):
        dataclasses.replace(TINY["llama3"], qk_norm=True).to_hf()


def test_too_long_a_row_is_refused():
    config = TINY["llama2"]
    params = jax.eval_shape(network(config).init, jax.random.key(0))
    with pytest.raises(UserError, match="129 tokens are more than the context of 128"):
        jax.eval_shape(network(config).apply, params, jax.ShapeDtypeStruct((1, 129), jnp.int32))


def test_published_sizes():
    """Parameter counts of public models (their cards), by shapes alone."""
    llama = ModelConfig.from_hf(
        {"model_type": "llama", "vocab_size": 128_256, "hidden_size": 2048, "num_hidden_layers": 16}
        | {"num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 8192, "tie_word_embeddings": True}
    )
    assert count_parameters(llama) == 1_235_814_400
    qwen = ModelConfig.from_hf(
        {"model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14}
        | {"num_key_value_heads": 2, "intermediate_size": 4864, "tie_word_embeddings": True}
    )
    assert count_parameters(qwen) == 494_032_768
