"""The contracts, each written once. Tests in ``tests/contracts`` hold every implementation to them.

Shapes: T time, B parallel environments, N samples, K constraints, O observation, A action.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Key

from envs_mjx.api import Env, EnvSpec, TimeStep

__all__ = ["Env", "EnvSpec", "Learner", "Network", "PRNGKey", "TimeStep"]

PRNGKey = Key[Array, ""]


class Learner(NamedTuple):
    """``init(key) -> state`` and ``step(state) -> (state, info)``.

    The state is closed under ``step``: same tree, shapes, dtypes and weak types. Training is a scan of ``step``, a
    sweep is ``vmap(init)``. The state is what the next step needs; the info is what a person wants, never fed back.
    """

    init: Callable[[PRNGKey], Any]
    step: Callable[[Any], tuple[Any, Any]]


class Network(NamedTuple):
    """``init(key) -> params`` and ``apply(params, x) -> y``; ``x`` may have any leading axes."""

    init: Callable[[PRNGKey], Any]
    apply: Callable[..., Array]
