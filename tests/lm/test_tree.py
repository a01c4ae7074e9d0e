"""Trees of responses: probabilities without a cache, shape by definition, distribution by enumeration."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_lm
from scipy import stats

from jaxalign.core import UserError
from jaxalign.lm import TINY, Branching, Sampling, grow, network
from jaxalign.lm.tree import longer

CONFIG = TINY["gemma3"]  # windowed and full layers
P, N, STOP = 10, 24, 7
LENGTHS = np.array([10, 1, 4, 7, 2, 9] * 3)
SAMPLING = Sampling(N, temperature=1.4, top_k=10, eos_id=STOP, pad_id=0)


@pytest.fixture(scope="module")
def params(random_params):
    return random_params(CONFIG)


@pytest.fixture(scope="module")
def separators(params):
    """A third of all tokens, so that responses of 24 tokens branch."""
    return tuple(int(token) for token in range(1, CONFIG.vocab_size, 3) if token != STOP)


@pytest.fixture(scope="module")
def prompts():
    rng = np.random.default_rng(0)
    tokens, mask = np.zeros((len(LENGTHS), P), np.int32), np.zeros((len(LENGTHS), P), bool)
    for i, n in enumerate(LENGTHS):
        tokens[i, P - n :], mask[i, P - n :] = rng.integers(1, CONFIG.vocab_size, n), True
    return tokens, mask


@pytest.fixture(scope="module", params=[1, 2])
def forest(request, params, separators, prompts):
    branching = Branching(separators, depth=3, clauses=request.param)
    forest = grow(network(CONFIG), CONFIG, params, *prompts, jax.random.key(5), SAMPLING, branching)
    return branching, jax.tree.map(np.asarray, forest)


def test_probabilities_are_those_of_whole_sequences(forest, params, prompts, quick_jit):
    """A pass over prompt and response, without a cache, gives every leaf's tokens the probabilities recorded."""
    _, forest = forest
    tokens, mask = forest.tokens.reshape(-1, P + N), forest.mask.reshape(-1, P + N)
    np.testing.assert_array_equal(forest.tokens[:, :, :P], np.repeat(prompts[0][:, None], 8, axis=1))
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0).astype(np.int32)
    logits = quick_jit(network(CONFIG).apply)(params, tokens, positions, mask.astype(np.int32))
    logprobs = np.asarray(jax.nn.log_softmax(logits))[:, P - 1 : -1]
    expected = np.take_along_axis(logprobs, tokens[:, P:, None], axis=2)[:, :, 0]
    expected = np.where(mask[:, P:], expected, 0.0).reshape(forest.logprobs.shape)
    np.testing.assert_allclose(forest.logprobs, expected, atol=2e-4)
    assert forest.mask[:, :, P:].sum() > 500


def test_responses_branch_where_they_may(forest, separators):
    branching, forest = forest
    responses = forest.tokens[:, :, P:]
    branchings = 0
    for tree, lengths, branched in zip(responses, forest.length, forest.branched):
        for leaf in range(8):
            begun = 0
            for level in range(3):
                sibling, at = leaf ^ (4 >> level), branched[leaf, level]
                np.testing.assert_array_equal(tree[leaf, :at], tree[sibling, :at])
                clauses = np.isin(tree[leaf, begun:at], separators).sum()
                if at == lengths[leaf] and tree[leaf, at - 1] not in separators:
                    assert clauses <= branching.clauses  # ended before it could branch
                elif at < lengths[leaf]:
                    assert tree[leaf, at - 1] in separators
                    assert clauses == branching.clauses
                    branchings += 1
                begun = at
    assert branchings > 30


def test_leaves_are_counted_once(forest):
    _, forest = forest
    for tree, length, leaf, branched in zip(forest.tokens[:, :, P:], forest.length, forest.leaf, forest.branched):
        ended = [next((d for d in range(3) if branched[i, d] == length[i]), 3) for i in range(8)]
        for i in range(8):
            first = i & ~((1 << (3 - ended[i])) - 1)  # of its copies
            assert leaf[i] == (i == first)
            np.testing.assert_array_equal(tree[i], tree[first])


def test_what_is_written_once_is_counted_once(forest):
    _, forest = forest
    for length, branched, written in zip(forest.length, forest.branched, forest.written):
        nodes = {}
        for leaf in range(8):
            ends = [0, *branched[leaf], length[leaf]]
            for level in range(4):
                nodes[level, leaf >> (3 - level)] = ends[level + 1] - ends[level]
        assert written == sum(nodes.values())
    assert forest.written.sum() < 0.8 * (forest.length * forest.leaf).sum()


def test_complete_responses_end_with_the_stop(forest):
    _, forest = forest
    last = np.take_along_axis(forest.tokens[:, :, P:], forest.length[..., None] - 1, axis=2)[..., 0]
    np.testing.assert_array_equal(forest.complete, last == STOP)
    assert (forest.length[~forest.complete] == N).all()
    assert 0 < forest.complete.mean() < 1


def test_every_leaf_is_distributed_as_an_independent_response():
    """Without cooling: exact probabilities of all responses of 3 tokens, by enumeration."""
    config = dataclasses.replace(tiny_lm.MODEL, vocab_size=4)
    params, temperature, rows, stop = tiny_lm.params(config), 1.3, 4000, 3
    net, prompt = network(config), np.array([[1, 2]], np.int32)
    texts = np.array(list(itertools.product(range(4), repeat=3)), np.int32)
    whole = np.concatenate([np.repeat(prompt, len(texts), axis=0), texts], axis=1)
    logprobs = np.asarray(jax.nn.log_softmax(net.apply(params, jnp.asarray(whole)) / temperature))[:, 1:-1]
    chosen = np.take_along_axis(logprobs, texts[..., None], axis=2)[..., 0]
    exact = {}
    for text, scores in zip(texts.tolist(), chosen):
        n = text.index(stop) + 1 if stop in text else 3
        exact[tuple(text[:n])] = float(np.exp(scores[:n].sum()))
    assert sum(exact.values()) == pytest.approx(1, abs=1e-5)

    sampling = Sampling(3, temperature=temperature, eos_id=stop, pad_id=0)
    branching = Branching((1, 2), depth=2, cooling=0.0, heating=0.0)
    many = np.repeat(prompt, rows, axis=0)
    forest = grow(net, config, params, many, np.ones_like(many, bool), jax.random.key(0), sampling, branching)
    responses, lengths = np.asarray(forest.tokens[:, :, 2:]), np.asarray(forest.length)
    for leaf in (0, 3):
        seen = dict.fromkeys(exact, 0)
        for response, n in zip(responses[:, leaf].tolist(), lengths[:, leaf]):
            seen[tuple(response[:n])] += 1
        expected = np.array([exact[text] * rows for text in exact])
        counts, often = np.array(list(seen.values())), expected > 5
        counts, expected = (np.append(x[often], x[~often].sum()) for x in (counts, expected))
        kept = expected > 0.5
        assert stats.chisquare(counts[kept], expected[kept] * counts[kept].sum() / expected[kept].sum()).pvalue > 1e-3


def test_overlap_of_siblings_is_their_longest_common_subsequence():
    def reference(a, b):
        table = np.zeros((len(a) + 1, len(b) + 1), int)
        for i, j in itertools.product(range(len(a)), range(len(b))):
            table[i + 1, j + 1] = max(table[i, j + 1], table[i + 1, j], table[i, j] + (a[i] == b[j]))
        return table[-1, -1]

    rng = np.random.default_rng(0)
    for _ in range(30):
        one, other = (rng.integers(0, 4, rng.integers(1, 12)) for _ in range(2))
        overlap = jnp.zeros((1, len(other)), jnp.int32)
        for i, token in enumerate(one):
            overlap = longer(overlap, jnp.asarray(token == other)[None])
            assert overlap[0, -1] == reference(one[: i + 1], other)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"separators": ()}, "separators is empty"),
        ({"depth": 0}, "depth is 0"),
        ({"clauses": 0}, "clauses is 0"),
        ({"cooling": -1.0}, "cooling is -1"),
        ({"cooling": 0.5}, "choose a higher temperature or less cooling"),
    ],
)
def test_bad_input_is_refused(params, prompts, changes, sentence):
    def attempt():
        branching = Branching(**({"separators": (3,)} | changes))
        return grow(network(CONFIG), CONFIG, params, *prompts, jax.random.key(0), SAMPLING, branching)

    with pytest.raises(UserError, match=sentence):
        attempt()
