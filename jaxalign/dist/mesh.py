"""One program, any number of devices.

A mesh has three axes. `data` copies parameters, `fsdp` splits large ones and gathers them where they are used, `tensor`
splits the products they take part in (`lm.sharding` has the table for language models). What is independent
(environments, receiver cells) is dealt out over all axes, and small parameters are replicated. Simulation runs inside
`over_envs`, where every device sees its own environments only. Everything else is ordinary code on global arrays, which
XLA partitions: means over samples become all-reduces, so the same seed gives the same learning curve on any number of
devices up to the order of floating-point sums.
"""

import dataclasses
import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import jax
import yaml
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxalign.core.errors import UserError

AXES = ("data", "fsdp", "tensor")
ENVS = AXES


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """A mesh as a file describes it (``tpu/mesh/*.yaml``).

    Attributes:
        data: devices that copy parameters; None: all that the other axes leave.
        fsdp: devices that split them and gather them where they are used.
        tensor: devices that split their products.
        slices: groups of devices (TPU slices, or hosts) that a slower network joins; `data` is split over them.
    """

    data: int | None = None
    fsdp: int = 1
    tensor: int = 1
    slices: int = 1

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if value is not None and value < 1:
                raise UserError(f"The mesh's {name} is {value}; choose 1 or more.")
        if self.data is not None and self.data % self.slices:
            raise UserError(f"data is {self.data}, which cannot be split over {self.slices} slices; choose a multiple.")

    @property
    def devices(self) -> int | None:
        """How many it needs; None: as many as there are."""
        return None if self.data is None else self.data * self.fsdp * self.tensor


def read_mesh(path: Path) -> MeshConfig:
    """Reads a mesh from a YAML file with any of the keys of `MeshConfig`.

    Raises:
        UserError: there is no such file, it is no YAML mapping, or has other keys or values.
    """
    try:
        found = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(f"There is no mesh file {path}; tpu/mesh/ has some.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read as YAML: {str(error).splitlines()[0]}.") from None
    names = [field.name for field in dataclasses.fields(MeshConfig)]
    if not isinstance(found, dict) or not {*found} <= {*names}:
        raise UserError(f"{path} must be a mapping with keys among {', '.join(names)}.")
    for name, value in found.items():
        if type(value) is not int:
            raise UserError(f"{path}: {name} is {value!r}; give a whole number.")
    return MeshConfig(**found)


def make_mesh(data: int | None = None, fsdp: int = 1, tensor: int = 1, slices: int = 1) -> Mesh:
    """A mesh of ``data x fsdp x tensor`` devices, the first of those that JAX sees. Arguments as of `MeshConfig`.

    Raises:
        UserError: there are not that many devices or slices.
    """
    config = MeshConfig(data, fsdp, tensor, slices)
    available = jax.device_count()
    if config.data is None:
        config = dataclasses.replace(config, data=max(1, available // (fsdp * tensor)))
    assert config.data is not None
    shape = (config.data, fsdp, tensor)
    if math.prod(shape) > available:
        raise UserError(
            f"A mesh of {' x '.join(map(str, shape))} devices (data, fsdp, tensor) was asked for, but JAX sees "
            f"{available}; choose numbers whose product is at most that."
        )
    types = (AxisType.Auto,) * len(AXES)
    if slices == 1:
        return jax.make_mesh(shape, AXES, types, devices=jax.devices()[: math.prod(shape)])
    return Mesh(_over_slices(shape, slices), AXES, axis_types=types)


def _over_slices(shape: tuple[int, int, int], slices: int) -> Any:
    """Devices in an array of `shape`, of which each of `slices` equal parts along the first axis is one slice's."""
    devices = jax.devices()
    by_process = not hasattr(devices[0], "slice_index")
    found = len({device.process_index if by_process else device.slice_index for device in devices})
    if found != slices or math.prod(shape) != len(devices):
        raise UserError(
            f"A mesh of {' x '.join(map(str, shape))} devices over {slices} slices was asked for, but JAX sees "
            f"{len(devices)} devices in {found}; a mesh over slices takes all."
        )
    inner = shape[0] // slices, *shape[1:]
    return mesh_utils.create_hybrid_device_mesh(inner, (slices, 1, 1), devices, process_is_granule=by_process)


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

    Returns:
        `fun` itself if there is one device.
    """

    if mesh.size == 1:
        return fun

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
