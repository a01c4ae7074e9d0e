"""Lossless compression by a language model: arithmetic coding with its next-token probabilities.

The coder works in integers only: probabilities are rounded to counts out of 2^24, and a message is a number that both
sides narrow down by the same exact steps, so that n tokens of probability p take sum -log2 p bits and at most 2 more.
What must agree besides is every rounded probability. Encoder and decoder therefore run the very same compiled program,
on the same shapes in the same order: one column of `rows` windows at a time, with a KV cache. All windows of a block
are evaluated together, which is what makes it fast; each begins afresh without context.

A code can be read where the program computes the same bits: the same machine, device kind and version of JAX.

Sources: Witten, Neal & Cleary 1987, "Arithmetic coding for data compression"; carries as in Martin 1979, "Range
encoding". That a model's cross-entropy is a code length: Delétang et al. 2024, https://arxiv.org/abs/2309.10668.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxalign.core.errors import UserError
from jaxalign.lm import packing
from jaxalign.lm.config import ModelConfig
from jaxalign.lm.loss import cross_entropy
from jaxalign.lm.transformer import Params, check_context, empty_cache, network, unstack, unstack_cache

COUNT_BITS = 24
"""Probabilities are counts out of 2^24: a token never has less than 2^-24."""
_TOTAL = 1 << COUNT_BITS
_SLACK = 64  # counts that rounding of float32 probabilities could give out twice
_WINDOW_BITS = 48  # of the number that is narrowed down; what is left of it is never below 2^40
_WINDOW, _NARROW = 1 << _WINDOW_BITS, 1 << (_WINDOW_BITS - 8)
_MAX_VOCABULARY = 1 << 18

BYTES, START = 256, 256
"""A byte-level model has the tokens 0 to 255 and START, which begins a window: a vocabulary of 257 or more."""
_HEADER = 8  # bytes that say how long the data are


class Encoder:
    """Narrows an interval of [0, 1) down, token by token, and writes its leading bytes."""

    def __init__(self):
        self._low, self._range, self._out = 0, _WINDOW, bytearray()

    def encode(self, low: int, high: int) -> None:
        """A token whose counts are [low, high) of 2^24."""
        begin = self._range * low >> COUNT_BITS
        self._low += begin
        self._range = (self._range * high >> COUNT_BITS) - begin
        if self._low >= _WINDOW:
            self._low -= _WINDOW
            self._carry()
        while self._range < _NARROW:
            self._shift()
            self._range <<= 8

    def finish(self) -> bytes:
        """The code: the shortest number in the interval. Nothing may be encoded after it."""
        zeros = self._range.bit_length() - 1
        self._low = (self._low + (1 << zeros) - 1) >> zeros << zeros
        if self._low >= _WINDOW:
            self._low -= _WINDOW
            self._carry()
        while self._low:
            self._shift()
        return bytes(self._out.rstrip(b"\0"))

    def _shift(self) -> None:
        self._out.append(self._low >> (_WINDOW_BITS - 8))
        self._low = (self._low << 8) & (_WINDOW - 1)

    def _carry(self) -> None:
        place = len(self._out) - 1
        while self._out[place] == 255:
            self._out[place] = 0
            place -= 1
        self._out[place] += 1


class Decoder:
    """Follows the encoder's interval; `code` is what `Encoder.finish` gave."""

    def __init__(self, code: bytes):
        self._bytes, self._range = iter(code), _WINDOW
        self._value = 0  # of the code, above the interval's lower end
        for _ in range(_WINDOW_BITS // 8):
            self._read()

    def decode(self, cumulative: Int[np.ndarray, " C"]) -> int:
        """The next token, of counts ``cumulative[token]`` to ``cumulative[token + 1]``."""
        count = (((self._value + 1) << COUNT_BITS) - 1) // self._range
        token = int(np.searchsorted(cumulative, count, side="right")) - 1
        begin = self._range * int(cumulative[token]) >> COUNT_BITS
        self._range = (self._range * int(cumulative[token + 1]) >> COUNT_BITS) - begin
        self._value -= begin
        while self._range < _NARROW:
            self._read()
            self._range <<= 8
        return token

    def _read(self) -> None:
        self._value = (self._value << 8) | next(self._bytes, 0)


def cumulative_counts(logits: Float[Array, "*batch V"]) -> Int[Array, "*batch V+1"]:
    """Softmax as counts: from 0 to 2^24, at least 1 for every token; what rounding leaves goes to the likeliest.

    With p the softmax, a token's count is ``1 + floor(p (2^24 - V - 64))``.
    """
    size = logits.shape[-1]
    chance = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
    counts = 1 + jnp.floor(chance * (_TOTAL - size - _SLACK)).astype(jnp.int32)
    rest = _TOTAL - counts.sum(axis=-1, keepdims=True)
    likeliest = jnp.arange(size) == jnp.argmax(logits, axis=-1, keepdims=True)
    total = jnp.cumsum(counts + jnp.where(likeliest, rest, 0), axis=-1)
    return jnp.concatenate([jnp.zeros_like(total[..., :1]), total], axis=-1)


class Compressor(NamedTuple):
    """A language model as a compressor of tokens.

    Attributes:
        config: of the model.
        params: its parameters.
        start: token that every window begins with; not coded.
        window: tokens that see each other; longer gives the model more context, and is slower.
        rows: windows evaluated together.
    """

    config: ModelConfig
    params: Params
    start: int = START
    window: int = 128
    rows: int = 32

    def encode(self, tokens: Int[np.ndarray, " n"]) -> bytes:
        """The code of the tokens.

        Raises:
            UserError: a token that the model does not have, or sizes that make no sense.
        """
        self._check()
        if tokens.size and not (tokens.min() >= 0 and tokens.max() < self.config.vocab_size):
            raise UserError(
                f"Tokens are between {tokens.min()} and {tokens.max()}, but the model has {self.config.vocab_size}; "
                f"give the tokens of its own tokenizer."
            )
        encoder = Encoder()

        def column(places: np.ndarray, cumulative: np.ndarray) -> np.ndarray:
            chosen = tokens[places]
            rows = np.arange(len(places))
            for low, high in zip(cumulative[rows, chosen].tolist(), cumulative[rows, chosen + 1].tolist()):
                encoder.encode(low, high)
            return chosen

        self._walk(len(tokens), column)
        return encoder.finish()

    def decode(self, code: bytes, length: int) -> Int[np.ndarray, " n"]:
        """The `length` tokens that were encoded.

        Raises:
            UserError: sizes that make no sense.
        """
        self._check()
        if length < 0:
            raise UserError(f"length is {length}; give the number of tokens that were encoded.")
        decoder, tokens = Decoder(code), np.zeros(length, np.int32)

        def column(places: np.ndarray, cumulative: np.ndarray) -> np.ndarray:
            tokens[places] = [decoder.decode(row) for row in cumulative]
            return tokens[places]

        self._walk(length, column)
        return tokens

    def compress(self, data: bytes) -> bytes:
        """Bytes to a code that knows its length; for a byte-level model (see `BYTES`).

        Raises:
            UserError: the vocabulary does not hold all bytes and the start.
        """
        self._check_bytes()
        code = self.encode(np.frombuffer(data, np.uint8).astype(np.int32))
        return len(data).to_bytes(_HEADER, "big") + code

    def decompress(self, code: bytes) -> bytes:
        """What was compressed.

        Raises:
            UserError: the code is too short to be one, or was made by another model.
        """
        self._check_bytes()
        if len(code) < _HEADER:
            raise UserError(f"A code of {len(code)} bytes is too short; it begins with {_HEADER} bytes of length.")
        length = int.from_bytes(code[:_HEADER], "big")
        least = -math.log2(1 - self.config.vocab_size / _TOTAL)  # bits of the likeliest token there can be
        if length * least > 8 * (len(code) + _HEADER):
            raise UserError(
                f"The code says that it holds {length} bytes, which {len(code)} cannot; it is damaged or was made by "
                "something else."
            )
        tokens = self.decode(code[_HEADER:], length)
        if tokens.size and tokens.max() >= BYTES:
            raise UserError("The code decodes to what is no byte; use the model and settings that it was made with.")
        return tokens.astype(np.uint8).tobytes()

    def cross_entropy(self, tokens: Int[np.ndarray, " n"]) -> float:
        """Bits per token under the model, in one pass over all windows: what the code should come to.

        Raises:
            UserError: there is no token, or the context is shorter than a window and its start.
        """
        batch = windows(tokens, self.window, self.start)
        total, count = _total_nats(self.config, self.params, batch)
        return float(total) / float(count) / float(np.log(2.0))

    def _walk(self, length: int, column: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
        """Asks `column` for the tokens at some places, given their cumulative counts, until all are known."""
        params = unstack(self.params)
        for begin in range(0, length, self.rows * self.window):
            cache = unstack_cache(empty_cache(self.config, self.rows, self.window))
            newest = np.full((self.rows, 1), self.start, np.int32)
            for t in range(min(self.window, length - begin)):
                places = begin + t + self.window * np.arange(self.rows)
                places = places[places < length]
                cumulative, cache = _column(self.config, params, newest, cache)
                newest = np.full((self.rows, 1), self.start, np.int32)  # a new one: JAX may still read the old
                newest[: len(places), 0] = column(places, np.asarray(cumulative)[: len(places)])

    def _check(self) -> None:
        if self.window < 1 or self.rows < 1:
            raise UserError(f"window is {self.window} and rows {self.rows}; choose at least 1 of each.")
        if self.config.vocab_size > _MAX_VOCABULARY or not 0 <= self.start < self.config.vocab_size:
            raise UserError(
                f"The vocabulary has {self.config.vocab_size} tokens and start is {self.start}; at most "
                f"{_MAX_VOCABULARY} can be coded, and start must be one of them."
            )
        check_context(self.config, self.window)

    def _check_bytes(self) -> None:
        if self.config.vocab_size <= BYTES or self.start < BYTES:
            raise UserError(
                f"The vocabulary has {self.config.vocab_size} tokens and start is {self.start}; bytes need a model of "
                f"at least {BYTES + 1} tokens and a start of {BYTES} or more."
            )


def windows(tokens: Int[np.ndarray, " n"], window: int, start: int = START) -> packing.Batch:
    """Consecutive windows, each behind a start token, as rows of `window` + 1 to train a model on.

    Raises:
        UserError: there is no token, or a window holds none.
    """
    if window < 1:
        raise UserError(f"window is {window}; choose at least 1.")
    parts = (tokens[i : i + window] for i in range(0, len(tokens), window))
    return packing.pad([packing.Example.of([start], part) for part in parts], window + 1)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=3)
def _column(config: ModelConfig, params: Any, newest: Int[Array, "R 1"], cache: Any) -> tuple[Array, Any]:
    """Cumulative counts of the next column, and the cache with the newest."""
    logits, cache = network(config).apply(params, newest, cache=cache)
    return cumulative_counts(logits[:, 0]), cache


@functools.partial(jax.jit, static_argnums=0)
def _total_nats(config: ModelConfig, params: Any, batch: packing.Batch) -> tuple[Array, Array]:
    total, count, _ = cross_entropy(network(config))(params, (), batch)
    return total, count
