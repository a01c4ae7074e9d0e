"""Safe RLHF: the most reward among policies whose mean costs stay below limits.

    max E[sum_t r_t] - beta KL(pi || q)   subject to   E[sum_t c_k,t] <= limit_k

Reward and costs are models of their own with critics of their own (Dai et al. 2024, https://arxiv.org/abs/2310.12773).
The constraint handlers are those of `saferl.constraints`; an "episode" of theirs is a response. A handler that sets the
budget of an environment (Simmer) has nothing to act on here.
"""

from collections.abc import Sequence
from typing import Any

import optax

from jaxalign.core.errors import UserError
from jaxalign.core.types import Network
from jaxalign.lm.config import ModelConfig
from jaxalign.rewards.scalar import value_network
from jaxalign.rlhf.experience import Parts, Policy, Signals
from jaxalign.rlhf.learner import RLLearner, make
from jaxalign.rlhf.ppo import row
from jaxalign.rlhf.settings import Settings
from jaxalign.saferl.constraints import Constraint, lagrangian


def constrained(
    network: Network,
    config: ModelConfig,
    signals: Signals,
    reference: Any,
    settings: Settings,
    limit: Sequence[float],
    *,
    constraint: Constraint | None = None,
    algorithm: str = "ppo",
) -> RLLearner:
    """PPO (or another row of `ppo.ROWS`) with a constraint handler on tokens.

    Args:
        network: of `lm.transformer`, the policy.
        config: of it.
        signals: reward and costs of tokens.
        reference: parameters that the KL is measured from.
        settings: of the row.
        limit: highest mean cost of a response, one per cost; ``state.hyper.limit`` thereafter.
        constraint: handler; by default a Lagrange multiplier by Adam at 0.1 (PPO-Lagrangian).
        algorithm: the row.

    Raises:
        UserError: there is no cost, or as `learner.make`.
    """
    if not signals.costs:
        raise UserError("signals.costs is empty; give at least one cost, or use rlhf.ppo.")
    chosen = row(algorithm)
    handler = lagrangian(optax.adam(0.1)) if constraint is None else constraint
    critic = value_network(network, config.hidden_size) if chosen.critic else None
    parts = Parts(chosen.advantage(settings), handler)
    return make(Policy(network, config, reference, critic), signals, parts, settings, tuple(map(float, limit)))
