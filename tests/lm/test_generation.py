"""Generation against a reference without a cache, and the sampler against NumPy."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxalign.core import UserError
from jaxalign.lm import TINY, Sampling, generate, network
from jaxalign.lm.sampling import draw, restrict, sample

CONFIG = TINY["gemma3"]  # windowed and full layers
ROWS, P, N = 4, 10, 12
LENGTHS = np.array([10, 1, 4, 7])
KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def params(random_params):
    return random_params(CONFIG)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return [rng.integers(1, CONFIG.vocab_size, n) for n in LENGTHS]


@pytest.fixture(scope="module")
def apply(quick_jit):
    return quick_jit(network(CONFIG).apply)


def padded(rows, side):
    tokens, mask = np.zeros((ROWS, P), np.int32), np.zeros((ROWS, P), bool)
    for i, row in enumerate(rows):
        place = slice(P - len(row), None) if side == "left" else slice(len(row))
        tokens[i, place], mask[i, place] = row, True
    return tokens, mask


@functools.partial(jax.jit, static_argnums=0)
def choose(settings, logits, ends, key):
    """Tokens and log-probabilities [rows, V] at the columns `ends`."""
    newest = logits[jnp.arange(ROWS), ends]
    return sample(key, newest, settings), jax.nn.log_softmax(newest)


def reference(apply, params, rows, settings):
    """Token by token, whole sequences each time, no cache: tokens and log-probabilities per row."""
    endless = dataclasses.replace(settings, eos_id=None)
    texts = [list(row) for row in rows]
    done, tokens, logprobs = [False] * len(rows), [[] for _ in rows], [[] for _ in rows]
    for step in range(settings.max_new_tokens):
        canvas = np.zeros((ROWS, P + N), np.int32)
        for i, text in enumerate(texts):
            canvas[i, : len(text)] = text
        ids = jnp.asarray(np.arange(P + N) < np.array([len(text) for text in texts])[:, None], jnp.int32)
        logits = apply(params, jnp.asarray(canvas), segment_ids=ids)
        ends = np.array([len(text) - 1 for text in texts])
        token, scores = (np.asarray(x) for x in choose(endless, logits, ends, jax.random.fold_in(KEY, step)))
        for i, text in enumerate(texts):
            text.append(int(token[i]))
            if not done[i]:
                tokens[i].append(int(token[i]))
                logprobs[i].append(scores[i, token[i]])
            done[i] = done[i] or int(token[i]) in settings.stops
    return tokens, logprobs


@functools.cache
def settings(kind, eos_id=None):
    return {
        "greedy": Sampling(N, temperature=0.0, eos_id=eos_id, pad_id=0),
        "sampled": Sampling(N, temperature=0.8, top_k=40, top_p=0.95, eos_id=eos_id, pad_id=0),
    }[kind]


@pytest.mark.parametrize("kind", ["greedy", "sampled"])
def test_equals_the_reference_without_a_cache(kind, apply, params, rows, quick_jit):
    wanted, _ = reference(apply, params, rows, settings(kind))
    stop = (wanted[0][3], wanted[2][6])  # tokens that do occur become ends
    tokens, logprobs = reference(apply, params, rows, settings(kind, stop))
    assert min(map(len, tokens)) < N
    run = functools.partial(generate, network(CONFIG), CONFIG, key=KEY, settings=settings(kind, stop))
    run = run if kind == "greedy" else quick_jit(run)  # inside another jit as well
    for side in ("left", "right"):
        tokens_in, mask = padded(rows, side)
        out = run(params=params, prompts=tokens_in, prompt_mask=mask)
        np.testing.assert_array_equal(out.length, [len(row) for row in tokens])
        for i in range(ROWS):
            length = len(tokens[i])
            whole = np.concatenate([np.zeros(P - LENGTHS[i], int), rows[i], tokens[i], np.zeros(N - length, int)])
            np.testing.assert_array_equal(out.tokens[i], whole)
            column = np.arange(P + N)
            np.testing.assert_array_equal(out.mask[i], (column >= P - LENGTHS[i]) & (column < P + length))
            np.testing.assert_allclose(out.logprobs[i, :length], logprobs[i], atol=2e-4)
            assert not out.logprobs[i, length:].any()


def test_the_loop_ends_when_all_rows_have(params, rows, quick_jit):
    """With every token an end, one column is written."""
    everything = tuple(range(CONFIG.vocab_size))
    every = Sampling(N, temperature=0.0, eos_id=everything, pad_id=5)
    run = quick_jit(lambda p, t, m: generate(network(CONFIG), CONFIG, p, t, m, KEY, every))
    out = run(params, *padded(rows, "left"))
    np.testing.assert_array_equal(out.length, 1)
    assert (np.asarray(out.tokens[:, P + 1 :]) == 5).all()


def test_sharded_jit_and_shard_map_give_the_same(apply, params, rows, quick_jit):
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2], axis_types=(AxisType.Auto,))
    tokens, mask = (jnp.asarray(x) for x in padded(rows, "left"))
    greedy = settings("greedy")

    def run(params, tokens, mask):
        return generate(network(CONFIG), CONFIG, params, tokens, mask, KEY, greedy)

    alone, logprobs = reference(apply, params, rows, greedy)
    data, whole = PartitionSpec("data"), PartitionSpec()
    across, everywhere = NamedSharding(mesh, data), NamedSharding(mesh, whole)
    put = jax.device_put((params, tokens, mask), (everywhere, across, across))
    sharded = quick_jit(run)(*put)
    assert sharded.tokens.sharding.is_equivalent_to(across, 2)
    mapped = jax.shard_map(run, mesh=mesh, in_specs=(whole, data, data), out_specs=data, check_vma=False)
    mapped = quick_jit(mapped)(*put)
    for other in (sharded, mapped):
        np.testing.assert_array_equal(other.tokens[:, P:], alone)
        np.testing.assert_allclose(other.logprobs, logprobs, atol=2e-4)


def numpy_restrict(logits, top_k, top_p):
    """The set of tokens left, by sorting."""
    order = np.argsort(-logits, kind="stable")
    kept = order[:top_k] if top_k else order
    p = np.exp(logits[kept] - logits[kept].max())
    p /= p.sum()
    reached = int(np.searchsorted(np.cumsum(p), top_p - 1e-7)) + 1 if top_p < 1 else len(kept)
    return {*kept[:reached].tolist()}


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (1, 1.0), (7, 1.0), (0, 0.5), (0, 0.9), (20, 0.8), (0, 1e-6)])
def test_the_tokens_left_are_those_of_a_sort(top_k, top_p):
    logits = np.random.default_rng(4).normal(scale=3.0, size=(16, 200)).astype(np.float32)
    left = np.isfinite(restrict(jnp.asarray(logits), top_k, top_p))
    for row, kept in zip(logits, left, strict=True):
        assert {*np.flatnonzero(kept).tolist()} == numpy_restrict(row, top_k, top_p)


def test_ties_at_the_edge_are_all_kept():
    logits = jnp.log(jnp.array([[0.4, 0.2, 0.2, 0.2, 1e-30]]))
    np.testing.assert_array_equal(np.isfinite(restrict(logits, top_k=2)), [[True, True, True, True, False]])
    np.testing.assert_array_equal(np.isfinite(restrict(logits, top_p=0.5)), [[True, True, True, True, False]])


@pytest.mark.parametrize("size", [2, 10, 50])
def test_draws_have_the_distribution(size):
    rng = np.random.default_rng(size)
    logits = rng.normal(size=size).astype(np.float32)
    logits[size // 2] = -np.inf
    number = 40_000
    tokens = np.asarray(jax.jit(draw)(jax.random.key(5), jnp.broadcast_to(jnp.asarray(logits), (number, size))))
    p = np.exp(logits) / np.exp(logits).sum()
    counts = np.bincount(tokens, minlength=size)
    assert counts[size // 2] == 0
    deviation = np.abs(counts - number * p) / np.sqrt(number * p * (1 - p) + 1e-9)
    assert deviation[p > 0].max() < 5 if size > 2 else counts.sum() == number


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": -1.0}, "temperature"),
        ({"top_k": -2}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
    ],
)
def test_wrong_settings_are_refused(change, words):
    with pytest.raises(UserError, match=words):
        Sampling(**{"max_new_tokens": 3} | change)


def test_wrong_prompts_are_refused(params):
    run = functools.partial(generate, network(CONFIG), CONFIG, params)
    tokens = np.ones((2, 4), np.int32)
    with pytest.raises(UserError, match="tokens are more than the context of 128"):
        run(tokens, tokens > 0, KEY, Sampling(125))
    with pytest.raises(UserError, match="Row 1 of prompt_mask has no token"):
        run(tokens, np.array([[1, 1, 1, 1], [0, 0, 0, 0]], bool), KEY, Sampling(2))
    with pytest.raises(UserError, match="Row 0 of prompt_mask has gaps"):
        run(tokens, np.array([[1, 0, 1, 1], [0, 0, 1, 0]], bool), KEY, Sampling(2))
