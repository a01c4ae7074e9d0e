"""Texts of clauses whose true reward is known: what a reader likes depends on three topics, and on which words meet."""

import functools
import itertools

import numpy as np

PAD, EOS, STOP, SEPARATOR, CORRECT = range(5)
TOPICS, WORDS = range(5, 13), range(13, 29)
VOCABULARY = 29
LENGTH = 32  # of a response, at most
FEWEST, MOST = 3, 5  # clauses
HELD_OUT = 16  # prompts

_random = np.random.default_rng(2402_10184)
_NEXT = np.exp(_random.normal(size=(len(WORDS), len(WORDS))))
_NEXT /= _NEXT.sum(1, keepdims=True)
_TASTE = _random.normal(size=(len(TOPICS), len(WORDS)))
_MEETING = _random.normal(size=(len(WORDS), len(WORDS)))
_PROMPTS = _random.permutation(list(itertools.combinations(TOPICS, 3)))


def prompts(held_out: bool) -> np.ndarray:
    """All prompts for training, or all that are kept for tests: three topics and the separator, ``[n, 4]``."""
    chosen = _PROMPTS[:HELD_OUT] if held_out else _PROMPTS[HELD_OUT:]
    return np.column_stack([chosen, np.full(len(chosen), SEPARATOR)]).astype(np.int32)


def demonstrations(random: np.random.Generator, number: int) -> np.ndarray:
    """Texts, ``[n, LENGTH]``: a Markov chain over words, two or more to a clause, three to five clauses."""
    text = np.full((number, LENGTH), PAD, np.int32)
    word, words, clauses = np.full(number, -1), np.zeros(number, int), np.zeros(number, int)
    ended, after_stop = np.zeros(number, bool), np.zeros(number, bool)
    for place in range(LENGTH):
        chance = _NEXT[word] * (word >= 0)[:, None] + (word < 0)[:, None] / len(WORDS)
        new = (chance.cumsum(1) < random.random((number, 1))).sum(1).clip(0, len(WORDS) - 1)
        stops = (words >= 2) & (random.random(number) < 0.4)
        ends = after_stop & (clauses >= FEWEST) & ((random.random(number) < 0.5) | (clauses == MOST))
        ends |= place == LENGTH - 1
        token = np.where(ends, EOS, np.where(stops, STOP, WORDS[0] + new))
        text[:, place] = np.where(ended, PAD, token)
        stops &= ~ends
        word, words = np.where(stops, -1, new), np.where(stops, 0, words + 1)
        clauses, after_stop, ended = clauses + stops, stops, ended | ends
    return text


def features(prompts: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """What the true reward is linear in, ``[n, 8 * 16 + 16 * 16]``: shares of words by topic, of pairs of words."""
    is_word = texts >= WORDS[0]
    one_hot = (texts[:, :, None] == np.array(WORDS)).astype(np.float32)
    share = one_hot.sum(1) / np.maximum(is_word.sum(1), 1)[:, None]
    topic = (prompts[:, :3, None] == np.array(TOPICS)).sum(1) / np.sqrt(3)
    meets = np.einsum("nta,ntb->nab", one_hot[:, :-1], one_hot[:, 1:])
    meets /= np.maximum(meets.sum((1, 2)), 1)[:, None, None]
    return np.concatenate(
        [(topic[:, :, None] * share[:, None]).reshape(len(texts), -1), meets.reshape(len(texts), -1)], 1
    )


@functools.cache
def weights() -> np.ndarray:
    """Of the features, scaled so that words and pairs of words each have variance 1/2 over demonstrations."""
    random = np.random.default_rng(1)
    asked = prompts(held_out=False)[random.integers(len(prompts(held_out=False)), size=4000)]
    seen, size = features(asked, demonstrations(random, 4000)), _TASTE.size
    parts = (
        _TASTE.ravel() / np.std(seen[:, :size] @ _TASTE.ravel()),
        _MEETING.ravel() / np.std(seen[:, size:] @ _MEETING.ravel()),
    )
    return np.concatenate(parts) / np.sqrt(2)


def gold(prompts: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """The true reward, ``[n]``, of variance 1 over demonstrations (its mean is not 0); of unfinished texts too."""
    return features(prompts, texts) @ weights()


def lengths(texts: np.ndarray) -> np.ndarray:
    """Tokens, that of the end included."""
    return (texts != PAD).sum(1)
