"""Preferences among the nodes of trees of responses (`lm.grow`).

A node is a response (a leaf), or the beginning of one up to where it branches (an internal node). Two nodes of a tree
share a beginning, so an annotator judges what differs, and a response takes part in many pairs. Pairs are of three
kinds: two leaves ("complete"), a leaf and an internal node ("cross"), two internal nodes ("unfinished").

Source: Qiu et al. 2024, "Reward generalization in RLHF: a topological perspective", https://arxiv.org/abs/2402.10184.
The paper does not say whether a node may be paired with a beginning of its own; here it may not, nor with a node of the
same text.
"""

import itertools
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxalign.core.errors import UserError
from jaxalign.lm.tree import Forest

KINDS = ("complete", "cross", "unfinished")

MIXTURES: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    {"complete": (1.0, 0.0, 0.0), "half": (1 / 2, 1 / 4, 1 / 4), "thirds": (1 / 3, 1 / 3, 1 / 3)}
)
"""Shares of `KINDS`; the last two are the paper's "1/2 incomplete" and "2/3 incomplete"."""


class TreePairs(NamedTuple):
    """Pairs of nodes, on the host.

    Attributes:
        tree: row of the forest.
        leaf: of either node, a leaf at or below it.
        length: tokens of either node's text.
        common: tokens that both texts begin with.
        kind: index into `KINDS`.
    """

    tree: Int[np.ndarray, " P"]
    leaf: Int[np.ndarray, "P 2"]
    length: Int[np.ndarray, "P 2"]
    common: Int[np.ndarray, " P"]
    kind: Int[np.ndarray, " P"]


def tree_pairs(forest: Forest, number: int, random: np.random.Generator, mixture: str = "complete") -> TreePairs:
    """Distinct pairs, of every kind as many as the mixture says, drawn without replacement from all trees.

    Args:
        forest: of B trees with L leaves.
        number: P, of pairs.
        random: which ones, and in which order a pair's nodes stand.
        mixture: one of `MIXTURES`.

    Raises:
        UserError: there is no such mixture, or the trees have too few pairs of a kind.
    """
    if mixture not in MIXTURES:
        raise UserError(f"There is no mixture {mixture!r}; choose one of {', '.join(MIXTURES)}.")
    if number < 1:
        raise UserError(f"{number} pairs were asked for; choose at least 1.")
    first = round(number * MIXTURES[mixture][0])
    counts = first, (number - first + 1) // 2 if mixture != "complete" else 0
    wanted = (*counts, number - sum(counts))
    parts = []
    for kind, (count, found) in enumerate(zip(wanted, _all_pairs(forest), strict=True)):
        if len(found.tree) < count:
            raise UserError(
                f"{len(forest.leaf)} trees have {len(found.tree)} {KINDS[kind]} pairs, fewer than {count}; grow more "
                f"trees, or ask for fewer pairs."
            )
        chosen = random.permutation(len(found.tree))[:count]
        parts.append(TreePairs(*(x[chosen] for x in found))._replace(kind=np.full(count, kind)))
    pairs = TreePairs(*map(np.concatenate, zip(*parts, strict=True)))
    order, turned = random.permutation(number), random.random(number) < 0.5
    pairs = TreePairs(*(x[order] for x in pairs))
    swap = lambda x: np.where(turned[:, None], x[:, ::-1], x)
    return pairs._replace(leaf=swap(pairs.leaf), length=swap(pairs.length))


def count_pairs(forest: Forest) -> tuple[int, int, int]:
    """How many distinct pairs of each of `KINDS` all trees have."""
    complete, cross, unfinished = (len(found.tree) for found in _all_pairs(forest))
    return complete, cross, unfinished


def texts(forest: Forest, pairs: TreePairs, pad_id: int = 0) -> Int[np.ndarray, "P 2 N"]:
    """The responses, or beginnings of responses, of both nodes of every pair, padded on the right."""
    width = forest.logprobs.shape[-1]
    text = np.asarray(forest.tokens)[pairs.tree[:, None], pairs.leaf, -width:]
    return np.where(np.arange(width) < pairs.length[..., None], text, pad_id)


class _Nodes(NamedTuple):
    """All possible nodes of a kind in every tree: the path's bits, whether it is there, a leaf below, its length."""

    path: list[tuple[int, int]]  # depth and bits, the same in every tree
    there: Int[np.ndarray, "B n"]
    leaf: Int[np.ndarray, " n"]
    length: Int[np.ndarray, "B n"]


def _nodes(forest: Forest) -> tuple[_Nodes, _Nodes]:
    """Leaves, and internal nodes."""
    length, branched = np.asarray(forest.length), np.asarray(forest.branched)
    D, L = branched.shape[-1], length.shape[1]
    leaves = _Nodes([(D, i) for i in range(L)], np.asarray(forest.leaf), np.arange(L), length)
    path = [(d, bits) for d in range(D) for bits in range(2**d)]
    leaf = np.array([bits << (D - d) for d, bits in path])
    ends = branched[:, leaf, [d for d, _ in path]]
    return leaves, _Nodes(path, ends < length[:, leaf], leaf, ends)


def _all_pairs(forest: Forest) -> list[TreePairs]:
    """Of every kind, with `common`; pairs whose texts are equal are left out."""
    text = np.where(np.asarray(forest.mask), np.asarray(forest.tokens), -1)[..., -forest.logprobs.shape[-1] :]
    return [_distinct(candidates, text) for candidates in _candidates(forest)]


def _candidates(forest: Forest) -> list[list[TreePairs]]:
    """For every kind, the pairs of each two places in a tree, in all trees in which both are."""
    leaves, inner = _nodes(forest)
    same = lambda nodes: list(itertools.combinations(range(len(nodes.path)), 2))
    across = list(itertools.product(range(len(leaves.path)), range(len(inner.path))))
    kinds = (leaves, leaves, same(leaves)), (leaves, inner, across), (inner, inner, same(inner))
    return [[_at(a, i, b, j) for i, j in places if not _in_line(a.path[i], b.path[j])] for a, b, places in kinds]


def _in_line(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether one lies on the path to the other."""
    (deep, bits), (high, beginning) = max(a, b), min(a, b)
    return bits >> (deep - high) == beginning


def _at(a: _Nodes, i: int, b: _Nodes, j: int) -> TreePairs:
    tree = np.flatnonzero(a.there[:, i] & b.there[:, j])
    leaf = np.tile([a.leaf[i], b.leaf[j]], (len(tree), 1))
    return TreePairs(tree, leaf, np.stack([a.length[tree, i], b.length[tree, j]], 1), *np.zeros((2, len(tree)), int))


def _distinct(candidates: list[TreePairs], text: Int[np.ndarray, "B L N"]) -> TreePairs:
    """All of them in one, with `common`, without those whose texts are equal."""
    if not candidates:
        return TreePairs(*(np.zeros((0, *shape), int) for shape in ((), (2,), (2,), (), ())))
    pairs = TreePairs(*map(np.concatenate, zip(*candidates, strict=True)))
    both = text[pairs.tree[:, None], pairs.leaf]
    shorter = pairs.length.min(1)
    equal = (both[:, 0] == both[:, 1]) & (np.arange(text.shape[-1]) < shorter[:, None])
    common = np.cumprod(equal, axis=1).sum(1)
    keep = common < pairs.length.max(1)
    return TreePairs(*(x[keep] for x in pairs._replace(common=common)))
