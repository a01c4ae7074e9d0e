"""What is written and scored: shapes, the place of a reward, and rewards of token models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_lm

from jaxalign import rlhf
from jaxalign.core.errors import UserError
from jaxalign.lm.sampling import Sampling
from jaxalign.rewards import score_examples, value_network
from jaxalign.rlhf.rollout import Completions, score_tokens

EOS, N = 1, 5


@pytest.fixture(scope="module")
def written(tiny):
    """Two responses each to three prompts of different lengths; some end, some are cut off."""
    prompts = rlhf.pad_prompts([[2], [3, 4, 5], [6, 7]])
    write = tiny_lm.jit(rlhf.sampler(tiny.network, tiny.config, Sampling(N, eos_id=EOS), samples=4))
    return prompts, write(tiny.params, prompts.tokens, prompts.mask, jax.random.key(3))


def test_responses_stand_behind_their_prompts(written):
    prompts, completions = written
    assert completions.prompt_length == 3, "static, also out of jit"
    assert len(jax.tree.leaves(completions)) == 4
    np.testing.assert_array_equal(completions.tokens[:, :3], np.repeat(prompts.tokens, 4, axis=0))
    np.testing.assert_array_equal(completions.segment_ids[:, :3], np.repeat(prompts.mask, 4, axis=0))
    np.testing.assert_array_equal(completions.segment_ids[:, 3:], completions.response_mask)
    for row, mask in zip(np.asarray(completions.response), np.asarray(completions.response_mask), strict=True):
        ends = [*np.flatnonzero(row == EOS), N - 1][0]
        np.testing.assert_array_equal(mask, np.arange(N) <= ends)
    assert 0 < rlhf.ended(completions, (EOS,)).sum() < 12, "both kinds"
    first = rlhf.to_examples(completions)[4]
    assert first.tokens[:3].tolist() == [3, 4, 5]
    assert len(first.tokens) == 3 + completions.response_mask[4].sum() == 3 + first.learn.sum()


def test_a_reward_of_the_whole_lands_on_the_last_token(written):
    """On EOS, not behind it; on the last token of what was cut off; a float among integer tokens."""
    _, completions = written
    scores = jnp.linspace(-1.6, 0.7, 12)
    rewards = np.asarray(rlhf.at_the_end(lambda c: scores)(completions))
    assert rewards.dtype == np.float32
    for row, mask, tokens, score in zip(
        rewards, *map(np.asarray, (completions.response_mask, completions.response, scores)), strict=True
    ):
        last = mask.sum() - 1
        assert tokens[last] == EOS or last == N - 1
        np.testing.assert_allclose(row, np.where(np.arange(N) == last, score, 0))


def test_padding_that_looks_like_eos_changes_nothing():
    mask = jnp.array([[1, 1, 0, 0], [1, 1, 1, 1]], bool)
    tokens = jnp.array([[5, EOS, EOS, EOS], [5, 5, 5, 5]])
    segments = jnp.concatenate([jnp.ones((2, 2), int), mask], axis=1)
    completions = Completions(jnp.concatenate([tokens[:, :2], tokens], axis=1), segments, 2, mask, jnp.zeros((2, 4)))
    rewards = rlhf.at_the_end(lambda c: jnp.array([0.7, -1.6]))(completions)
    np.testing.assert_allclose(rewards, [[0, 0.7, 0, 0], [0, 0, 0, -1.6]], rtol=1e-6)
    np.testing.assert_array_equal(rlhf.ended(completions, (EOS,)), [True, False])
    np.testing.assert_array_equal(rlhf.refuses(completions, [(5, EOS, EOS), (5, 5)]), [False, True])
    np.testing.assert_array_equal(rlhf.refuses(completions, [(5, EOS), (5,) * 9]), [True, False])
    measured = rlhf.measure(completions, (EOS,), [(5, 5)])
    np.testing.assert_allclose(measured, [3.0, 0.5, 0.5])


def test_scalar_reward_is_that_of_the_reward_model(tiny, written):
    _, completions = written
    values = value_network(tiny.network, tiny.config.hidden_size)
    params = tiny.critic | {"head": jnp.arange(8.0)}
    expected = score_examples(values, params, rlhf.to_examples(completions), 8, size=12)
    rewards = tiny_lm.jit(rlhf.scalar_reward(values, params))(completions)
    np.testing.assert_allclose(rewards.sum(axis=1), expected, rtol=1e-4, atol=1e-5)
    assert ((rewards != 0).sum(axis=1) == 1).all()


def test_token_rewards_become_floats_of_one_shape(written):
    _, completions = written
    assert score_tokens(lambda c: c.response, completions).dtype == jnp.float32
    with pytest.raises(UserError, match="at_the_end"):
        score_tokens(lambda c: jnp.zeros(12), completions)


def test_prompts_are_padded_on_the_left_and_bad_ones_named():
    prompts = rlhf.pad_prompts([[2, 3], [4]], 3, pad_id=9)
    np.testing.assert_array_equal(prompts.tokens, [[9, 2, 3], [9, 9, 4]])
    np.testing.assert_array_equal(prompts.mask, [[0, 1, 1], [0, 0, 1]])
    with pytest.raises(UserError, match="no prompt"):
        rlhf.pad_prompts([])
    with pytest.raises(UserError, match="Prompt 1 has 4 tokens"):
        rlhf.pad_prompts([[1], [1, 2, 3, 4]], 3)
    with pytest.raises(UserError, match="Prompt 0 has 0 tokens"):
        rlhf.pad_prompts([[], [1]])
