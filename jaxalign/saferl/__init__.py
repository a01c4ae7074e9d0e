"""Safe reinforcement learning: parts, drivers that compose them, and the catalogue of algorithms."""

from jaxalign.saferl.catalogue import CATALOGUE, make, names, resolve, world
from jaxalign.saferl.driver import SPLIT
from jaxalign.saferl.offpolicy import OffPolicyConfig
from jaxalign.saferl.onpolicy import OnPolicyConfig
from jaxalign.saferl.rollout import select_costs

__all__ = [
    "CATALOGUE",
    "SPLIT",
    "OffPolicyConfig",
    "OnPolicyConfig",
    "make",
    "names",
    "resolve",
    "select_costs",
    "world",
]
