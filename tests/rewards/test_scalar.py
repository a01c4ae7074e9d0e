"""Scalar reward models: one reward whatever the layout; training finds the truth."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_lm

from jaxalign import dist
from jaxalign.core.errors import UserError
from jaxalign.core.types import Network
from jaxalign.lm import data, lora, packing, sharding, training
from jaxalign.lm.encoding import encode_preferences
from jaxalign.lm.packing import Example
from jaxalign.lm.stream import Stream
from jaxalign.lm.tokenizer import word_level
from jaxalign.lm.transformer import network
from jaxalign.rewards import (
    PairBatch,
    accuracy,
    adapted,
    benchmark,
    pack_pairs,
    preference,
    preference_loss,
    score,
    score_examples,
    value_network,
    with_head,
)

MODEL = tiny_lm.MODEL
EOS = 1


def pairs(count, seed=0, eos=True):
    """The better response has more of token 3."""
    random = np.random.default_rng(seed)
    made = []
    while len(made) < count:
        prompt, *responses = (random.integers(2, 16, size=random.integers(2, 6)).tolist() for _ in range(3))
        better, worse = sorted(responses, key=lambda r: -r.count(3))
        if better.count(3) > worse.count(3):
            end = [EOS] if eos else []
            made.append((Example.of(prompt, better + end), Example.of(prompt, worse + end)))
    return made


@pytest.fixture(scope="module")
def values():
    net = value_network(network(MODEL), MODEL.hidden_size)
    params = with_head(tiny_lm.params(), MODEL.hidden_size, jax.random.key(0))
    return net, params, tiny_lm.jit(score, static_argnums=(0, 3))


def alone(values, example):
    """Reward of one example that shares its batch with copies only (one shape for all: one compilation)."""
    net, params, jitted = values
    return float(jitted(net, params, packing.pad([example] * 12, 12), 1).value[0, 0])


@pytest.mark.parametrize("eos", [True, False])
def test_padded_left_right_and_packed_rewards_agree(values, eos):
    net, params, jitted = values
    made = [example for pair in pairs(6, eos=eos) for example in pair]
    expected = [alone(values, e) for e in made]
    for side in ("left", "right"):
        rewards = jitted(net, params, packing.pad(made, 12, side), 1)
        assert rewards.value.dtype == jnp.float32
        np.testing.assert_allclose(rewards.value[:, 0], expected, rtol=1e-4, atol=1e-5)
    packed = pack_pairs([(made[i], made[i + 1]) for i in range(0, 12, 2)], 24)
    rewards = jitted(net, params, packed.rows, 2 * packed.margin.shape[1])
    found = sorted(np.asarray(rewards.value)[np.asarray(rewards.position.present)])
    np.testing.assert_allclose(found, sorted(expected), rtol=1e-4, atol=1e-5)
    assert (np.asarray(rewards.value)[~np.asarray(rewards.position.present)] == 0).all()


def test_the_reward_reads_the_last_token_and_nothing_after_it(values):
    net, params, jitted = values
    batch = packing.pad([Example.of([5, 6], [7, EOS])] * 12, 12)
    reward = jitted(net, params, batch, 1).value
    rubbish = batch._replace(tokens=np.where(batch.segment_ids == 0, 9, batch.tokens))
    assert (jitted(net, params, rubbish, 1).value == reward).all()
    last = batch._replace(tokens=np.where(np.arange(12) == 3, 9, batch.tokens))
    assert (jitted(net, params, last, 1).value != reward).all()


def test_loss_is_the_formula(values):
    """Margin, smoothing, centering and absent pairs, against numpy on the rewards."""
    net, params, _ = values
    made, margins = pairs(7, seed=1), [0.5, None, 1.0, 0.0, 2.0, None, 0.25]
    batch = pack_pairs(made, 40, margins)
    assert batch.margin.shape[1] > 1
    assert batch.margin.size > 7, "a row has fewer pairs than another"
    w, l = np.array([[alone(values, e) for e in pair] for pair in made]).T
    m = np.array([x or 0.0 for x in margins])
    nll = lambda x: np.logaddexp(0.0, -x)
    expected = 0.9 * nll(w - l - m) + 0.1 * nll(l - w + m) + 0.3 * (w + l) ** 2
    of = preference_loss(net, centering=0.3, smoothing=0.1)
    total, weight, extra = tiny_lm.jit(of)(params, (), batch)
    assert weight == 7
    np.testing.assert_allclose(total, expected.sum(), rtol=1e-4)
    np.testing.assert_allclose(extra["accuracy"] / 7, accuracy(w, l))
    np.testing.assert_allclose(extra["difference"], (w - l).sum(), rtol=1e-3, atol=1e-4)


def test_training_finds_what_makes_a_response_better(values):
    net, params, _ = values
    config = training.TrainingConfig(learning_rate=1e-2, total_steps=60, warmup_steps=5)
    trainer = training.make(preference_loss(net, preference("bradley_terry"), centering=0.01), config)
    step, batch, seen = tiny_lm.jit(trainer.step), pack_pairs(pairs(256, seed=2), 24), []
    state = training.fit(step, trainer.init(params), Stream(batch, 16), 60, observe=lambda _, info: seen.append(info))
    _, unseen = step(state, Stream(pack_pairs(pairs(256, seed=3), 24), 16).at(0), ())
    assert seen[0].extra["accuracy"] < 0.8
    assert unseen.extra["accuracy"] > 0.9
    assert abs(unseen.extra["reward"]) < 1.5, "centred"


def test_a_reward_model_has_places_and_adapters(values):
    net, params, _ = values
    mesh = dist.make_mesh(2, 2, 2)
    places = sharding.shardings(params, mesh)
    assert places["trunk"]["layers"]["q"].spec == jax.sharding.PartitionSpec(None, "fsdp", "tensor")
    assert places["head"].spec == jax.sharding.PartitionSpec(None)
    config = lora.LoraConfig(rank=2)
    adapters = jax.eval_shape(lambda: lora.init(config, params["trunk"], jax.random.key(1)))
    attach = lambda x: params | {"trunk": lora.attach(config, params["trunk"], x)}
    shape = jax.eval_shape(lambda x: net.apply(attach(x), jnp.zeros((2, 5), jnp.int32)), adapters)
    assert (shape.shape, shape.dtype) == ((2, 5), jnp.float32)
    trainer = training.make(adapted(config, preference_loss(net)), training.TrainingConfig())
    state = jax.eval_shape(trainer.init, {"adapters": adapters, "head": params["head"]})
    after, _ = jax.eval_shape(trainer.step, state, pack_pairs(pairs(4), 24), params["trunk"])
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert sharding.shardings(state, mesh).params["adapters"]["layers"]["o"]["b"].spec[-1] == "fsdp"
    low = network(dataclasses.replace(MODEL, dtype="bfloat16"))
    half = jax.eval_shape(value_network(low, 16).apply, params, jnp.zeros((2, 5), jnp.int32))
    assert half.dtype == jnp.float32, "rewards are float32 by construction"


def test_a_benchmark_file_from_line_to_table(values, tmp_path):
    """The reward is made to be the number of a word's appearance: subsets where more of it is better score 100 %."""
    pytest.importorskip("transformers")
    lines = [("p", "yes no yes no yes", "no no no yes no", "more"), ("p", "no no", "yes yes", "less")] * 20
    rows = [dict(zip(("prompt", "chosen", "rejected", "subset"), line, strict=True)) for line in lines]
    path = tmp_path / "bench.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    loaded = data.load(data.rewardbench, path)
    tokenizer = word_level(f"{a} {b} {c}" for a, b, c, _ in lines)
    encoded = encode_preferences(tokenizer, loaded.records)
    yes = tokenizer.convert_tokens_to_ids("yes")
    counting = Network(lambda key: (), lambda params, tokens, *_: jnp.cumsum(tokens == yes, axis=1) * 1.0)
    chosen, rejected = (score_examples(counting, (), side, 16, 32) for side in zip(*encoded, strict=True))
    assert chosen.tolist() == [3.0, 0.0] * 20
    table = benchmark(chosen, rejected, [p.subset for p in loaded.records], {"More": ["more"], "Less": ["less"]})
    assert (table.sections, table.accuracy) == ({"More": 1.0, "Less": 0.0}, 0.5)
    net, params, _ = values
    made = [e for pair in pairs(20) for e in pair]
    scores = score_examples(net, params, made, 12, 12)
    np.testing.assert_allclose(scores[[0, 13, 39]], [alone(values, made[i]) for i in (0, 13, 39)], rtol=1e-4, atol=1e-5)


def test_faults(values):
    with pytest.raises(UserError, match=r"smoothing is 0\.5"):
        preference_loss(values[0], smoothing=0.5)
    with pytest.raises(UserError, match="centering at least 0"):
        preference_loss(values[0], centering=-1.0)
    with pytest.raises(UserError, match="no example"):
        pack_pairs([], 8)
    assert PairBatch._fields == ("rows", "margin")
