"""Pairs of nodes, against an enumeration of trees that were written out by hand."""

import collections
import itertools

import numpy as np
import pytest

from jaxalign.core import UserError
from jaxalign.lm.tree import Forest
from jaxalign.rewards import KINDS, MIXTURES, count_pairs, texts, tree_pairs

N = 6
# Tree 0 branches three times: after "1 2", then after "3" and "4". Tree 1: its first child ends at once, so leaf 1 is
# a copy of leaf 0. Tree 2: both children of its root say the same.
LEAVES = [
    [(1, 2, 3, 5, 9), (1, 2, 3, 6, 9), (1, 2, 4, 7, 9), (1, 2, 4, 8, 8, 9)],
    [(1, 9), (1, 9), (1, 5, 6, 9), (1, 5, 7, 9)],
    [(2, 3, 9), (2, 3, 9), (2, 3, 9), (2, 3, 9)],
]
BRANCHED = [
    [(2, 3), (2, 3), (2, 3), (2, 3)],
    [(1, 2), (1, 2), (1, 2), (1, 2)],
    [(1, 3), (1, 3), (1, 3), (1, 3)],
]
LEAF = [[True] * 4, [True, False, True, True], [True, False, True, False]]
TEXTS = {  # leaves, then internal nodes
    0: (LEAVES[0], [(1, 2), (1, 2, 3), (1, 2, 4)]),
    1: ([LEAVES[1][0], LEAVES[1][2], LEAVES[1][3]], [(1,), (1, 5)]),
    2: ([LEAVES[2][0]], [(2,)]),
}


@pytest.fixture(scope="module")
def forest():
    tokens = np.array([[[7] + list(x) + [0] * (N - len(x)) for x in tree] for tree in LEAVES])  # a prompt of one token
    length = np.array([[len(x) for x in tree] for tree in LEAVES])
    mask = np.arange(N + 1) <= length[..., None]
    return Forest(
        tokens, mask, np.zeros((3, 4, N)), length, np.array(BRANCHED), np.array(LEAF), np.ones((3, 4), bool), np.ones(3)
    )


def prefix(a, b):
    return len(list(itertools.takewhile(lambda x: x[0] == x[1], zip(a, b))))


def beginning(a, b):
    return prefix(a, b) == min(len(a), len(b))


def expected(kind):
    """Unordered pairs of different texts, neither on the way to the other; leaves are never on the way."""
    found = set()
    for tree, (leaves, inner) in TEXTS.items():
        places = {
            "complete": itertools.combinations(leaves, 2),
            "cross": itertools.product(leaves, inner),
            "unfinished": itertools.combinations(inner, 2),
        }[kind]
        found |= {(tree, *sorted(p)) for p in places if p[0] != p[1] and (kind == "complete" or not beginning(*p))}
    return found


def said(forest, pairs):
    both = texts(forest, pairs)
    strip = lambda x: tuple(int(token) for token in x[x > 0])
    return [(int(tree), *sorted((strip(a), strip(b)))) for tree, (a, b) in zip(pairs.tree, both)]


def test_complete_pairs_are_all_of_them_once(forest):
    number = len(expected("complete"))
    assert count_pairs(forest) == tuple(len(expected(kind)) for kind in KINDS)
    assert number == 6 + 3
    pairs = tree_pairs(forest, number, np.random.default_rng(0))
    found = said(forest, pairs)
    assert len(set(found)) == number
    assert set(found) == expected("complete")
    assert [prefix(a, b) for _, a, b in found] == pairs.common.tolist()
    assert (pairs.kind == 0).all()


@pytest.mark.parametrize(("mixture", "number"), [("half", 4), ("thirds", 3), ("complete", 5)])
def test_mixtures_have_their_shares_and_only_true_pairs(forest, mixture, number):
    seen = collections.defaultdict(set)
    for seed in range(60):
        pairs = tree_pairs(forest, number, np.random.default_rng(seed), mixture)
        shares = np.bincount(pairs.kind, minlength=3) / number
        np.testing.assert_allclose(shares, MIXTURES[mixture], atol=0.5 / number + 1e-9)
        for kind, pair in zip(pairs.kind, said(forest, pairs)):
            seen[KINDS[kind]].add(pair)
    for kind, share in zip(KINDS, MIXTURES[mixture]):
        assert seen[kind] == (expected(kind) if share else set())


def test_either_node_may_come_first(forest):
    order = [tree_pairs(forest, 1, np.random.default_rng(s)).leaf[0] for s in range(100)]
    assert 30 < sum(a < b for a, b in order) < 70


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((10,), "9 complete pairs, fewer than 10"), ((0,), "0 pairs"), ((4, "quarter"), "choose one of complete, half")],
)
def test_what_cannot_be_had_is_refused(forest, arguments, message):
    number, *mixture = arguments
    with pytest.raises(UserError, match=message):
        tree_pairs(forest, number, np.random.default_rng(0), *mixture)
