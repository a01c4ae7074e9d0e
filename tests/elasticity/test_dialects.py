"""Dialects are the chains they claim to be; what is known of them in closed form holds on samples."""

import functools
import itertools

import jax
import numpy as np
import pytest
from scipy import stats
from tiny_lm import jit

from jaxalign.core.errors import UserError
from jaxalign.elasticity import dialects
from jaxalign.elasticity.dialects import BEGIN, FIRST_WORD, GIVEN, NAMES, PROMPTS, WORDS

COUNT, LENGTH = 3000, 20


@pytest.fixture(scope="module")
def world():
    return dialects.make()


@pytest.fixture(scope="module")
def draw(world):
    return jit(functools.partial(dialects.draw, world, count=COUNT, length=LENGTH))


@pytest.fixture(scope="module")
def likelihood(world):
    return jit(functools.partial(dialects.log_likelihood, world))


@pytest.fixture(scope="module")
def posterior(world):
    return jit(functools.partial(dialects.posterior, world))


@pytest.fixture(scope="module")
def safe(draw):
    return np.asarray(draw(jax.random.key(0), dialects.mixture({"safe": 1.0})))


def test_rows_are_zipf_in_an_order_of_their_own(world):
    zipf = stats.zipfian(1.3, WORDS)
    table = np.exp(world.log_transitions)
    expected = zipf.pmf(np.arange(1, WORDS + 1))
    np.testing.assert_allclose(np.sort(table, -1)[..., ::-1], np.broadcast_to(expected, table.shape), rtol=1e-5)
    orders = {tuple(row) for row in np.argsort(table, -1).reshape(-1, WORDS)}
    assert len(orders) == len(NAMES) * WORDS
    np.testing.assert_allclose(dialects.entropy(world), np.full(len(NAMES), zipf.entropy()), rtol=1e-5)
    assert not np.array_equal(dialects.make(2).log_transitions, world.log_transitions)


def test_texts_follow_the_transitions(world, safe):
    assert safe.dtype == np.int32
    assert (safe[:, 0] == BEGIN).all()
    assert set(safe[:, 1]) == set(range(FIRST_WORD, FIRST_WORD + PROMPTS))
    words = safe[:, GIVEN - 1 :] - FIRST_WORD
    counts = np.zeros((WORDS, WORDS))
    np.add.at(counts, (words[:, :-1].ravel(), words[:, 1:].ravel()), 1)
    expected = counts.sum(1, keepdims=True) * np.exp(world.log_transitions[0])
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert 1e-4 < stats.chi2(WORDS * (WORDS - 1)).sf(statistic) < 1 - 1e-4


def test_likelihood_word_by_word(world, likelihood, safe):
    texts = safe[:3].copy()
    texts[2, 7] = 0  # no word: neither the step to it nor the one from it counts
    found = np.asarray(likelihood(texts))
    table = np.asarray(world.log_transitions)
    for n, text in enumerate(texts):
        for d in range(len(NAMES)):
            steps = [(a - FIRST_WORD, b - FIRST_WORD) for a, b in itertools.pairwise(text[1:]) if a and b]
            np.testing.assert_allclose(found[n, d], sum(table[d][s] for s in steps), rtol=1e-5)


def test_own_texts_cost_the_entropy(world, likelihood, safe):
    per_token = -np.asarray(likelihood(safe))[:, 0] / (LENGTH - GIVEN)
    z = (per_token.mean() - float(dialects.entropy(world)[0])) / (per_token.std() / COUNT**0.5)
    assert abs(z) < 4


def test_the_classifier_is_bayes(posterior, draw, safe):
    """It is nearly certain of whole texts, and on short ones, where it is not, as often right as it says."""
    assert np.asarray(posterior(safe))[:, 0].mean() > 0.999
    everything = np.asarray(draw(jax.random.key(1), dialects.mixture(dict.fromkeys(NAMES, 1.0))))
    certain = np.asarray(posterior(everything))
    truth = certain.argmax(1)
    said = np.asarray(posterior(everything[:, : GIVEN + 2]))
    assert 0.3 < said.max(1).mean() < 0.9
    for low, high in ((0.05, 0.3), (0.3, 0.6), (0.6, 0.9)):
        inside = (said > low) & (said <= high)
        right = (truth[:, None] == np.arange(len(NAMES)))[inside]
        error = (right.mean() - said[inside].mean()) / (right.std() / right.size**0.5)
        assert abs(error) < 4
    np.testing.assert_allclose(certain.mean(0), np.full(4, 0.25), atol=4 * (3 / 16 / COUNT) ** 0.5)


def test_margin_is_the_log_odds(world, posterior, safe):
    texts = safe[:, : GIVEN + 2]
    chance = np.asarray(posterior(texts), float)[:, 0]
    odds = np.log(chance / (1 - chance)) + np.log(3.0)  # against the mean of three
    found = jit(functools.partial(dialects.margin, world))(texts)
    np.testing.assert_allclose(found, odds / 2, atol=1e-3)


def test_one_key_gives_the_same_prompts_to_all_mixtures(draw, safe):
    other = np.asarray(draw(jax.random.key(0), dialects.mixture({"novel": 2.0})))
    np.testing.assert_array_equal(other[:, :GIVEN], safe[:, :GIVEN])
    assert (other != safe).mean() > 0.5


def test_targets_and_bytes(safe):
    rows = jit(dialects.batch)(safe[:2])
    assert rows.learn[0].tolist() == [False] * GIVEN + [True] * (LENGTH - GIVEN)
    lines = dialects.rendered(safe[:5]).splitlines()
    assert [len(line) for line in lines] == [LENGTH - 1] * 5
    assert len(set(dialects.rendered(np.arange(dialects.VOCABULARY)[None]))) == WORDS + 2  # words, "_", newline


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: dialects.mixture({"polite": 1.0}), r"no dialect 'polite'; choose from safe, unsafe, other, novel"),
        (lambda: dialects.mixture({"safe": -1.0, "novel": 2.0}), "none may be negative"),
        (lambda: dialects.mixture({"safe": 0.0}), "one must be above 0"),
        (lambda: dialects.make(exponent=-1.0), r"exponent is -1\.0; choose 0"),
    ],
)
def test_mistakes_are_explained(call, sentence):
    with pytest.raises(UserError, match=sentence):
        call()
