"""Random streams by name, so that a new consumer of randomness does not shift the others."""

import zlib

import jax

from jaxalign.core.types import PRNGKey


def stream(key: PRNGKey, name: str) -> PRNGKey:
    """The stream `name` of `key`: the key folded with a stable hash of the name."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))
