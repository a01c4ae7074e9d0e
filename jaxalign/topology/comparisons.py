"""Which pairs of responses are compared: independent ones (chain) or those of a tree of shared prefixes.

A response is a string of 64 random bits, read from the highest; two that share their first l bits lie in the same of
2^l clusters. Source: arXiv 2402.10184, section 4 and assumption B.19.
"""

import dataclasses
import math
import zlib
from typing import Protocol

import numpy as np
from jaxtyping import UInt64

from jaxalign.core.errors import UserError

BITS = 64
_LEAF_BITS = 4  # of a response, at least so many tell the leaves of a subtree apart

Responses = UInt64[np.ndarray, " n"]
Comparisons = UInt64[np.ndarray, "n 2"]


def generator(seed: int, name: str) -> np.random.Generator:
    """The random stream `name` of a seed."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def uniform(random: np.random.Generator, count: int) -> Responses:
    """Independent responses."""
    return random.integers(0, 2**BITS, size=count, dtype=np.uint64)


class Topology(Protocol):
    """A way to choose the pairs."""

    def __call__(self, random: np.random.Generator, count: int) -> Comparisons:
        """So many comparisons."""
        ...


@dataclasses.dataclass(frozen=True)
class Chain:
    """Both responses of every pair are independent and uniform."""

    def __call__(self, random: np.random.Generator, count: int) -> Comparisons:
        """`count` comparisons."""
        _check_count(count)
        return uniform(random, 2 * count).reshape(count, 2)

    def __str__(self):
        return "chain"


@dataclasses.dataclass(frozen=True)
class Tree:
    """B uniform roots, B leaves near each, and pairs that are uniform over the B^2 leaves.

    Leaves of a subtree share the first ceil((1 + gamma) log2 B) bits, so that their d_IB is at most F(B^(1 + gamma)).
    Only leaves that are compared are drawn.

    Attributes:
        size: B as a function of the number n of comparisons: "n/2", "n/(3 log n)" (the proof's) or "sqrt n".
        gamma: how much closer leaves of a subtree are than subtrees are to each other; above 0.

    Raises:
        UserError: an unknown size, or gamma out of range.
    """

    size: str = "n/2"
    gamma: float = 2.0

    def __post_init__(self):
        if self.size not in SIZES:
            raise UserError(f"There is no number of subtrees {self.size!r}; choose from {', '.join(map(repr, SIZES))}.")
        if not 0 < self.gamma < math.inf:
            raise UserError(f"gamma is {self.gamma:g}; subtrees need a gamma above 0.")

    def subtrees(self, count: int) -> int:
        """B for so many comparisons, at least 2."""
        return max(2, int(SIZES[self.size](count)))

    def shared_bits(self, count: int) -> int:
        """What the leaves of a subtree share.

        Raises:
            UserError: it leaves too few bits to tell leaves apart.
        """
        shared = math.ceil((1 + self.gamma) * math.log2(self.subtrees(count)))
        if shared > BITS - _LEAF_BITS:
            largest = (BITS - _LEAF_BITS) / math.log2(self.subtrees(count)) - 1
            raise UserError(
                f"{count} comparisons with gamma = {self.gamma:g} and B = {self.size} need {shared} shared bits of "
                f"{BITS}; choose gamma at most {largest:.2f}, or fewer comparisons."
            )
        return shared

    def __call__(self, random: np.random.Generator, count: int) -> Comparisons:
        """`count` comparisons."""
        _check_count(count)
        subtrees, below = self.subtrees(count), np.uint64(BITS - self.shared_bits(count))
        roots = uniform(random, subtrees) >> below << below
        subtree, leaf = random.integers(subtrees, size=(2, 2 * count))
        _, which = np.unique(subtree * subtrees + leaf, return_inverse=True)
        bits = random.integers(0, 1 << int(below), size=which.max() + 1, dtype=np.uint64)
        return (roots[subtree] | bits[which]).reshape(count, 2)

    def __str__(self):
        return f"tree, B = {self.size}, gamma = {self.gamma:g}"


SIZES = {
    "n/2": lambda n: n / 2,
    "n/(3 log n)": lambda n: n / (3 * math.log(n)),
    "sqrt n": math.sqrt,
}
"""Numbers of subtrees."""


def _check_count(count: int) -> None:
    if count < 2:
        raise UserError(f"{count} comparisons make no topology; choose at least 2.")
