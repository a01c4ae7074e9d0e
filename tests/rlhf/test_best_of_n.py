"""Best of n against enumeration, and fine-tuning on what was chosen."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_lm

from jaxalign import rlhf
from jaxalign.core.errors import UserError
from jaxalign.lm.packing import Example
from jaxalign.lm.sampling import Sampling
from jaxalign.lm.training import TrainingConfig

VALUE = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], np.float32)


@pytest.fixture(scope="module")
def choose(table):
    reward = lambda c: jnp.asarray(VALUE)[c.response]
    return tiny_lm.jit(rlhf.best_of_n(table.network, table.config, Sampling(2), reward, 5))


def test_the_best_is_chosen(table, choose):
    prompts = rlhf.pad_prompts([[2], [3]] * 10)
    best = choose(table.params, prompts.tokens, prompts.mask, jax.random.key(0))
    rewards = VALUE[np.asarray(best.all.response)].sum(axis=1).reshape(20, 5)
    np.testing.assert_allclose(best.reward, rewards, rtol=1e-6)
    chosen = np.asarray(best.all.response).reshape(20, 5, 2)[np.arange(20), rewards.argmax(axis=1)]
    np.testing.assert_array_equal(best.completions.response, chosen)
    np.testing.assert_array_equal(best.completions.tokens[:, 0], prompts.tokens[:, 0])


def test_rejection_fine_tuning_raises_the_reward(table, choose):
    prompts = rlhf.pad_prompts([[2], [3], [4]] * 15)
    examples, rewards = rlhf.rejection_examples(choose, table.params, prompts, 20, jax.random.key(1))
    assert [e.tokens[0] for e in examples] == [2, 3, 4] * 15
    np.testing.assert_allclose([VALUE[e.tokens[1:]].sum() for e in examples], rewards, rtol=1e-6)
    config = rlhf.SFTConfig(TrainingConfig(learning_rate=0.1, total_steps=60), rows=9, length=9)
    seen = []
    tuned = rlhf.fine_tune(table.network, table.params, examples, config, observe=lambda _, i: seen.append(i.loss))
    after = choose(tuned.params, prompts.tokens[:20], prompts.mask[:20], jax.random.key(2)).reward
    before = choose(table.params, prompts.tokens[:20], prompts.mask[:20], jax.random.key(2)).reward
    assert after.mean() > before.mean() + 0.1
    assert seen[-1] < seen[0]


def test_expected_best_is_the_mean_over_all_subsets():
    random = np.random.default_rng(0)
    proxy, gold = random.normal(size=(2, 3, 6))
    for k in range(1, 7):
        subsets = [list(s) for s in itertools.combinations(range(6), k)]
        best = [[g[max(s, key=lambda i: p[i])] for s in subsets] for p, g in zip(proxy, gold, strict=True)]
        np.testing.assert_allclose(rlhf.expected_best(proxy, k, gold), np.mean(best, axis=1), rtol=1e-10)
    np.testing.assert_allclose(rlhf.expected_best(proxy, 6), proxy.max(axis=1))
    with pytest.raises(UserError, match="from 1 to 6"):
        rlhf.expected_best(proxy, 7)


def test_kl_bound_is_reached_without_ties():
    """Best of 4 of a uniform draw from many: the KL in closed form, by sums."""
    m, n = 100_000, 4
    p = np.diff((np.arange(m + 1) / m) ** n)
    np.testing.assert_allclose(np.sum(p * np.log(p * m)), rlhf.kl_bound(n), atol=1e-4)
    assert rlhf.kl_bound(1) == 0


def test_fine_tuning_learns_what_it_is_shown(table):
    """Cross-entropy goes to the entropy of the data: after 2 comes 5 in 3 of 4 cases, then the end."""
    examples = [Example.of([2], [5, 1])] * 3 + [Example.of([2], [6, 1])]
    config = rlhf.SFTConfig(TrainingConfig(learning_rate=0.2, total_steps=150), rows=2, length=6)
    state = rlhf.fine_tune(table.network, table.params, examples, config)
    after = jax.nn.softmax(state.params["unembed"])
    np.testing.assert_allclose(after[2, 5:7], [0.75, 0.25], atol=0.02)
    assert min(after[5, 1], after[6, 1]) > 0.97
