"""The environment contract, written once.

An environment is a pair of pure functions and a static description:

    reset(key) -> (state, obs)
    step(state, action) -> (state, TimeStep)

Both are unbatched (``jax.vmap`` makes a batch), deterministic given their arguments, and never reset on their own:
``TimeStep.obs`` is always the observation *before* any reset, so that a time limit can be bootstrapped correctly.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeVar

import jax
from jaxtyping import Array, Bool, Float, Key

P = ParamSpec("P")
R = TypeVar("R")

PRNGKey = Key[Array, ""]
FAILED_REWARD = -10.0  # of a step whose simulation diverged


class TimeStep(NamedTuple):
    """What one environment step returns.

    Attributes:
        obs: observation after the step, before any reset, ``[O]``.
        reward: task reward of the step.
        cost: indicator (0 or 1) of each cost in ``EnvSpec.cost_names``, ``[K]``.
        terminated: the episode ended in a state from which no further reward can be had (bootstrap with zero).
        truncated: the episode was cut, by the time limit or a failed simulation (bootstrap with the value of ``obs``).
        info: further scalars; always holds ``cost``, the indicator of the sum of all costs, which is what
            Safety-Gymnasium returns as ``cost``.
    """

    obs: Float[Array, "*batch O"]
    reward: Float[Array, "*batch"]
    cost: Float[Array, "*batch K"]
    terminated: Bool[Array, "*batch"]
    truncated: Bool[Array, "*batch"]
    info: dict[str, Array]


class EnvSpec(NamedTuple):
    """Static description of an environment.

    Attributes:
        id: registered name.
        obs_blocks: name and length of every block of the flat observation, in order.
        action_low: lowest action per actuator (actions are clipped to the bounds, never rescaled).
        action_high: highest action per actuator.
        cost_names: names of the entries of ``TimeStep.cost``.
        horizon: steps after which an episode is truncated.
        control_dt: duration of one environment step, s.
        engine: what computes the physics, e.g. ``"mjx"``.
        num_agents: robots that act. With more than one, the action and ``obs``, ``reward``, ``cost`` of a `TimeStep`
            have a leading axis of agents (all sizes here are one agent's); ``terminated``, ``truncated`` and ``info``
            are the world's. With one there is no such axis.
    """

    id: str
    obs_blocks: tuple[tuple[str, int], ...]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    cost_names: tuple[str, ...]
    horizon: int
    control_dt: float
    engine: str
    num_agents: int = 1

    @property
    def obs_size(self) -> int:
        """Length of the flat observation."""
        return sum(size for _, size in self.obs_blocks)

    @property
    def action_size(self) -> int:
        """Number of actuators."""
        return len(self.action_low)


class Env(NamedTuple):
    """``reset(key) -> (state, obs)`` and ``step(state, action) -> (state, TimeStep)``, see the module docstring."""

    reset: Callable[[PRNGKey], tuple[Any, Array]]
    step: Callable[[Any, Array], tuple[Any, TimeStep]]
    spec: EnvSpec


def full_precision(fun: Callable[P, R]) -> Callable[P, R]:
    """`fun` with products of matrices in the precision of their type, whatever traces it.

    By default the matrix units of GPUs and TPUs round float32 factors to 11 or 8 significant bits, which is an error of
    millimetres per metre in a rotated position, and more in a contact solve.
    """

    @functools.wraps(fun)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.default_matmul_precision("highest"):
            return fun(*args, **kwargs)

    return run
