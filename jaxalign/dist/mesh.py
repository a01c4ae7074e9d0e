"""One program, any number of devices.

Environments are split over the mesh axis `ENVS`; parameters are replicated. Simulation runs inside `over_envs`, where
every device sees its own environments only. Everything else is ordinary code on global arrays, which XLA partitions:
means over samples become all-reduces, so the same seed gives the same learning curve on any number of devices up to
the order of floating-point sums.
"""

from collections.abc import Callable, Collection
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxalign.core.errors import UserError

ENVS = "envs"


def make_mesh(num_devices: int | None = None) -> Mesh:
    """A mesh over the first `num_devices` devices; over all if None.

    Raises:
        UserError: there are not that many devices.
    """
    available = jax.device_count()
    num_devices = available if num_devices is None else num_devices
    if not 1 <= num_devices <= available:
        raise UserError(f"{num_devices} devices were asked for, but JAX sees {available}; choose 1 to {available}.")
    return jax.make_mesh((num_devices,), (ENVS,), axis_types=(AxisType.Auto,), devices=jax.devices()[:num_devices])


def check_divisible(num_envs: int, mesh: Mesh) -> None:
    """Raises UserError unless the environments can be split evenly over the mesh."""
    if num_envs < 1 or num_envs % mesh.size:
        raise UserError(f"num_envs is {num_envs}, which cannot be split over {mesh.size} devices; choose a multiple.")


def over_envs(
    fun: Callable[..., Any], mesh: Mesh, in_axes: tuple[int | None, ...], out_axes: Any
) -> Callable[..., Any]:
    """`fun` run on every device with its share of the environments.

    Args:
        fun: function of arrays; must not communicate.
        mesh: devices.
        in_axes: per argument, which axis counts environments; None for replicated arguments.
        out_axes: likewise for the outputs (a tree prefix).
    """

    def spec(axis: int | None) -> PartitionSpec:
        return PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, ENVS)

    def is_axis(x):
        return x is None or isinstance(x, int)

    out_specs = jax.tree.map(spec, out_axes, is_leaf=is_axis)
    return jax.shard_map(fun, mesh=mesh, in_specs=tuple(map(spec, in_axes)), out_specs=out_specs, check_vma=False)


def shardings(state: Any, mesh: Mesh, split: Collection[str], axis: int = 0) -> Any:
    """Where the leaves of a named-tuple state live: arrays in the fields `split` along an axis, all else everywhere.

    Args:
        state: arrays or their shapes.
        mesh: devices.
        split: names of the fields whose arrays count environments.
        axis: which of their axes does: 1 if the state is that of a sweep.
    """
    across, everywhere = NamedSharding(mesh, PartitionSpec(*[None] * axis, ENVS)), NamedSharding(mesh, PartitionSpec())

    def field(name: str, value: Any) -> Any:
        return jax.tree.map(lambda x: across if name in split and x.ndim > axis else everywhere, value)

    return type(state)(*(field(name, getattr(state, name)) for name in state._fields))
