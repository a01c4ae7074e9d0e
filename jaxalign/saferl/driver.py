"""What all drivers share: what they tell, and what they refuse."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxtyping import Array, Float

from jaxalign.core.errors import UserError
from jaxalign.core.types import Env

SPLIT = ("rollout", "replay")  # fields of a learner's state whose leaves count environments first


class Info(NamedTuple):
    """Diagnostics of one iteration; never fed back.

    Attributes:
        episode_return: estimate of the return per episode, in the environment's own reward.
        episode_cost: estimate of the cost per episode, ``[K]``.
        multiplier: of the constraint handler, ``[K]`` or ``[0]``.
        extra: scalars by name.
    """

    episode_return: Float[Array, ""]
    episode_cost: Float[Array, " K"]
    multiplier: Float[Array, " M"]
    extra: dict[str, Float[Array, ""]]


def check_limit(env: Env, limit: Sequence[float]) -> None:
    """Raises UserError unless there is one sensible limit per cost, and one agent."""
    if env.spec.num_agents != 1:
        raise UserError(f"{env.spec.id} has {env.spec.num_agents} agents; this algorithm moves one.")
    if not env.spec.cost_names:
        raise UserError(f"{env.spec.id} has no cost to constrain; choose costs with `select_costs`.")
    if len(limit) != len(env.spec.cost_names):
        raise UserError(f"`limit` needs one number per cost {list(env.spec.cost_names)}, got {len(limit)}.")
    for name, value in zip(env.spec.cost_names, limit, strict=True):
        if not 0.0 <= value <= 1e9:
            raise UserError(f"The limit of {name!r} is {value}; a cost per episode is a number from 0 upwards.")


def check_sizes(config: Any, positive: Sequence[str], rates: Sequence[str], shares: Sequence[str] = ()) -> None:
    """Raises UserError for sizes that make no sense.

    Args:
        config: with the fields below and `hidden`.
        positive: fields that must be above 0.
        rates: fields that must not be below.
        shares: fields that must not be above 1.
    """
    for names, fits, rule in (
        (positive, lambda x: 0 < x < math.inf, "a number above 0"),
        (rates, lambda x: 0 <= x < math.inf, "0 or a number above"),
        (shares, lambda x: x <= 1, "a number up to 1"),
    ):
        for name in names:
            if not fits(getattr(config, name)):
                raise UserError(f"{name} is {getattr(config, name)}; choose {rule}.")
    if any(width < 1 for width in config.hidden):
        raise UserError(f"hidden is {tuple(config.hidden)}; choose widths of 1 or more.")
