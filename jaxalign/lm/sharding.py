"""Where parameters, optimiser states and batches live on a mesh of devices: one table for all of them.

The mesh is that of `dist`. `data` copies the parameters, `fsdp` splits them along the width of the model and gathers
them where they are used (Rajbhandari et al. 2020, https://arxiv.org/abs/1910.02054), `tensor` splits heads, MLP and
vocabulary (Shoeybi et al. 2019, https://arxiv.org/abs/1909.08053). Rows of a batch are dealt out over `data` and
`fsdp`. The program is the one for a single device; XLA puts in the communication.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxalign.core.errors import UserError

ROWS = PartitionSpec(("data", "fsdp"))

_IN, _OUT = ("fsdp", "tensor"), ("tensor", "fsdp")
TABLE: Mapping[str, tuple[str | None, ...]] = {
    "embed": ("tensor", "fsdp"),
    "unembed": ("fsdp", "tensor"),
    **dict.fromkeys(("q", "k", "v", "gate", "up"), _IN),
    **dict.fromkeys(("o", "down"), _OUT),
    **dict.fromkeys(("q_bias", "k_bias", "v_bias"), ("tensor",)),
    "o_bias": (None,),
    **dict.fromkeys(("attention_norm", "mlp_norm", "post_attention_norm", "post_mlp_norm", "final_norm"), (None,)),
    **dict.fromkeys(("q_norm", "k_norm"), (None,)),
    "head": (None,),
}
"""Mesh axes per axis of a parameter, by its name, for one layer; stacked layers have one more axis in front."""


def spec(path: tuple[Any, ...], shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """The place of one leaf of parameters, adapters or optimiser state, by the names on the way to it.

    An axis that the mesh cannot split evenly stays whole.

    Raises:
        UserError: a leaf with axes that the table does not know.
    """
    names = [str(getattr(key, "key", getattr(key, "name", ""))) for key in path]
    known = [name for name in names if name in TABLE]
    if not shape:
        return PartitionSpec()
    if not known:
        raise UserError(f"sharding.TABLE has no row for the parameter {jax.tree_util.keystr(path)}; add one.")
    axes = TABLE[known[-1]]
    if names[-1] == "a":
        axes = (axes[0], None)
    elif names[-1] == "b":
        axes = (None, axes[1])
    axes = (None,) * (len(shape) - len(axes)) + axes
    return PartitionSpec(*(a if a is not None and n % mesh.shape[a] == 0 else None for a, n in zip(axes, shape)))


def shardings(tree: Any, mesh: Mesh) -> Any:
    """The places of all leaves of parameters or of a training state; arrays or shapes."""
    return jax.tree_util.tree_map_with_path(lambda path, x: NamedSharding(mesh, spec(path, x.shape, mesh)), tree)


def rows(mesh: Mesh) -> NamedSharding:
    """The place of a batch."""
    return NamedSharding(mesh, ROWS)


def check_rows(num_rows: int, mesh: Mesh) -> None:
    """Raises UserError unless a batch can be dealt out evenly."""
    shares = mesh.shape["data"] * mesh.shape["fsdp"]
    if num_rows % shares:
        raise UserError(f"A batch of {num_rows} rows cannot be dealt out over {shares} devices; choose a multiple.")


def like(tree: Any, mesh: Mesh) -> Any:
    """Shapes with places, for restoring a checkpoint; `tree` holds arrays or shapes."""
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree, shardings(tree, mesh)
    )


def jit_step(
    step: Callable[..., Any], state: Any, mesh: Mesh, frozen: Any = (), compiler_options: dict[str, Any] | None = None
) -> Callable[..., Any]:
    """A training step compiled for the mesh; the old state's memory is given to the new one.

    Args:
        step: of a `Trainer`.
        state: arrays or shapes.
        mesh: devices.
        frozen: arrays or shapes.
        compiler_options: XLA's, for this program.
    """
    where = shardings(state, mesh)
    places = (where, rows(mesh), shardings(frozen, mesh))
    compiled = jax.jit(
        step, in_shardings=places, out_shardings=(where, None), donate_argnums=0, compiler_options=compiler_options
    )

    def run(state, batch, frozen=()):
        check_rows(len(jax.tree.leaves(batch)[0]), mesh)
        return compiled(state, batch, frozen)

    return run


def bytes_per_device(tree: Any, mesh: Mesh) -> int:
    """Memory of the leaves on one device, bytes; `tree` may hold shapes of a model too large for this machine."""

    def size(x, place: NamedSharding) -> int:
        return int(np.prod(place.shard_shape(x.shape), dtype=np.int64)) * x.dtype.itemsize

    return sum(jax.tree.leaves(jax.tree.map(size, tree, shardings(tree, mesh))))
