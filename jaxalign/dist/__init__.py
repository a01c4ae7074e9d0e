"""Devices: mesh, sharding, checkpoints, preemption."""

from jaxalign.dist.checkpoint import Checkpoints
from jaxalign.dist.mesh import make_mesh, over_envs, place, shardings
from jaxalign.dist.preemption import StopRequest

__all__ = ["Checkpoints", "StopRequest", "make_mesh", "over_envs", "place", "shardings"]
