"""A source of text whose entropy is known: sentences of words, each drawn by the word before it.

What compresses it can be compared with the truth. Spaces and line ends say where words end: a text is its words.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxalign.core.errors import UserError

_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"


class MarkovText(NamedTuple):
    """The source.

    Attributes:
        words: W of them, different, without spaces.
        chances: of the next word, given the word before.
        length: words of a sentence; the first is uniform.
    """

    words: tuple[str, ...]
    chances: Float[np.ndarray, "W W"]
    length: int

    def sentences(self, random: np.random.Generator, count: int) -> list[bytes]:
        """Draws sentences, words between spaces and a line end behind."""
        cumulative = np.cumsum(self.chances, axis=1)
        chosen = np.empty((count, self.length), int)
        chosen[:, 0] = random.integers(len(self.words), size=count)
        for t in range(1, self.length):
            draws = random.random((count, 1)) * cumulative[chosen[:, t - 1], -1:]
            chosen[:, t] = (cumulative[chosen[:, t - 1]] <= draws).sum(axis=1)
        return [(" ".join(self.words[i] for i in row) + "\n").encode() for row in chosen]

    def information(self, sentences: Sequence[bytes]) -> float:
        """-log2 of the sentences' probability: the bits that a code made for the source itself would take."""
        number = {word: i for i, word in enumerate(self.words)}
        total = 0.0
        for sentence in sentences:
            row = [number[word] for word in sentence.decode().split()]
            total += np.log2(len(self.words)) - np.log2(self.chances[row[:-1], row[1:]]).sum()
        return float(total)

    def entropy(self) -> float:
        """Bits of a sentence, on average: log2 W + sum_t sum_w P(word t is w) H(chances of w)."""
        rows = -np.sum(self.chances * np.log2(self.chances), axis=1)
        at, total = np.full(len(self.words), 1 / len(self.words)), np.log2(len(self.words))
        for _ in range(1, self.length):
            total += at @ rows
            at = at @ self.chances
        return float(total)


def markov_text(seed: int, words: int = 36, length: int = 12, exponent: float = 1.3) -> MarkovText:
    """A source of `words` made-up words; each row of its chances is Zipf's law in an order of its own.

    Raises:
        UserError: too few or too many words, a sentence without words, or an exponent that is not finite.
    """
    if not (2 <= words <= 1000 and length >= 1 and np.isfinite(exponent)):
        raise UserError(
            f"words is {words}, length {length}, exponent {exponent:g}; choose 2 to 1000, at least 1, and a number."
        )
    random = np.random.default_rng(seed)
    made: dict[str, None] = {}
    while len(made) < words:
        syllables = (
            random.choice(list(_CONSONANTS)) + random.choice(list(_VOWELS)) for _ in range(random.integers(1, 4))
        )
        made["".join(syllables)] = None
    zipf = np.arange(1, words + 1) ** -exponent
    chances = np.stack([random.permutation(zipf / zipf.sum()) for _ in range(words)])
    return MarkovText(tuple(made), chances, length)
