"""Devices: mesh, sharding, checkpoints, preemption."""

from jaxalign.dist.checkpoint import Checkpoints
from jaxalign.dist.mesh import Mesh, MeshConfig, make_mesh, over_envs, read_mesh, shardings
from jaxalign.dist.preemption import StopRequest
from jaxalign.dist.processes import any_of, from_first, is_first, start

__all__ = [
    "Checkpoints",
    "Mesh",
    "MeshConfig",
    "StopRequest",
    "any_of",
    "from_first",
    "is_first",
    "make_mesh",
    "over_envs",
    "read_mesh",
    "shardings",
    "start",
]
