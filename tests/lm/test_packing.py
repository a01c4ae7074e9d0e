"""Packing loses nothing, wastes little, and does not change the loss."""

import functools

import jax
import numpy as np
import pytest
import tiny_lm

from jaxalign.core.errors import UserError
from jaxalign.lm import loss, packing, training
from jaxalign.lm.packing import Batch, Example
from jaxalign.lm.stream import Stream
from jaxalign.lm.transformer import network, unembed


def examples(lengths, seed=0):
    random = np.random.default_rng(seed)
    return [
        Example.of(random.integers(0, 23, size=max(1, n // 2)), random.integers(0, 23, size=n - max(1, n // 2)))
        for n in lengths
    ]


def packed(made):
    """Packed rows of 12, with empty ones up to six: one shape, one compilation."""
    groups = packing.first_fit_decreasing([len(e.tokens) for e in made], 12)
    return packing.layout(made, groups + [[]] * (6 - len(groups)), 12)


def first_fit_plainly(lengths, capacity):
    groups, rooms = [], []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        place = next((g for g, room in enumerate(rooms) if room >= lengths[i]), len(groups))
        if place == len(groups):
            groups.append([])
            rooms.append(capacity)
        groups[place].append(i)
        rooms[place] -= lengths[i]
    return groups


@pytest.mark.parametrize("count", [1, 2, 7, 64, 301])
def test_first_fit_decreasing_is_what_its_name_says(count):
    lengths = np.random.default_rng(count).integers(1, 60, size=count).tolist()
    groups = packing.first_fit_decreasing(lengths, 60)
    assert groups == first_fit_plainly(lengths, 60)
    assert sorted(i for group in groups for i in group) == list(range(count))
    assert len(groups) <= 11 / 9 * np.ceil(sum(lengths) / 60) + 20  # the bound is on the optimum, at least this


def test_packed_rows_hold_every_example_whole():
    made = examples([5, 9, 3, 12, 7, 2])
    batch = packing.pack(made, 12)
    assert batch.tokens.shape[0] == 4  # 38 tokens in rows of 12
    found = []
    for row in range(4):
        for segment in range(1, batch.segment_ids[row].max() + 1):
            here = batch.segment_ids[row] == segment
            assert (batch.positions[row, here] == np.arange(here.sum())).all()
            found.append((batch.tokens[row, here].tolist(), batch.learn[row, here].tolist()))
    assert sorted(found) == sorted((e.tokens.tolist(), e.learn.tolist()) for e in made)
    assert not batch.learn[batch.segment_ids == 0].any()


def test_padding_sides():
    made = examples([3, 5])
    right, left = packing.pad(made, 6), packing.pad(made, 6, side="left")
    assert right.segment_ids.tolist() == [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]]
    assert left.segment_ids.tolist() == [[0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 1]]
    assert left.tokens[0, 3:].tolist() == right.tokens[0, :3].tolist() == made[0].tokens.tolist()
    assert left.positions[1].tolist() == [0, 0, 1, 2, 3, 4]


def test_faults():
    with pytest.raises(UserError, match="Example 1 has 9 tokens, more than the 8 of a row"):
        packing.pack(examples([4, 9]), 8)
    with pytest.raises(UserError, match="Example 1 has 9 tokens"):
        packing.pad(examples([4, 9]), 8)
    with pytest.raises(UserError, match="no example"):
        packing.pack([], 8)
    with pytest.raises(UserError, match="no example"):
        packing.pad([])
    with pytest.raises(UserError, match="padding side is 'up'"):
        packing.pad(examples([4]), side="up")
    with pytest.raises(UserError, match="response is empty"):
        Example.of([1, 2], [])
    kept, dropped = packing.fitting(examples([4, 9, 8]), 8)
    assert [len(e.tokens) for e in kept] == [4, 8]
    assert dropped == 1


@pytest.fixture(scope="module")
def gradient():
    of, params = loss.cross_entropy(network(tiny_lm.MODEL)), tiny_lm.params()

    def total(params, batch):
        total, *rest = of(params, (), batch)
        return total, rest

    compiled = tiny_lm.jit(jax.value_and_grad(total, has_aux=True))
    return params, lambda batch: compiled(params, batch)


def test_packed_loss_and_gradient_equal_the_unpacked(gradient):
    _, of = gradient
    made = examples([5, 9, 3, 12, 7, 2], seed=3)
    right, left = packing.pad(made, 12), packing.pad(made, 12, side="left")
    (a, (weight_a, extra_a)), grad_a = of(packed(made))
    for other in (right, left):
        (b, (weight_b, extra_b)), grad_b = of(other)
        assert weight_a == weight_b == sum(int(e.learn.sum()) for e in made)
        assert extra_a["accuracy"] == extra_b["accuracy"]
        np.testing.assert_allclose(a, b, rtol=1e-5)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5), grad_a, grad_b)


def test_loss_is_the_textbook_sum(gradient):
    """Against a float64 log-softmax of the logits of sequences without any padding."""
    params, of = gradient
    made = examples([6, 6], seed=5)
    tokens, learn = np.stack([e.tokens for e in made]), np.stack([e.learn for e in made])
    logits, found = tiny_lm.jit(
        lambda params, x: (y := network(tiny_lm.MODEL).apply(params, x), loss.token_log_probs(y, x))
    )(params, tokens)
    log_probs = np.asarray(logits, np.float64)
    log_probs -= np.log(np.exp(log_probs).sum(-1, keepdims=True))
    expected = [[0.0] + [log_probs[b, t - 1, tokens[b, t]] for t in range(1, 6)] for b in range(2)]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    (total, _), _ = of(packed(made))
    np.testing.assert_allclose(total, -np.sum(expected, where=learn), rtol=1e-5)


def test_logits_in_pieces_are_those_at_once(gradient):
    params, of = gradient
    batch = packed(examples([5, 9, 3, 12, 7, 2], seed=3))
    (whole, (weight, extra)), slope = of(batch)
    net, read = network(tiny_lm.MODEL), functools.partial(unembed, tiny_lm.MODEL)
    cut = loss.cross_entropy(net, 3, read)
    (sums, gradient_in_pieces) = tiny_lm.jit(training.accumulate(cut, 1))(params, (), batch)
    np.testing.assert_allclose(sums[0], whole, rtol=1e-5)
    assert (sums[1], sums[2]) == (weight, extra)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5), slope, gradient_in_pieces)
    with pytest.raises(UserError, match="12 columns cannot be cut in 5 pieces"):
        jax.eval_shape(loss.cross_entropy(net, 5, read), params, (), batch)
    with pytest.raises(UserError, match="give `unembed`"):
        loss.cross_entropy(net, 2)


def test_the_first_token_of_a_sequence_is_no_target():
    everything = [Example(np.arange(3, dtype=np.int32), np.ones(3, bool)) for _ in range(2)]
    batch = packing.pack(everything, 7)
    batch = batch._replace(learn=np.ones_like(batch.learn))  # even if the batch claims otherwise
    assert loss.targets(batch).tolist() == [[False, True, True, False, True, True, False]]


def test_stream_is_a_function_of_seed_and_position():
    rows = Batch(*(np.arange(7)[:, None] for _ in range(4)))
    stream, other = Stream(rows, 3, seed=1), Stream(rows, 3, seed=2)
    first = [stream.at(p).tokens[:, 0].tolist() for p in range(0, 21, 3)]
    passes = np.reshape(first, (3, 7))
    assert (np.sort(passes) == np.arange(7)).all(), "every row once a pass"
    assert (passes[0] != passes[1]).any(), "passes differ in order"
    assert [other.at(p).tokens[:, 0].tolist() for p in range(0, 21, 3)] != first
    again = Stream(rows, 3, seed=1)
    assert [again.at(p).tokens[:, 0].tolist() for p in reversed(range(0, 21, 3))] == first[::-1]
    with pytest.raises(UserError, match="Batches of 0 of 7 rows"):
        Stream(rows, 0)
