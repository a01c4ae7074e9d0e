"""Sequences of many lengths in batches of one shape: packed several to a row, or padded one to a row."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Int

from jaxalign.core.errors import UserError


class Example(NamedTuple):
    """A tokenised sequence.

    Attributes:
        tokens: ids, int32.
        learn: which tokens are to be predicted; the first cannot be, whatever this says.
    """

    tokens: np.ndarray
    learn: np.ndarray

    @classmethod
    def of(cls, prompt: Iterable[int] | np.ndarray, response: Iterable[int] | np.ndarray) -> "Example":
        """Prompt, then response; only the response is to be learned."""
        prompt, response = list(prompt), list(response)
        if not response:
            raise UserError("A response is empty: there is nothing to learn from it; leave the example out.")
        learn = np.arange(len(prompt) + len(response)) >= len(prompt)
        return cls(np.asarray(prompt + response, np.int32), learn)


class Batch(NamedTuple):
    """Rows of tokens; the fields of `Network.apply` and which tokens count in the loss.

    Attributes:
        tokens: ids.
        segment_ids: which sequence of its row a token belongs to, from 1; 0 is padding.
        positions: place within the sequence, from 0.
        learn: the token is a target: it is predicted from those before it in its sequence.
    """

    tokens: Int[Array | np.ndarray, "*rows T"]
    segment_ids: Int[Array | np.ndarray, "*rows T"]
    positions: Int[Array | np.ndarray, "*rows T"]
    learn: Bool[Array | np.ndarray, "*rows T"]


def first_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Groups of items whose lengths sum to at most `capacity`: longest first, each into the first group with room.

    Never more than 11/9 of the fewest groups possible, plus 6/9 (Dósa 2007). O(n log n): a tree over the groups keeps
    the largest room below each node.

    Returns:
        Indices of the items by group.

    Raises:
        UserError: an item is longer than the capacity.
    """
    _check_lengths(lengths, capacity)
    leaves = 1 << max(len(lengths) - 1, 0).bit_length()
    room = [capacity] * (2 * leaves)
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        node = 1
        while node < leaves:
            node = 2 * node if room[2 * node] >= lengths[i] else 2 * node + 1
        group = node - leaves
        if group == len(groups):
            groups.append([])
        groups[group].append(i)
        room[node] -= lengths[i]
        while node > 1:
            node //= 2
            room[node] = max(room[2 * node], room[2 * node + 1])
    return groups


def fitting(examples: Sequence[Example], length: int) -> tuple[list[Example], int]:
    """The examples of at most `length` tokens, and how many are longer."""
    kept = [example for example in examples if len(example.tokens) <= length]
    return kept, len(examples) - len(kept)


def pack(examples: Sequence[Example], length: int) -> Batch:
    """Packs examples into as few rows of `length` tokens as first-fit decreasing finds.

    Raises:
        UserError: there is no example, or one is longer than a row.
    """
    return layout(examples, first_fit_decreasing([len(e.tokens) for e in examples], length), length)


def pad(examples: Sequence[Example], length: int | None = None, side: str = "right") -> Batch:
    """One example a row, padded on its right or left to `length` tokens (by default the longest example).

    Raises:
        UserError: there is no example, one is longer than a row, or the side is unknown.
    """
    if side not in ("left", "right"):
        raise UserError(f"The padding side is {side!r}; choose left or right.")
    length = max((len(e.tokens) for e in examples), default=0) if length is None else length
    _check_lengths([len(e.tokens) for e in examples], length)
    batch = layout(examples, [[i] for i in range(len(examples))], length)
    if side == "right":
        return batch
    shift = [int(np.sum(row == 0)) for row in batch.segment_ids]
    return Batch(*(np.stack([np.roll(row, n) for row, n in zip(x, shift)]) for x in batch))


def layout(examples: Sequence[Example], groups: Sequence[Sequence[int]], length: int) -> Batch:
    """Rows of the groups of examples given by their indices.

    Raises:
        UserError: there is no group.
    """
    if not groups:
        raise UserError("There is no example to make a batch of; check the data and the length limit.")
    tokens, segments, positions = (np.zeros((len(groups), length), np.int32) for _ in range(3))
    learn = np.zeros((len(groups), length), bool)
    for row, group in enumerate(groups):
        start = 0
        for number, i in enumerate(group, 1):
            example = examples[i]
            here = slice(start, start := start + len(example.tokens))
            tokens[row, here], segments[row, here] = example.tokens, number
            positions[row, here] = np.arange(len(example.tokens))
            learn[row, here] = example.learn
            learn[row, here.start] = False
    return Batch(tokens, segments, positions, learn)


def _check_lengths(lengths: Sequence[int], capacity: int) -> None:
    for i, n in enumerate(lengths):
        if n > capacity:
            raise UserError(
                f"Example {i} has {n} tokens, more than the {capacity} of a row; use longer rows or leave it out."
            )
