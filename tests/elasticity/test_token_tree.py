"""Token trees against counting prefixes by hand, and code lengths that can be worked out on paper."""

import itertools
import math

import numpy as np
import pytest

from jaxalign.core.errors import UserError
from jaxalign.elasticity.token_tree import (
    END,
    TokenTree,
    bits,
    compression_rate,
    normalised_compression_rate,
    piece_tree,
    pieces,
    token_tree,
    union,
)


def random_responses(seed, count=200, longest=6):
    random = np.random.default_rng(seed)
    return [tuple(random.integers(0, 2, random.integers(0, longest + 1)).tolist()) for _ in range(count)]


def test_node_weights_are_shares_of_responses_with_the_prefix():
    responses = random_responses(0)
    tree = token_tree(responses)
    for length in range(4):
        for prefix in itertools.product((0, 1), repeat=length):
            share = np.mean([response[:length] == prefix for response in responses])
            assert tree.weight(prefix) == pytest.approx(share, abs=1e-12)
            whole = np.mean([response == prefix for response in responses])
            assert tree.weight((*prefix, END)) == pytest.approx(whole, abs=1e-12)
            assert tree.weight(prefix) == pytest.approx(sum(tree.weight((*prefix, x)) for x in (0, 1, END)), abs=1e-12)


@pytest.mark.parametrize("depth", [1, 2, 4, 9])
def test_pruned_leaves_are_prefixes_counted(depth):
    responses = random_responses(1)
    pruned = token_tree(responses).prune(depth)
    cut = [(*response, END)[:depth] for response in responses]
    assert pruned.leaves.keys() == set(cut)
    for path, weight in pruned.leaves.items():
        assert weight == pytest.approx(cut.count(path) / len(cut), abs=1e-12)
    assert pruned.depth() == min(depth, 7)
    assert math.fsum(pruned.leaves.values()) == pytest.approx(1, abs=1e-12)


def test_union_is_the_tree_of_the_data_together():
    first, second = random_responses(2, 30), random_responses(3, 120)
    joined, expected = union([token_tree(first), token_tree(second)], [30, 120]), token_tree(first + second)
    assert joined.leaves.keys() == expected.leaves.keys()
    for path, weight in expected.leaves.items():
        assert joined.leaves[path] == pytest.approx(weight, abs=1e-12)


def test_pieces_put_together_are_the_response():
    for response in random_responses(4, 40):
        for depth in (1, 2, 3):
            cut = list(pieces(response, depth))
            assert tuple(itertools.chain(*cut)) == (*response, END)
            assert len(cut) == math.ceil((len(response) + 1) / depth)  # the paper's ceil(|x| / d), END being a token
            assert all(len(piece) == depth for piece in cut[:-1])
    tree = piece_tree([(0, 1, 1), (0,)], 2)  # 01, 1E and 0E
    assert tree.leaves == {(0, 1): pytest.approx(1 / 3), (0, END): pytest.approx(1 / 3), (1, END): pytest.approx(1 / 3)}


def test_bits_of_bytes():
    assert bits(b"\x80\x05") == [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1]


def test_entropy_and_rate_on_paper():
    """Leaves of 1/2, 1/4, 1/8, 1/8 have 7/4 bits; coded for the uniform model 2 bits, and the uniform for them 9/4."""
    paths = [(0, 0, END), (0, 1, END), (1, 0, END), (1, 1, END)]
    skewed, uniform = (TokenTree(dict(zip(paths, w))) for w in ((0.5, 0.25, 0.125, 0.125), (0.25,) * 4))
    assert skewed.entropy() == 1.75
    assert compression_rate(skewed, skewed, 3) == pytest.approx(1.75 / 3)
    assert compression_rate(skewed, uniform, 3) == pytest.approx(2 / 3)
    assert compression_rate(uniform, skewed, 3) == pytest.approx(2.25 / 3)
    assert normalised_compression_rate(skewed, uniform, 3) == pytest.approx(0.0)
    assert compression_rate(skewed, uniform, 1) == pytest.approx(1.0)  # one level: 3/4, 1/4 coded for halves


def test_no_model_beats_the_one_of_the_data():
    data, other = token_tree(random_responses(5)), token_tree(random_responses(6, 2000))
    for depth in (1, 2, 3):
        own = compression_rate(data, data, depth)
        assert own == pytest.approx(data.prune(depth).entropy() / depth)
        assert compression_rate(data, union([data, other], [1, 3]), depth) > own


def test_what_is_refused():
    tree = token_tree([(0, 1)])
    with pytest.raises(UserError, match="no response"):
        token_tree([])
    with pytest.raises(UserError, match="negative token"):
        token_tree([(0, -1, 1)])
    with pytest.raises(UserError, match="negative token"):
        piece_tree([(-2, 0)], 1)
    with pytest.raises(UserError, match="depth is 0"):
        tree.prune(0)
    with pytest.raises(UserError, match="2 sizes are given for 1"):
        union([tree], [1, 2])
    with pytest.raises(UserError, match="more than none"):
        union([tree, tree], [0, 0])
    with pytest.raises(UserError, match="infinitely long"):
        compression_rate(token_tree([(1,)]), tree, 2)
