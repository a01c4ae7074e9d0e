"""Checkpoints of a whole training state. The only importer of orbax."""

import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from jaxalign.core.errors import UserError

logging.getLogger("absl").setLevel(logging.ERROR)  # orbax reports every save


class Checkpoints:
    """The checkpoints of a run, newest last; each is written whole or not at all.

    Args:
        directory: where they live.
        keep: how many to keep.
    """

    def __init__(self, directory: Path, keep: int = 2):
        self.directory = directory.absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def save(self, step: int, state: Any) -> None:
        """Writes `state` under the number `step` and returns when it is safely on disk."""
        self._manager.save(step, args=ocp.args.StandardSave(_without_keys(state)), force=True)
        self._manager.wait_until_finished()

    def latest(self) -> int | None:
        """Number of the newest checkpoint, None if there is none."""
        return self._manager.latest_step()

    def restore(self, like: Any, step: int | None = None) -> Any:
        """A checkpoint as a state shaped and placed like `like` (arrays or shape structs with shardings).

        Raises:
            UserError: there is no checkpoint, or it is damaged or of another configuration.
        """
        step = self.latest() if step is None else step
        if step is None:
            raise UserError(f"{self.directory} holds no checkpoint; start the run again with `jaxalign train`.")
        try:
            raw = self._manager.restore(step, args=ocp.args.StandardRestore(_abstract(like)))
        except Exception as error:  # orbax raises many kinds
            raise UserError(
                f"Checkpoint {self.directory / str(step)} cannot be read ({type(error).__name__}): it is damaged or of "
                f"another configuration; delete that folder to fall back on an older one, if there is one."
            ) from error
        return _with_keys(dict(raw), like)

    def close(self) -> None:
        """Releases the directory."""
        self._manager.close()


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _saved(x: Any) -> bool:
    return x.size > 0  # orbax refuses empty arrays, and there is nothing to save


def _without_keys(state: Any) -> Any:
    """The leaves by number (independent of Python class names), typed keys as their data."""
    leaves = jax.tree.leaves(state)
    return {f"{i:04d}": jax.random.key_data(x) if _is_key(x) else x for i, x in enumerate(leaves) if _saved(x)}


def _abstract(like: Any) -> Any:
    def shape(x):
        data = jax.eval_shape(jax.random.key_data, x) if _is_key(x) else x
        return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=getattr(x, "sharding", None))

    return {f"{i:04d}": shape(x) for i, x in enumerate(jax.tree.leaves(like)) if _saved(x)}


def _with_keys(raw: dict[str, Any], like: Any) -> Any:
    def leaf(i: int, x: Any):
        if not _saved(x):
            return jnp.zeros(x.shape, x.dtype, device=getattr(x, "sharding", None))
        return jax.random.wrap_key_data(raw[f"{i:04d}"]) if _is_key(x) else raw[f"{i:04d}"]

    leaves, tree = jax.tree.flatten(like)
    return jax.tree.unflatten(tree, [leaf(i, x) for i, x in enumerate(leaves)])
