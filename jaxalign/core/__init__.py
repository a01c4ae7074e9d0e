"""Contracts and small mathematics that everything else builds on. Imports nothing from the other layers."""

from jaxalign.core.distributions import Gaussian
from jaxalign.core.errors import UserError
from jaxalign.core.statistics import RunningStatistics
from jaxalign.core.types import Env, EnvSpec, Learner, Network, TimeStep

__all__ = ["Env", "EnvSpec", "Gaussian", "Learner", "Network", "RunningStatistics", "TimeStep", "UserError"]
