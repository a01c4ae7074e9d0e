"""Token trees: what a data set of responses looks like to a model that sees only so many tokens ahead.

A response is a sequence of tokens (0 and 1 in the paper; any integers here) and ends with END, which counts as its last
token. A tree is kept as its leaves, each a path from the root with the weight of the responses there; the weight of an
inner node is the sum of the leaves below it. Pruning to depth d cuts every path after d tokens, so that a leaf is a
whole response of at most d tokens, or the first d of a longer one.

Source: Ji et al. 2024, "Language Models Resist Alignment", https://arxiv.org/abs/2406.06144, definitions 3.1 to 3.5.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxalign.core.errors import UserError

END = -1
"""The token that ends a response."""

Path = tuple[int, ...]


class TokenTree(NamedTuple):
    """A distribution over paths.

    Attributes:
        leaves: path to weight; positive, they sum to 1.
    """

    leaves: dict[Path, float]

    def weight(self, path: Sequence[int]) -> float:
        """Weight of a node: probability that a response begins with `path`."""
        path = tuple(path)
        return math.fsum(weight for leaf, weight in self.leaves.items() if leaf[: len(path)] == path)

    def depth(self) -> int:
        """Tokens of the longest path."""
        return max(map(len, self.leaves))

    def prune(self, depth: int) -> "TokenTree":
        """The top `depth` levels; the weight of what is cut off goes to the node where it is cut.

        Raises:
            UserError: no level is left.
        """
        _check_depth(depth)
        return TokenTree(_sum_by_path((path[:depth], weight) for path, weight in self.leaves.items()))

    def entropy(self) -> float:
        """Of a leaf, bits."""
        return -math.fsum(weight * math.log2(weight) for weight in self.leaves.values())


def token_tree(responses: Iterable[Sequence[int]]) -> TokenTree:
    """The tree of equally likely responses, given without END.

    Raises:
        UserError: there is no response, or a token is negative.
    """
    counts = Counter((*map(int, response), END) for response in responses)
    _check_tokens(counts)
    return _normalised(counts)


def union(trees: Sequence[TokenTree], sizes: Sequence[float | int]) -> TokenTree:
    """The tree of several data sets together: weights averaged by size.

    Raises:
        UserError: not one size for each tree, a negative size, or none that is positive.
    """
    if len(trees) != len(sizes) or not trees:
        raise UserError(f"{len(sizes)} sizes are given for {len(trees)} trees; give one for each of at least one tree.")
    if not (min(sizes) >= 0 and 0 < sum(sizes) < math.inf):
        raise UserError(f"sizes are {list(sizes)}; data sets have at least 0 responses, and together more than none.")
    total = math.fsum(sizes)
    weighted = ((path, w * n / total) for tree, n in zip(trees, sizes) if n for path, w in tree.leaves.items())
    return TokenTree(_sum_by_path(weighted))


def pieces(response: Sequence[int], depth: int) -> Iterator[Path]:
    """The response with its END cut into paths of `depth` tokens, the last of them shorter or as long.

    Raises:
        UserError: no token fits in a piece.
    """
    _check_depth(depth)
    tokens = (*map(int, response), END)
    return (tokens[i : i + depth] for i in range(0, len(tokens), depth))


def piece_tree(responses: Iterable[Sequence[int]], depth: int) -> TokenTree:
    """The tree of all pieces of all responses: what a code of whole responses, piece by piece, is made for.

    Raises:
        UserError: as in `token_tree` and `pieces`.
    """
    counts = Counter(piece for response in responses for piece in pieces(response, depth))
    _check_tokens(counts)
    return _normalised(counts)


def bits(data: bytes) -> list[int]:
    """The bytes as a binary string, highest bit first: the tokens of the paper."""
    return np.unpackbits(np.frombuffer(data, np.uint8)).tolist()


def compression_rate(tree: TokenTree, model: TokenTree, depth: int) -> float:
    """Bits per token that responses of `tree` take in a code made for `model`, both pruned to `depth`.

        gamma = -1/d sum_leaves p_tree log2 p_model,

    the cross-entropy of the pruned trees per token; lower is better compressed. Paper, definition 3.5.

    Raises:
        UserError: the model gives a response no code at all.
    """
    own, other = tree.prune(depth).leaves, model.prune(depth).leaves
    if missing := next((path for path in own if path not in other), None):
        raise UserError(
            f"The model's tree lacks the path {missing}, so that its code would be infinitely long; fit the model on a "
            f"union that contains the data."
        )
    return -math.fsum(weight * math.log2(other[path]) for path, weight in own.items()) / depth


def normalised_compression_rate(tree: TokenTree, model: TokenTree, depth: int) -> float:
    """The rate less that of a uniform code for the leaves of `tree`: gamma - log2(M) / d.

    Makes data sets of different spread comparable: 0 if the model is uniform over the M leaves of the pruned tree,
    negative if it knows more. Deviation: the paper subtracts log M, which is per piece, from a rate per token.

    Raises:
        UserError: as in `compression_rate`.
    """
    return compression_rate(tree, model, depth) - math.log2(len(tree.prune(depth).leaves)) / depth


def _sum_by_path(weighted: Iterable[tuple[Path, float]]) -> dict[Path, float]:
    parts: dict[Path, list[float]] = {}
    for path, weight in weighted:
        parts.setdefault(path, []).append(weight)
    return {path: math.fsum(weights) for path, weights in sorted(parts.items())}


def _normalised(counts: Counter[Path]) -> TokenTree:
    total = counts.total()
    return TokenTree({path: count / total for path, count in sorted(counts.items())})


def _check_depth(depth: int) -> None:
    if depth < 1:
        raise UserError(f"depth is {depth}; keep at least 1 level of a tree.")


def _check_tokens(counts: Counter[Path]) -> None:
    if not counts:
        raise UserError("There is no response to make a token tree of; check the data.")
    for path in counts:
        if any(token < 0 for token in path[:-1]) or path[-1] < END:
            raise UserError(f"The path {path} has a negative token; tokens are 0, 1, 2, ... ({END} marks the end).")
