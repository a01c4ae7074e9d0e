"""The algorithms. Reading one row of `ROWS` tells exactly how two of them differ.

- PPO: values of a separate critic, GAE over tokens, the KL penalty in the reward of each token (Ouyang et al. 2022,
  https://arxiv.org/abs/2203.02155; clipped values as in safe-rlhf and TRL).
- GRPO: the responses to a prompt are compared with each other, and the KL is added to the loss as k3 (Shao et al. 2024,
  https://arxiv.org/abs/2402.03300). Mind what `kl` says of k3 there.
- RLOO: likewise, with the mean of the others as baseline and the KL in the reward (Ahmadian et al. 2024,
  https://arxiv.org/abs/2402.14740). With one pass the clip does not act and it is REINFORCE; the ratio is per token.

All take rewards per token. GRPO and RLOO compare their sums.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxalign.core.errors import UserError
from jaxalign.core.types import Network
from jaxalign.lm.config import ModelConfig
from jaxalign.lm.sampling import Sampling
from jaxalign.rewards.scalar import value_network
from jaxalign.rlhf.advantages import Advantage, gae, group_relative, leave_one_out
from jaxalign.rlhf.experience import Parts, Policy, Signals
from jaxalign.rlhf.learner import RLLearner, make
from jaxalign.rlhf.rollout import RewardFn
from jaxalign.rlhf.settings import Settings


class Row(NamedTuple):
    """An algorithm: one line about it, its advantages, whether it has a critic, and where its settings differ."""

    summary: str
    advantage: Callable[[Settings], Advantage]
    critic: bool
    differs: dict[str, Any]


_GROUP = {"num_minibatches": 1, "epochs": 1, "whiten_advantages": False}
_GRPO = _GROUP | {"samples_per_prompt": 8, "kl_estimator": "k3", "kl_in": "loss", "average": "responses"}
_RLOO = _GROUP | {"samples_per_prompt": 4, "average": "sums"}

ROWS: Mapping[str, Row] = {
    "ppo": Row("PPO with a critic", lambda s: gae(s.gamma, s.lam), True, {}),
    "grpo": Row("Relative to the group", lambda s: group_relative(s.samples_per_prompt), False, _GRPO),
    "rloo": Row("REINFORCE, leave-one-out", lambda s: leave_one_out(s.samples_per_prompt), False, _RLOO),
}


def settings(name: str, sampling: Sampling, **changes: Any) -> Settings:
    """The settings of the algorithm `name`, with changes.

    Raises:
        UserError: there is no such algorithm or setting, or a value makes no sense.
    """
    unknown = changes.keys() - Settings.__dataclass_fields__.keys()
    if unknown:
        raise UserError(f"There is no setting {', '.join(sorted(unknown))}; see rlhf.Settings for those there are.")
    return Settings(sampling, **(row(name).differs | changes))


def row(name: str) -> Row:
    """The row `name`.

    Raises:
        UserError: there is none.
    """
    if name not in ROWS:
        raise UserError(f"There is no algorithm {name!r}; choose one of {', '.join(ROWS)}.")
    return ROWS[name]


def algorithm(
    name: str,
    network: Network,
    config: ModelConfig,
    reward: RewardFn,
    reference: Any,
    settings: Settings,
    *,
    held_out: RewardFn | None = None,
    attach: Callable[[Any], Any] = lambda trained: trained,
) -> RLLearner:
    """The learner of the row `name`, whose critic (if any) is ``rewards.value_network(network, config.hidden_size)``.

    For a critic of another shape, compose `learner.make` yourself.

    Args:
        name: of the row.
        network: of `lm.transformer`, the policy.
        config: of it.
        reward: of tokens.
        reference: parameters that the KL is measured from.
        settings: those of the row, see `settings`.
        held_out: another reward to watch.
        attach: see `experience.Policy`.

    Raises:
        UserError: as `learner.make`.
    """
    chosen = row(name)
    critic = value_network(network, config.hidden_size) if chosen.critic else None
    parts = Parts(chosen.advantage(settings))
    policy = Policy(network, config, reference, critic, attach)
    return make(policy, Signals(reward, held_out=held_out), parts, settings)


ppo = functools.partial(algorithm, "ppo")
grpo = functools.partial(algorithm, "grpo")
rloo = functools.partial(algorithm, "rloo")
