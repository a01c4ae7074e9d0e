"""The reward stands at the last real token, whatever the padding, the packing and the ids."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.lm import packing
from jaxalign.lm.packing import Example
from jaxalign.rewards import at_reward_position, generated_segments, reward_position, to_tokens

EOS = 2


def plainly(segment_ids, sequences):
    """Row by row in Python."""
    found = []
    for row in np.asarray(segment_ids):
        here = [np.flatnonzero(row == s) for s in range(1, sequences + 1)]
        found.append([int(h[-1]) if len(h) else None for h in here])
    return found


@pytest.mark.parametrize(
    ("name", "segments", "expected"),
    [
        ("right-padded", [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], [[2], [4]]),
        ("left-padded", [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]], [[4], [4]]),
        ("packed", [[1, 1, 2, 2, 0], [1, 2, 2, 3, 3]], [[1, 3, None], [0, 2, 4]]),
        ("packed after padding", [[0, 1, 1, 2, 0]], [[2, 3]]),
        ("one token", [[1, 0, 0]], [[0]]),
        ("empty row", [[0, 0, 0]], [[None]]),
    ],
)
def test_table(name, segments, expected):
    index, present = reward_position(jnp.array(segments), len(expected[0]))
    found = [[int(i) if p else None for i, p in zip(*row)] for row in zip(index, present)]
    assert found == expected == plainly(segments, len(expected[0])), name


def test_random_packings_agree_with_the_plain_search():
    random = np.random.default_rng(0)
    made = [Example.of([1], random.integers(0, 9, size=n - 1)) for n in random.integers(2, 9, size=40)]
    segments = packing.pack(made, 16).segment_ids
    index, present = reward_position(jnp.asarray(segments), 8)
    expected = plainly(segments, 8)
    assert [[int(i) if p else None for i, p in zip(*row)] for row in zip(index, present)] == expected


def test_token_ids_do_not_matter():
    """The bug of many: padding found by its id, which is EOS, or absent, or also a token of the text."""
    made = [Example.of([5, 6], [7, EOS]), Example.of([5], [7, 8]), Example.of([EOS, 5], [EOS])]
    batch = packing.pad(made, 6)
    for pad in (0, EOS, 7):
        tokens = np.where(batch.segment_ids == 0, pad, batch.tokens)
        index, _ = reward_position(jnp.asarray(batch.segment_ids))
        last = np.take_along_axis(tokens, np.asarray(index), axis=1)[:, 0]
        assert last.tolist() == [EOS, 8, EOS]  # EOS itself, the last token where there is none


def test_generated_rows():
    tokens = jnp.array(
        [
            [0, 5, 6, 7, EOS, EOS, EOS],  # pad = EOS after the end
            [4, 5, 6, 7, 8, 9, 7],  # cut off, no EOS
            [EOS, 5, EOS, EOS, 7, 8, 9],  # EOS in the prompt; a response of EOS alone; rubbish after it
        ]
    )
    prompt = jnp.array([[False, True, True] + [False] * 4, [True] * 7, [True, True, True] + [False] * 4])
    segments = generated_segments(tokens, prompt, 3, (EOS, 99))
    assert segments.tolist() == [[0, 1, 1, 1, 1, 0, 0], [1] * 7, [1, 1, 1, 1, 0, 0, 0]]
    assert reward_position(segments).column[:, 0].tolist() == [4, 6, 3]


def test_to_tokens_and_back_keeps_fractions():
    """Integer tokens must not make the rewards integer: 0.7 stays 0.7."""
    position = reward_position(jnp.array([[1, 1, 2, 2, 2, 0], [0, 1, 1, 0, 0, 0]]), 2)
    rewards = jnp.array([[0.7, -1.6], [0.25, 9.0]])
    per_token = to_tokens(rewards, position, 6)
    assert per_token.dtype == jnp.float32
    np.testing.assert_allclose(per_token, [[0, 0.7, 0, 0, -1.6, 0], [0, 0, 0.25, 0, 0, 0]], rtol=1e-6)
    np.testing.assert_allclose(at_reward_position(per_token, position), [[0.7, -1.6], [0.25, 0.0]], rtol=1e-6)


def test_works_under_jit_and_vmap():
    segments = jnp.array([[[1, 1, 0]], [[0, 1, 1]]])
    found = jax.jit(jax.vmap(reward_position))(segments)
    assert found.column[:, 0, 0].tolist() == [1, 2]
