"""From responses to what a policy learns from: log-probabilities, values, rewards, penalties, advantages."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxalign.core.types import Network
from jaxalign.lm.config import ModelConfig
from jaxalign.lm.transformer import unembed
from jaxalign.rewards.position import reward_position, to_tokens
from jaxalign.rlhf import kl
from jaxalign.rlhf.advantages import Advantage, masked_mean, whiten
from jaxalign.rlhf.diagnostics import ended
from jaxalign.rlhf.rollout import Completions, RewardFn, score_tokens
from jaxalign.rlhf.settings import Hyper, Settings
from jaxalign.saferl.constraints import Constraint


class Policy(NamedTuple):
    """What is improved, and what it is held close to.

    Attributes:
        network: of `lm.transformer`.
        config: of it.
        reference: parameters of q, not trained.
        critic: of `rewards.value_network`, for reward and costs alike; None: there are no values.
        attach: trained parameters to those of `network`: the identity, or for adapters `lora.attach` on their base.
    """

    network: Network
    config: ModelConfig
    reference: Any
    critic: Network | None
    attach: Callable[[Any], Any] = lambda trained: trained


class Signals(NamedTuple):
    """What responses are judged by.

    Attributes:
        reward: the proxy that is optimised.
        costs: one per limit.
        held_out: another reward, watched only.
    """

    reward: RewardFn
    costs: tuple[RewardFn, ...] = ()
    held_out: RewardFn | None = None


class Parts(NamedTuple):
    """What distinguishes one algorithm from another.

    Attributes:
        advantage: from rewards and, if the policy has a critic, values.
        constraint: handler of the costs.
    """

    advantage: Advantage
    constraint: Constraint = Constraint()


class View(NamedTuple):
    """What policy, reference and critics see in responses, per token; `C` is reward and costs."""

    logprob: Float[Array, "B N"]
    reference: Float[Array, "B N"]
    kl: Float[Array, "B N"]
    entropy: Float[Array, "B N"]
    values: Float[Array, "B N C"]


class Experience(NamedTuple):
    """A batch of responses, ready to learn from; rows are responses, `C` reward and costs, `K` costs.

    Attributes:
        tokens: prompts and responses.
        segment_ids: 0 at padding.
        mask: response tokens.
        logprob: under the policy that wrote them.
        reference: under the reference.
        values: of the critics.
        targets: of the values.
        advantage: mixed.
        cost_advantage: of the costs alone, centred.
    """

    tokens: Int[Array, "B P+N"]
    segment_ids: Int[Array, "B P+N"]
    mask: Bool[Array, "B N"]
    logprob: Float[Array, "B N"]
    reference: Float[Array, "B N"]
    values: Float[Array, "B N C"]
    targets: Float[Array, "B N C"]
    advantage: Float[Array, "B N"]
    cost_advantage: Float[Array, "B N K"]


class Verdict(NamedTuple):
    """Means over responses; see `learner.Info`."""

    reward: Float[Array, ""]
    held_out: Float[Array, ""] | None
    cost: Float[Array, " K"]
    kl: Float[Array, ""]
    kl_estimate: Float[Array, ""]
    entropy: Float[Array, ""]
    reward_on_padding: Float[Array, ""]


def response_logits(policy: Policy, params: Any, tokens: Array, segment_ids: Array, width: int) -> Array:
    """Logits [B, N, V] of the last `width` columns' tokens; those of the other columns are not formed."""
    states = policy.network.apply(params, tokens, None, segment_ids, hidden=True)
    return unembed(policy.config, params, states[:, -width - 1 : -1])


def response_values(policy: Policy, critics: Any, tokens: Array, segment_ids: Array, width: int) -> Array:
    """Values [B, N, C] by the stacked critics, each before its token is written."""
    if policy.critic is None:
        return jnp.zeros((*tokens.shape[:1], width, 1))
    apply = policy.critic.apply
    values = jax.vmap(lambda params: apply(params, tokens, None, segment_ids))(critics)
    return jnp.moveaxis(values, 0, -1)[:, -width - 1 : -1]


def chosen_logprob(logits: Float[Array, "B N V"], tokens: Int[Array, "B N"]) -> Float[Array, "B N"]:
    """Log-probability of `tokens`, float32."""
    chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)


def in_pieces(function: Callable[[Any], Any], rows: Any, pieces: int) -> Any:
    """`function` of rows, a part of them at a time; piece i takes row i of every group of `pieces`."""
    parts = jax.tree.map(lambda x: x.reshape(-1, pieces, *x.shape[1:]).swapaxes(0, 1), rows)
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), jax.lax.map(function, parts))


def look(policy: Policy, trained: Any, critics: Any, completions: Completions, settings: Settings) -> View:
    """Policy, reference and critics on responses, in `settings.num_minibatches` pieces."""
    width, P = completions.response_mask.shape[1], completions.prompt_length
    temperature = settings.sampling.temperature
    params = policy.attach(trained)

    def piece(rows: tuple[Array, Array]) -> View:
        logits, reference = (response_logits(policy, p, *rows, width) / temperature for p in (params, policy.reference))
        response = rows[0][:, P:]
        return View(
            chosen_logprob(logits, response),
            chosen_logprob(reference, response),
            kl.exact(logits, reference),
            kl.entropy(logits),
            response_values(policy, critics, *rows, width),
        )

    return in_pieces(piece, (completions.tokens, completions.segment_ids), settings.num_minibatches)


def judge(
    signals: Signals,
    parts: Parts,
    settings: Settings,
    hyper: Hyper,
    duals: Any,
    completions: Completions,
    seen: View,
) -> tuple[Experience, Any, Verdict]:
    """Experience, the constraint handler's next state, and means.

    The reward of a token is the proxy's, less the penalty beta k(log pi - log q), clipped. Costs are left as they are,
    so that limits mean what they say (safe-rlhf gives half of the penalty to each).
    """
    mask = completions.response_mask
    given = jnp.stack([score_tokens(f, completions) for f in (signals.reward, *signals.costs)], axis=-1)
    rewards = jnp.where(mask[..., None], given, 0.0)
    log_ratio = jnp.where(mask, seen.logprob - seen.reference, 0.0)
    estimate = jnp.where(mask, kl.estimator(settings.kl_estimator)(log_ratio), 0.0)

    proxy = rewards[..., 0] - _missing_eos(completions, settings)
    if settings.kl_in == "reward":
        proxy = proxy - hyper.kl_coefficient * estimate
    proxy = jnp.clip(proxy, -hyper.score_clip, hyper.score_clip)
    if settings.whiten_rewards:
        proxy = whiten(proxy, mask, centre=False)
    advantage, targets = parts.advantage(rewards.at[..., 0].set(proxy), seen.values, mask)

    of_reward = whiten(advantage[..., 0], mask) if settings.whiten_advantages else advantage[..., 0]
    of_cost = jnp.where(mask[..., None], advantage[..., 1:] - masked_mean(advantage[..., 1:], mask), 0.0)
    means = rewards.sum(axis=1).mean(axis=0)
    duals = parts.constraint.observe(duals, means[1:], hyper.limit)
    mixed = parts.constraint.mix(duals, of_reward, of_cost)

    verdict = Verdict(
        means[0],
        _watched(signals.held_out, completions),
        means[1:],
        jnp.where(mask, seen.kl, 0.0).sum(axis=1).mean(),
        estimate.sum(axis=1).mean(),
        masked_mean(seen.entropy, mask),
        jnp.sum(jnp.where(mask[..., None], 0.0, jnp.abs(given))) / mask.shape[0],
    )
    rows = (completions.tokens, completions.segment_ids, mask, seen.logprob, seen.reference, seen.values)
    return Experience(*rows, targets, mixed, of_cost), duals, verdict


def _missing_eos(completions: Completions, settings: Settings) -> Array:
    """The penalty per token of responses that were cut off, at their reward position."""
    cut = settings.missing_eos_penalty * ~ended(completions, settings.sampling.stops)[:, None]
    per_token = to_tokens(cut, reward_position(completions.segment_ids), completions.tokens.shape[1])
    return per_token[:, completions.prompt_length :]


def _watched(held_out: RewardFn | None, completions: Completions) -> Array | None:
    if held_out is None:
        return None
    return jnp.where(completions.response_mask, score_tokens(held_out, completions), 0.0).sum(axis=1).mean()
