"""Low-rank adapters: W + (alpha / r) A B with W frozen and only A [in, r], B [r, out] trained.

Hu et al. 2021, https://arxiv.org/abs/2106.09685. An adapted matrix is a `LowRank` in the place of the array; the
network multiplies by it as by any matrix, and W + A B is never formed until `merge`.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxalign.core.errors import UserError
from jaxalign.core.prng import stream
from jaxalign.core.types import PRNGKey

MATRICES = ("q", "k", "v", "o", "gate", "up", "down")


@dataclass(frozen=True)
class LoraConfig:
    """Which matrices get adapters, and how large.

    Attributes:
        rank: r.
        alpha: the product is multiplied by ``alpha / rank``.
        matrices: names of those of `MATRICES` to adapt, in every layer.
    """

    rank: int = 8
    alpha: float = 16.0
    matrices: tuple[str, ...] = MATRICES

    def __post_init__(self):
        if self.rank < 1:
            raise UserError(f"The rank of the adapters is {self.rank}; choose at least 1.")
        unknown = [name for name in self.matrices if name not in MATRICES]
        if unknown or not self.matrices:
            raise UserError(
                f"Adapters on {unknown or 'no matrix'} are not possible; choose from {', '.join(MATRICES)}."
            )


@functools.partial(jax.tree_util.register_dataclass, data_fields=("base", "a", "b"), meta_fields=("scale",))
@dataclass(frozen=True)
class LowRank:
    """The matrix ``base + scale a b``, kept in its factors; leading axes stack layers.

    It has what the network asks of a matrix: ``x @ m``, ``m.astype``, ``m[layer]``, ``m.shape``.
    """

    base: Array
    a: Array
    b: Array
    scale: float

    @property
    def shape(self) -> tuple[int, ...]:
        """That of `base`."""
        return self.base.shape

    def astype(self, dtype: Any) -> "LowRank":
        """The factors cast."""
        return LowRank(self.base.astype(dtype), self.a.astype(dtype), self.b.astype(dtype), self.scale)

    def __getitem__(self, layer: Any) -> "LowRank":
        return LowRank(self.base[layer], self.a[layer], self.b[layer], self.scale)

    def __rmatmul__(self, x: Array) -> Array:
        return x @ self.base + self.scale * ((x @ self.a) @ self.b)

    def merged(self) -> Array:
        """One array of the type of `base`, the sum formed in float32."""
        product = jnp.matmul(self.a.astype(jnp.float32), self.b.astype(jnp.float32), precision="highest")
        return (self.base.astype(jnp.float32) + self.scale * product).astype(self.base.dtype)


def init(config: LoraConfig, params: Any, key: PRNGKey) -> dict[str, Any]:
    """Fresh adapters of a network's parameters: A normal with variance 1 / in, B zero, so that nothing changes yet.

    Args:
        config: which and how large.
        params: of the network, ``layers`` stacked; arrays or shapes.
        key: of randomness.

    Returns:
        ``{"layers": {name: {"a": [L, in, r], "b": [L, r, out]}}}``, float32: what is trained and saved.
    """

    def pair(name: str) -> dict[str, Array]:
        layers, fan_in, fan_out = params["layers"][name].shape
        a = jax.random.normal(stream(key, name), (layers, fan_in, config.rank), jnp.float32) * fan_in**-0.5
        return {"a": a, "b": jnp.zeros((layers, config.rank, fan_out), jnp.float32)}

    return {"layers": {name: pair(name) for name in config.matrices}}


def attach(config: LoraConfig, params: Any, adapters: Any) -> Any:
    """The parameters with `LowRank` matrices where there are adapters; any network function takes them.

    Raises:
        UserError: adapters of a matrix that the network does not have.
    """
    missing = [name for name in adapters["layers"] if name not in params["layers"]]
    if missing:
        raise UserError(f"There are adapters for {', '.join(missing)}, which these parameters lack; another model's?")
    scale = config.alpha / config.rank
    adapted = {
        name: LowRank(params["layers"][name], pair["a"], pair["b"], scale) for name, pair in adapters["layers"].items()
    }
    return params | {"layers": params["layers"] | adapted}


def merge(config: LoraConfig, params: Any, adapters: Any) -> Any:
    """Ordinary parameters with the adapters added in, to be saved or served."""
    is_matrix = lambda x: isinstance(x, LowRank)
    attached = attach(config, params, adapters)
    return jax.tree.map(lambda x: x.merged() if is_matrix(x) else x, attached, is_leaf=is_matrix)


def adapted(config: LoraConfig, loss: Callable[..., Any]) -> Callable[..., Any]:
    """A loss of the adapters with the parameters frozen, from a loss of the parameters; for `training.make`."""

    def of_adapters(adapters, params, batch):
        return loss(attach(config, params, adapters), (), batch)

    return of_adapters
