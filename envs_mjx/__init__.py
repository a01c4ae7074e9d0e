"""Safety environments on MuJoCo MJX: the tasks of Safety-Gymnasium as pure, vectorisable functions."""

from envs_mjx.api import Env, EnvSpec, TimeStep
from envs_mjx.registry import ids, make, register

__all__ = ["Env", "EnvSpec", "TimeStep", "ids", "make", "register"]
