"""Sequence-to-sequence reward models: the one pass says what the model would say row by row."""

import dataclasses
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_lm

from jaxalign.core.errors import UserError
from jaxalign.lm import TINY, packing
from jaxalign.lm.loss import cross_entropy
from jaxalign.lm.packing import Example
from jaxalign.lm.sampling import Sampling
from jaxalign.lm.transformer import network
from jaxalign.rewards import seq2seq
from jaxalign.rewards.seq2seq import Feedback
from jaxalign.rlhf.rollout import Completions, score_tokens

MODEL = tiny_lm.MODEL
EOS, SEPARATOR = 1, (2, 3)
PROMPT, WIDTH, ROWS = 4, 5, 64
RANDOM = np.random.default_rng(5)


diagnose, decoded_feedback = tiny_lm.jit(seq2seq.diagnose), tiny_lm.jit(seq2seq.decoded_feedback)


def hand_made(match, mask=None, logprob=None):
    match = np.array(match, bool)
    mask = np.ones_like(match) if mask is None else np.array(mask, bool)
    logprob = np.zeros(match.shape, np.float32) if logprob is None else np.array(logprob, np.float32)
    return Feedback(jnp.asarray(match & mask), jnp.asarray(logprob), jnp.asarray(mask))


def written():
    """Prompts of 2 to 4 tokens, padded on the left, responses of 1 to 5, with EOS except where they fill the row."""
    tokens = RANDOM.integers(4, MODEL.vocab_size, size=(ROWS, PROMPT + WIDTH))
    before = PROMPT - RANDOM.integers(2, PROMPT + 1, size=(ROWS, 1))
    length = RANDOM.integers(1, WIDTH + 2, size=(ROWS, 1))  # where the EOS stands
    columns = np.arange(PROMPT + WIDTH)
    tokens = np.where(columns == PROMPT + length - 1, EOS, tokens)
    there = (columns >= before) & (columns < PROMPT + length)
    tokens = np.where(there, tokens, 7)  # padding is whatever it is
    mask = jnp.asarray(there[:, PROMPT:])
    zeros = jnp.zeros(mask.shape, jnp.float32)
    return Completions(jnp.asarray(tokens, jnp.int32), jnp.asarray(there, jnp.int32), PROMPT, mask, zeros)


@pytest.fixture(scope="module")
def judged():
    """Parameters, responses, and what the model says of them in one pass."""
    params, responses = tiny_lm.params(), written()
    judge = tiny_lm.jit(lambda params, responses: seq2seq.feedback(MODEL, params, responses, SEPARATOR))
    return params, responses, jax.device_get(judge(params, responses))


def test_sequences_of_both_mappings():
    pair = (Example.of([5, 6], [7, 8, EOS]), Example.of([5, 6], [9, EOS]))
    correction, identity = seq2seq.mappings([pair], SEPARATOR)
    assert correction.tokens.tolist() == [5, 6, 9, EOS, 2, 3, 7, 8, EOS]
    assert correction.learn.tolist() == [False] * 6 + [True] * 3
    assert identity.tokens.tolist() == [5, 6, 7, 8, EOS, 2, 3, 7, 8, EOS]
    assert identity.learn.tolist() == [False] * 7 + [True] * 3
    (only,) = seq2seq.mappings([pair], SEPARATOR, ("identity",))
    assert only.tokens.tolist() == identity.tokens.tolist()


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("signed", [1, 1, -1, 0, -1, 0]),
        ("matches", [1, 1, -1, 1, -1, 0]),
        ("before", [1, 1, 0, 0, 0, 0]),
        ("after", [0, 0, -1, 0, -1, 0]),
        ("log_probability", [-0.5, -1, -2, -0.25, -3, 0]),
    ],
)
def test_variants_by_hand(variant, expected):
    row = hand_made([[1, 1, 0, 1, 0, 1]], [[1, 1, 1, 1, 1, 0]], [[-0.5, -1, -2, -0.25, -3, 0]])
    assert variant in seq2seq.VARIANTS
    values = seq2seq.rewards(row, variant)
    assert values.dtype == jnp.float32
    np.testing.assert_allclose(values, [expected])
    np.testing.assert_allclose(seq2seq.rewards(row, variant, mean=True), np.array([expected]) / 5, rtol=1e-6)


def test_nothing_is_earned_where_nothing_was_written():
    np.testing.assert_array_equal(seq2seq.rewards(hand_made([[1, 1]], [[0, 0]])), [[0, 0]])


def test_one_pass_says_what_the_rows_say_alone(judged):
    params, responses, found = judged
    apply = tiny_lm.jit(network(MODEL).apply)
    for i in range(8):
        there = np.asarray(responses.segment_ids[i]) > 0
        row = np.asarray(responses.tokens[i])
        x, y = row[:PROMPT][there[:PROMPT]], row[PROMPT:][there[PROMPT:]]
        alone = np.array([*x, *y, *SEPARATOR, *y])
        logits = np.asarray(apply(params, np.pad(alone, (0, 20 - len(alone)))[None])[0], np.float64)  # causal: right
        logits = logits[len(alone) - len(y) - 1 : len(alone) - 1]
        expected = logits[np.arange(len(y)), y] - np.log(np.exp(logits).sum(-1))
        np.testing.assert_allclose(found.logprob[i, : len(y)], expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(found.match[i, : len(y)], logits.argmax(-1) == y)
        assert not found.match[i, len(y) :].any()
        assert (found.logprob[i, len(y) :] == 0).all()


def test_padding_behind_a_response_is_not_seen_by_windowed_layers():
    """A window counts tokens, not columns: the same response says the same however wide its row is."""
    config = dataclasses.replace(TINY["gemma2"], vocab_size=MODEL.vocab_size, sliding_window=4)
    assert any(config.windowed)
    params = network(config).init(jax.random.key(0))
    judge = tiny_lm.jit(lambda responses: seq2seq.feedback(config, params, responses, SEPARATOR))
    prompt, response, found = [9, 10, 11], [12, 13, 14, 15, EOS], []
    for width in (5, 8, 20):
        tokens = np.array([[*prompt, *response, *[7] * (width - 5)]], np.int32)
        there = np.arange(3 + width)[None] < 8
        mask = jnp.asarray(there[:, 3:])
        rows = Completions(jnp.asarray(tokens), jnp.asarray(there, jnp.int32), 3, mask, jnp.zeros(mask.shape))
        found.append(np.asarray(judge(rows).logprob[0, :5]))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-5, atol=1e-5)


def test_decoding_agrees_with_the_pass_up_to_the_divergence(judged):
    params, responses, found = judged
    write = lambda params, responses: seq2seq.corrections(MODEL, params, responses, SEPARATOR, settings)
    settings = Sampling(WIDTH, eos_id=EOS)
    tokens, there = tiny_lm.jit(write)(params, responses)
    before, kept = decoded_feedback(responses, tokens, there)
    assert found.before.any()
    np.testing.assert_array_equal(before, found.before)
    assert (np.asarray(kept) | ~np.asarray(before)).sum() >= np.asarray(before).sum()


def longest(a, b):
    """Length of the longest common subsequence, by its textbook recursion."""
    if not a or not b:
        return 0
    if a[-1] == b[-1]:
        return 1 + longest(a[:-1], b[:-1])
    return max(longest(a[:-1], b), longest(a, b[:-1]))


def test_what_a_correction_keeps_is_a_longest_common_subsequence():
    rows, n = ROWS, WIDTH
    a, b = RANDOM.integers(2, 5, size=(2, rows, n))
    la, lb = RANDOM.integers(0, n + 1, size=(2, rows))
    mask, there = np.arange(n) < la[:, None], np.arange(n) < lb[:, None]
    tokens = jnp.asarray(np.concatenate([np.ones((rows, PROMPT), int), a], axis=1), jnp.int32)
    segments = jnp.asarray(np.concatenate([np.ones((rows, PROMPT), int), mask], axis=1), jnp.int32)
    responses = Completions(tokens, segments, PROMPT, jnp.asarray(mask), jnp.zeros((rows, n)))
    _, kept = decoded_feedback(responses, jnp.asarray(b, jnp.int32), jnp.asarray(there))
    for i in range(rows):
        read, corrected = a[i, : la[i]].tolist(), b[i, : lb[i]].tolist()
        common = a[i][np.asarray(kept[i])].tolist()
        assert len(common) == longest(read, corrected)
        rest = iter(corrected)
        assert all(token in rest for token in common)


def test_an_insertion_costs_itself_alone_when_decoded():
    row = jnp.array([[9, 9, 9, 9, 5, 8, 6, 7, EOS]] * ROWS, jnp.int32)  # response with 8 inserted
    ones = jnp.ones((ROWS, WIDTH), bool)
    responses = Completions(row, jnp.ones_like(row), PROMPT, ones, jnp.zeros(ones.shape))
    correction = jnp.array([[5, 6, 7, EOS, 0]] * ROWS, jnp.int32)
    before, kept = decoded_feedback(responses, correction, ones.at[:, -1].set(False))
    assert before[0].tolist() == [True, False, False, False, False]
    assert kept[0].tolist() == [True, False, True, True, True]


def test_packed_loss_is_the_unpacked_one():
    make = lambda: Example.of([5, 6], [*RANDOM.integers(4, 20, size=RANDOM.integers(1, 5)).tolist(), EOS])
    data = seq2seq.mappings([(make(), make()) for _ in range(6)], SEPARATOR)
    loss = tiny_lm.jit(partial(cross_entropy(network(MODEL)), tiny_lm.params(), ()))
    packed, padded = loss(packing.pack(data, 36)), loss(packing.pad(data, 36))
    assert len(packing.pack(data, 36).tokens) < len(data)
    np.testing.assert_allclose(packed[0], padded[0], rtol=1e-5)
    assert packed[1] == padded[1] == sum(e.learn.sum() for e in data)


def test_the_reward_is_what_rlhf_takes(judged):
    params, responses, found = judged
    reward = seq2seq.as_reward(MODEL, params, SEPARATOR, mean=True, scale=0.5)
    values = score_tokens(tiny_lm.jit(reward), responses)
    np.testing.assert_allclose(values, 0.5 * seq2seq.rewards(found, mean=True), rtol=1e-6)
    assert (np.asarray(values)[~np.asarray(responses.response_mask)] == 0).all()


def test_diagnosis_by_hand():
    match = [[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    mask = [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0]]
    found = {name: float(x) for name, x in diagnose(hand_made(match, mask)).items()}
    totals, length = [3, 1 - 1 + 0 - 1, 1 + 1 - 1, -1], [3, 4, 3, 1]
    expected = {
        "copy_rate": 1 / 4,
        "match_rate": 7 / 11,
        "first_divergence": np.mean([1, 1 / 4, 2 / 3, 0]),
        "blamed_after": 1 / 2,  # of row 1: behind its first divergence one match, one not
        "end_refused": 2 / 4,  # rows 2 and 3
        "length_slope": np.polyfit(length, totals, 1)[0],
    }
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: seq2seq.mappings([], (2,), ()), "mappings"),
        (lambda: seq2seq.mappings([], (2,), ("copy",)), "copy"),
        (lambda: seq2seq.mappings([], ()), "separator"),
        (lambda: seq2seq.as_reward(MODEL, {}, (2,), "sign"), "'sign'"),
        (lambda: seq2seq.rewards(hand_made([[1]]), "sign"), "'sign'"),
        (
            lambda: seq2seq.mappings([(Example(np.arange(3), np.array([False, True, False])),) * 2], (2,)),
            "chosen response of pair 0",
        ),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_too_long_for_the_context(judged):
    params, responses, _ = judged
    model = tiny_lm.MODEL.__class__(**{**vars(MODEL), "max_position": PROMPT + 2 * WIDTH + 1})
    with pytest.raises(UserError, match="context"):
        seq2seq.feedback(model, params, responses, SEPARATOR)


def test_all_variants_agree_on_a_perfect_copy():
    perfect = hand_made([[1, 1, 1]])
    totals = {name: float(seq2seq.rewards(perfect, name).sum()) for name in seq2seq.VARIANTS}
    assert totals == {"signed": 3, "matches": 3, "before": 3, "after": 0, "log_probability": 0}
    assert list(itertools.chain(seq2seq.VARIANTS)) == list(totals)
