"""Devices: mesh, sharding, checkpoints, preemption."""

from jaxalign.dist.checkpoint import Checkpoints
from jaxalign.dist.mesh import Mesh, make_mesh, over_envs, shardings
from jaxalign.dist.preemption import StopRequest

__all__ = ["Checkpoints", "Mesh", "StopRequest", "make_mesh", "over_envs", "shardings"]
