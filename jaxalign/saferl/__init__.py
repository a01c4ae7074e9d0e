"""Safe reinforcement learning: parts, drivers that compose them, and the catalogue of algorithms."""

from jaxalign.saferl.catalogue import CATALOGUE, make, names
from jaxalign.saferl.onpolicy import OnPolicyConfig
from jaxalign.saferl.rollout import select_costs

__all__ = ["CATALOGUE", "OnPolicyConfig", "make", "names", "select_costs"]
