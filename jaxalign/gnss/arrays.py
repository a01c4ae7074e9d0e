"""One source for NumPy and JAX: formulas follow the array module of their data.

NumPy arrays are computed at once in float64, with nothing to compile: files, tables, a few thousand states. JAX arrays
are traced: jit, vmap, devices. Metres in an Earth-centred frame need float64, so JAX callers at that scale work inside
``jax.enable_x64(True)``.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def namespace(*arrays: Any) -> ModuleType:
    """``jax.numpy`` if any argument is a JAX array, else ``numpy``."""
    return jnp if any(isinstance(array, jax.Array) for array in arrays) else np


def repeat(xp: ModuleType, count: int, step: Callable[[Any], Any], value: Any) -> Any:
    """`step` applied `count` times to `value`: a compiled loop in JAX, a plain one in NumPy."""
    if xp is jnp:
        return jax.lax.fori_loop(0, count, lambda _, x: step(x), value)
    for _ in range(count):
        value = step(value)
    return value
