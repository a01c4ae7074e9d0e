"""Elasticity of aligned models: the compression protocol, the exact theory, and the life cycle from scratch."""

from jaxalign.elasticity.arithmetic import Compressor
from jaxalign.elasticity.coding import HuffmanCode, huffman, huffman_code, ideal_code_length, reference_bits_per_byte
from jaxalign.elasticity.corpus import MarkovText, markov_text
from jaxalign.elasticity.token_tree import (
    TokenTree,
    compression_rate,
    normalised_compression_rate,
    piece_tree,
    token_tree,
    union,
)

__all__ = [
    "Compressor",
    "HuffmanCode",
    "MarkovText",
    "TokenTree",
    "compression_rate",
    "huffman",
    "huffman_code",
    "ideal_code_length",
    "markov_text",
    "normalised_compression_rate",
    "piece_tree",
    "reference_bits_per_byte",
    "token_tree",
    "union",
]
