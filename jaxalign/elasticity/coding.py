"""Huffman codes of pruned token trees, the ideal code length, and general-purpose compressors to compare with.

Source: Ji et al. 2024, "Language Models Resist Alignment", https://arxiv.org/abs/2406.06144, definition 3.3 and theorem
3.4. `arithmetic` has the code that a language model drives.
"""

import gzip
import heapq
import lzma
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from jaxalign.core.errors import UserError
from jaxalign.elasticity.token_tree import END, Path, TokenTree, bits, piece_tree, pieces

_ZSTD_LEVEL = 19


def huffman(weights: Mapping[Path, float]) -> dict[Path, str]:
    """An optimal prefix code: each symbol's code word of "0" and "1".

    With H the entropy in bits, H <= sum p |word| < H + 1. A single symbol has the empty word. Huffman 1952.

    Raises:
        UserError: there is no symbol, or a weight is not positive.
    """
    if not weights or not min(weights.values()) > 0:
        raise UserError(f"A code of {len(weights)} symbols was asked for; give at least one, all of positive weight.")
    heap: list[tuple[float, int, list[Path]]] = [(w, i, [symbol]) for i, (symbol, w) in enumerate(weights.items())]
    heapq.heapify(heap)
    lengths = dict.fromkeys(weights, 0)
    for number in range(len(heap), 2 * len(heap) - 1):
        (a, _, left), (b, _, right) = heapq.heappop(heap), heapq.heappop(heap)
        for symbol in left + right:
            lengths[symbol] += 1
        heapq.heappush(heap, (a + b, number, left + right))
    return _words(lengths)


def _words(lengths: Mapping[Path, int]) -> dict[Path, str]:
    """Words of given lengths in the canonical order: by length, then by symbol, counting up."""
    words, value, before = {}, 0, 0
    for symbol in sorted(lengths, key=lambda s: (lengths[s], s)):
        value <<= lengths[symbol] - before
        before = lengths[symbol]
        words[symbol] = f"{value:0{before}b}" if before else ""
        value += 1
    return words


class HuffmanCode(NamedTuple):
    """Responses as bits, `depth` tokens at a time.

    Attributes:
        depth: tokens of a piece.
        words: of each piece, as `huffman` makes them.
    """

    depth: int
    words: dict[Path, str]

    def encode(self, response: Sequence[int]) -> str:
        """The words of the response's pieces, END included.

        Raises:
            UserError: the tree that the code was made for lacks a piece.
        """
        cut = list(pieces(response, self.depth))
        if missing := next((piece for piece in cut if piece not in self.words), None):
            raise UserError(f"The code has no word for {missing}; make it from a tree that contains the response.")
        return "".join(self.words[piece] for piece in cut)

    def decode(self, text: str, count: int) -> list[tuple[int, ...]]:
        """The `count` responses that `text` is the joined code of, without END.

        Raises:
            UserError: the bits end too early, or some are left.
        """
        symbols = {word: piece for piece, word in self.words.items()}
        read, responses = iter(text), []
        for _ in range(count):
            tokens: list[int] = []
            while tokens[-1:] != [END]:
                tokens += _next_piece(symbols, read)
            responses.append(tuple(tokens[:-1]))
        if next(read, None) is not None:
            raise UserError(f"Bits are left after {count} responses; is that how many were encoded?")
        return responses


def _next_piece(symbols: Mapping[str, Path], read: Iterator[str]) -> Path:
    word = ""
    while word not in symbols:
        bit = next(read, None)
        if bit is None:
            raise UserError("The code ends in the middle of a response; are all its bits there?")
        word += bit
    return symbols[word]


def huffman_code(tree: TokenTree, depth: int) -> HuffmanCode:
    """The compression protocol (definition 3.3): prune to `depth`, then Huffman-code root-to-leaf paths.

    Give the tree of the pieces (`token_tree.piece_tree`) if responses are longer than `depth`.
    """
    return HuffmanCode(depth, huffman(tree.prune(depth).leaves))


def code_book_bits(code: HuffmanCode) -> int:
    """Bits to write the code itself down: of each leaf its path, and a byte for its word's length.

    That suffices for a canonical code of binary strings: a tree of depth d has 2^(d+1) - 1 paths, END's among them, so
    that d + 1 bits name one. A two-part code of a data set is this and the words.
    """
    return len(code.words) * (code.depth + 1 + 8)


class Depth(NamedTuple):
    """What the protocol takes at one depth, bits per byte of the text.

    Attributes:
        depth: bits of a piece.
        entropy: of the pruned tree.
        words: the code of the text.
        two_part: that and the code book.
    """

    depth: int
    entropy: float
    words: float
    two_part: float


def by_depth(texts: Sequence[bytes], depths: Sequence[int]) -> list[Depth]:
    """Huffman codes of the texts as binary strings, each made for the tree of their own pieces.

    A code made for the very text tells little by its words alone: a deep tree holds the text. Hence the two parts.

    Raises:
        UserError: there is no byte, or a depth below 1.
    """
    size = sum(map(len, texts))
    if not size:
        raise UserError("There is no byte to compress; give some data.")
    responses, rows = [bits(text) for text in texts], []
    for depth in depths:
        tree = piece_tree(responses, depth)
        code, count = huffman_code(tree, depth), sum(math.ceil((len(r) + 1) / depth) for r in responses)
        words = count * mean_code_length(code, tree)
        parts = count * tree.entropy(), words, words + code_book_bits(code)
        rows.append(Depth(depth, *(part / size for part in parts)))
    return rows


def mean_code_length(code: HuffmanCode, tree: TokenTree) -> float:
    """Bits of a piece of `tree`, on average: sum_leaves p |word|.

    Raises:
        UserError: the code lacks a leaf.
    """
    leaves = tree.prune(code.depth).leaves
    if missing := next((path for path in leaves if path not in code.words), None):
        raise UserError(f"The code has no word for {missing}; make it from a tree that contains the data.")
    return math.fsum(weight * len(code.words[path]) for path, weight in leaves.items())


def ideal_code_length(tree: TokenTree, depth: int, length: int) -> int:
    """Bits that a response of `length` tokens takes, END included (theorem 3.4).

        E[L] = ceil(length / d) ceil(-sum_leaves p log2 p),  over the leaves of the tree pruned to depth d

    Both roundings are the paper's: d tokens are coded at a time, each time in whole bits. A Huffman code takes at least
    the entropy per piece and less than one bit more, as this does, so that they differ by less than a bit per piece.

    Raises:
        UserError: a response without any token.
    """
    if length < 1:
        raise UserError(f"length is {length}; a response has at least 1 token, its END.")
    entropy = tree.prune(depth).entropy()
    return math.ceil(length / depth) * math.ceil(entropy - 1e-9)  # an entropy of 3 is 3, whatever its last digit


def reference_bits_per_byte(data: bytes, before: bytes = b"") -> dict[str, float]:
    """Bits per byte of general-purpose compressors, strongest usual setting: "gzip", "xz" and, if there, "zstd".

    Args:
        data: to compress; not empty.
        before: what the compressor may learn from, not counted: the size of both together less that of `before`. gzip
            looks back 32 KiB only.

    Returns:
        zstd only where pyarrow is installed (`pip install "jaxalign[lm]"`); Python itself has it from 3.14 on.

    Raises:
        UserError: nothing to compress.
    """
    if not data:
        raise UserError("There is no byte to compress; give some data.")
    compressors = {
        "gzip": lambda x: gzip.compress(x, 9, mtime=0),
        "xz": lambda x: lzma.compress(x, preset=9 | lzma.PRESET_EXTREME),
    }
    try:
        import pyarrow

        zstd = pyarrow.Codec("zstd", compression_level=_ZSTD_LEVEL)
        compressors["zstd"] = lambda x: zstd.compress(x, asbytes=True)
    except ImportError:
        pass

    def size(compress) -> int:
        return len(compress(before + data)) - (len(compress(before)) if before else 0)

    return {name: 8 * size(compress) / len(data) for name, compress in compressors.items()}
