"""Codes against brute force, exact fractions, Python's own compressors, and a model's cross-entropy."""

import dataclasses
import gzip
import itertools
import lzma
import math
from fractions import Fraction

import jax
import numpy as np
import pytest
import tiny_lm

from jaxalign.core.errors import UserError
from jaxalign.elasticity import coding
from jaxalign.elasticity.arithmetic import COUNT_BITS, Compressor, Decoder, Encoder, cumulative_counts
from jaxalign.elasticity.corpus import MarkovText, markov_text
from jaxalign.elasticity.token_tree import piece_tree, token_tree

TOTAL = 1 << COUNT_BITS


def shortest_mean_length(weights):
    """Of any prefix code, by trying all lengths that Kraft's inequality allows."""
    choices = itertools.product(range(1, len(weights)), repeat=len(weights))
    allowed = (lengths for lengths in choices if sum(Fraction(1, 2**n) for n in lengths) <= 1)
    return min(sum(w * n for w, n in zip(weights, lengths)) for lengths in allowed)


@pytest.mark.parametrize("seed", range(5))
def test_huffman_is_the_shortest_prefix_code(seed):
    random = np.random.default_rng(seed)
    weights = random.dirichlet(np.full(int(random.integers(2, 6)), 0.5)) + 1e-6
    words = coding.huffman({(i,): w for i, w in enumerate(weights)})
    assert sum(w * len(words[i,]) for i, w in enumerate(weights)) == pytest.approx(shortest_mean_length(weights))
    for a, b in itertools.permutations(words.values(), 2):
        assert not b.startswith(a)


def test_huffman_lies_within_a_bit_of_the_entropy_and_of_the_ideal():
    random = np.random.default_rng(0)
    responses = [tuple((random.random(random.integers(1, 9)) < 0.2).astype(int).tolist()) for _ in range(300)]
    for depth in (1, 2, 3, 5, 8):
        tree = piece_tree(responses, depth)
        code = coding.huffman_code(tree, depth)
        mean, entropy = coding.mean_code_length(code, tree), tree.entropy()
        assert entropy - 1e-12 <= mean < entropy + 1
        assert abs(mean - coding.ideal_code_length(tree, depth, depth)) < 1
        text = "".join(map(code.encode, responses))
        pieces = sum(math.ceil((len(response) + 1) / depth) for response in responses)
        assert len(text) == pytest.approx(pieces * mean)
        assert code.decode(text, len(responses)) == responses


def test_ideal_code_length_on_paper():
    tree = token_tree([(0, 0), (0, 1), (1, 0), (1, 1)])
    assert coding.ideal_code_length(tree, 2, 5) == 3 * 2  # three pieces of at most 2 tokens, each of 2 bits
    assert coding.ideal_code_length(tree, 1, 5) == 5 * 1
    assert coding.ideal_code_length(token_tree([(0,), (1,), (1,)]), 2, 2) == 1  # 0.918 bits, rounded up


def test_one_response_takes_no_bits():
    code = coding.huffman_code(token_tree([(0, 1)]), 4)
    assert code.encode((0, 1)) == ""
    assert code.decode("", 3) == [(0, 1)] * 3


def test_reference_compressors_are_python_s():
    data, before = b"the sea, the sky, the sea again. " * 30, b"the sky and the sea " * 10
    found = coding.reference_bits_per_byte(data)
    assert found["gzip"] == 8 * len(gzip.compress(data, 9, mtime=0)) / len(data)
    assert found["xz"] == 8 * len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)) / len(data)
    assert coding.reference_bits_per_byte(data, before)["gzip"] < found["gzip"]
    pyarrow = pytest.importorskip("pyarrow")
    size = round(found["zstd"] * len(data) / 8)
    packed = pyarrow.Codec("zstd", compression_level=19).compress(data, asbytes=True)
    assert size == len(packed) < len(data)


def test_source_of_known_entropy():
    source = MarkovText(("a", "be"), np.array([[0.75, 0.25], [0.5, 0.5]]), 3)
    texts = [(" ".join(words) + "\n").encode() for words in itertools.product(source.words, repeat=3)]
    chance = np.array([2.0 ** -source.information([text]) for text in texts])
    assert chance.sum() == pytest.approx(1)
    assert source.entropy() == pytest.approx(-np.sum(chance * np.log2(chance)))
    drawn = source.sentences(np.random.default_rng(0), 20_000)
    found = np.array([drawn.count(text) for text in texts]) / len(drawn)
    np.testing.assert_allclose(found, chance, atol=5 * 0.5 / len(drawn) ** 0.5)
    made = markov_text(0, words=20)
    assert len({*made.words}) == 20
    np.testing.assert_allclose(made.chances.sum(axis=1), 1)


def cumulative(counts):
    """Counts that sum to the total, from 0 up."""
    return np.concatenate([[0], np.cumsum(counts)])


def through(tables, tokens):
    """The code of tokens under one table each, decoded again."""
    encoder = Encoder()
    for table, token in zip(tables, tokens):
        encoder.encode(int(table[token]), int(table[token + 1]))
    code = encoder.finish()
    decoder = Decoder(code)
    return code, [decoder.decode(table) for table in tables]


def interval(tables, tokens):
    """The interval of a message, in fractions: what an arithmetic coder without rounding narrows down to."""
    low, width = Fraction(0), Fraction(1)
    for table, token in zip(tables, tokens):
        low += width * Fraction(int(table[token]), TOTAL)
        width *= Fraction(int(table[token + 1] - table[token]), TOTAL)
    return low, width


def random_tables(random, length, size, concentration):
    """Tables in which no token has less than one count, and tokens drawn by them."""
    counts = 1 + np.floor(random.dirichlet(np.full(size, concentration), length) * (TOTAL - size)).astype(int)
    counts[:, 0] += TOTAL - counts.sum(axis=1)
    tables = [cumulative(row) for row in counts]
    return tables, [int(random.choice(size, p=row / TOTAL)) for row in counts]


@pytest.mark.parametrize("concentration", [0.02, 1.0, 50.0])
@pytest.mark.parametrize("length", [0, 1, 7, 400])
def test_arithmetic_code_is_lossless_and_at_most_two_bits_long(concentration, length):
    random = np.random.default_rng(length)
    tables, tokens = random_tables(random, length, 5, concentration)
    code, decoded = through(tables, tokens)
    assert decoded == tokens
    ideal = -sum(math.log2((table[token + 1] - table[token]) / TOTAL) for table, token in zip(tables, tokens))
    assert len(code) <= math.ceil((ideal + 2) / 8)


def test_arithmetic_code_is_a_number_in_the_exact_interval():
    """Up to the rounding of a step, 2^-40 of the width; messages at the interval's ends are what makes carries."""
    tables = [cumulative([1, TOTAL - 2, 1])] * 5
    for tokens in itertools.product(range(3), repeat=5):
        code, decoded = through(tables, tokens)
        assert decoded == list(tokens)
        low, width = interval(tables, tokens)
        value = Fraction(int.from_bytes(code, "big"), 256 ** len(code))
        assert low - Fraction(1, 2**40) <= value < low + width + Fraction(1, 2**40)


def test_arithmetic_code_carries_far():
    """A long run just below a boundary leaves bytes of 255 that a last token may yet turn over."""
    half = cumulative([TOTAL // 2 - 1, 2, TOTAL // 2 - 1])
    for last in range(3):
        tokens = [1, *[2] * 300, last]
        code, decoded = through([half] * len(tokens), tokens)
        assert decoded == tokens
        low, width = interval([half] * 12, tokens[:12])
        assert low <= Fraction(int.from_bytes(code, "big"), 256 ** len(code)) < low + width


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1e4])
def test_counts_are_the_softmax(scale):
    logits = scale * np.random.default_rng(0).normal(size=(3, 500)).astype(np.float32)
    table = np.asarray(cumulative_counts(jax.numpy.asarray(logits)))
    counts = np.diff(table)
    assert (table[:, 0] == 0).all()
    assert (table[:, -1] == TOTAL).all()
    assert counts.min() >= 1
    wide = logits.astype(float) - logits.max(axis=1, keepdims=True)
    chance = np.exp(wide) / np.exp(wide).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(counts / TOTAL, chance, atol=(500 + 64 + 32) / TOTAL)


@pytest.fixture(scope="module")
def compressor():
    """An untrained model of bytes, sharp enough that its cross-entropy of other text than its own is far from 8."""
    model = dataclasses.replace(tiny_lm.MODEL, vocab_size=257)
    return Compressor(model, tiny_lm.params(model), window=24, rows=4)


@pytest.mark.parametrize("length", [0, 1, 23, 24, 97, 250])
def test_any_bytes_come_back(compressor, length):
    data = np.random.default_rng(length).integers(0, 256, length, np.uint8).tobytes()
    assert compressor.decompress(compressor.compress(data)) == data


def test_every_byte_comes_back(compressor):
    data = bytes(range(256)) + b"\0" * 20 + b"\xff" * 20
    assert compressor.decompress(compressor.compress(data)) == data


def test_bits_are_the_cross_entropy(compressor):
    tokens = np.random.default_rng(0).integers(0, 256, 2500).astype(np.int32)
    code = compressor.encode(tokens)
    entropy = compressor.cross_entropy(tokens)
    assert abs(entropy - 8) > 0.3  # no coincidence
    assert 8 * len(code) / len(tokens) == pytest.approx(entropy, abs=0.01)


def test_what_is_refused(compressor):
    with pytest.raises(UserError, match="no byte"):
        coding.reference_bits_per_byte(b"")
    with pytest.raises(UserError, match="0 symbols"):
        coding.huffman({})
    with pytest.raises(UserError, match="positive weight"):
        coding.huffman({(0,): 1.0, (1,): 0.0})
    code = coding.huffman_code(token_tree([(0,), (1,), (0, 0)]), 3)
    with pytest.raises(UserError, match="no word for"):
        code.encode((1, 1))
    with pytest.raises(UserError, match="middle of a response"):
        code.decode(code.encode((1,)), 2)
    with pytest.raises(UserError, match="Bits are left"):
        code.decode(code.encode((1,)) * 2, 1)
    with pytest.raises(UserError, match="at least 1 token"):
        coding.ideal_code_length(token_tree([(0,)]), 2, 0)
    with pytest.raises(UserError, match="Tokens are between"):
        compressor.encode(np.array([0, 300], np.int32))
    with pytest.raises(UserError, match="length is -1"):
        compressor.decode(b"", -1)
    with pytest.raises(UserError, match="too short"):
        compressor.decompress(b"abc")
    with pytest.raises(UserError, match="bytes need a model"):
        Compressor(tiny_lm.MODEL, {}).compress(b"a")
    with pytest.raises(UserError, match="rows 0"):
        compressor._replace(rows=0).encode(np.zeros(1, np.int32))
    with pytest.raises(UserError, match="words is 1"):
        markov_text(0, words=1)
