"""How policy and critics move on one batch of experience: minibatch descent on clipped losses."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from jaxalign.core.types import PRNGKey
from jaxalign.rlhf import kl
from jaxalign.rlhf.advantages import masked_mean
from jaxalign.rlhf.experience import Experience, Parts, Policy, chosen_logprob, response_logits, response_values
from jaxalign.rlhf.settings import Average, Hyper, Settings
from jaxalign.saferl.policy_steps import adam, descend, minibatches


class Networks(NamedTuple):
    """Trained parameters and their moments; critics are stacked."""

    policy: Any
    optimiser: Any
    critic: Any
    critic_optimiser: Any


class Losses(NamedTuple):
    """Means over the minibatches of an iteration."""

    loss: Float[Array, ""]
    grad_norm: Float[Array, ""]
    clip_fraction: Float[Array, ""]
    value_loss: Float[Array, ""]


def token_weights(mask: Bool[Array, "B N"], average: Average) -> Float[Array, "B N"]:
    """Weights of the tokens in the loss, see `Settings.average`; they sum to 1 except for "sums"."""
    there = mask.astype(jnp.float32)
    if average == "tokens":
        return there / jnp.maximum(there.sum(), 1.0)
    if average == "responses":
        there = there / jnp.maximum(there.sum(axis=1, keepdims=True), 1.0)
    return there / mask.shape[0]


def start(policy_params: Any, critics: Any, settings: Settings) -> Networks:
    """Copies in ``settings.param_dtype``, and moments at 0."""
    cast = lambda tree: jax.tree.map(lambda x: jnp.array(x, settings.param_dtype), tree)
    optimiser, policy, critics = adam(settings.max_grad_norm), cast(policy_params), cast(critics)
    return Networks(policy, optimiser.init(policy), critics, jax.vmap(optimiser.init)(critics) if critics else ())


def policy_loss(
    policy: Policy, parts: Parts, settings: Settings, hyper: Hyper, duals: Any, excess: Array, rows: Experience
):
    """Trained parameters to (loss, share of clipped tokens).

        sum_t w_t [-min(rho_t A_t, clip(rho_t, 1 - eps, 1 + eps) A_t) + beta k(log pi - log q)] + penalty of the costs

    where the KL term is there with `settings.kl_in` "loss".

    Args:
        policy: networks.
        parts: the algorithm.
        settings: static.
        hyper: eps and beta.
        duals: state of the constraint handler.
        excess: mean cost of a response minus its limit, ``[K]``.
        rows: responses.
    """
    width = rows.mask.shape[1]
    weights = token_weights(rows.mask, settings.average)

    def loss(trained: Any) -> tuple[Array, Array]:
        logits = response_logits(policy, policy.attach(trained), rows.tokens, rows.segment_ids, width)
        logprob = chosen_logprob(logits / settings.sampling.temperature, rows.tokens[:, -width:])
        ratio = jnp.exp(jnp.where(rows.mask, logprob - rows.logprob, 0.0))
        near = jnp.clip(ratio, 1 - hyper.clip, 1 + hyper.clip)
        each = -jnp.minimum(ratio * rows.advantage, near * rows.advantage)
        if settings.kl_in == "loss":
            log_ratio = jnp.where(rows.mask, logprob - rows.reference, 0.0)
            each = each + hyper.kl_coefficient * kl.estimator(settings.kl_estimator)(log_ratio)
        change = masked_mean((ratio - 1.0)[..., None] * rows.cost_advantage, rows.mask)
        length = rows.mask.sum() / rows.mask.shape[0]
        penalty = parts.constraint.penalty(duals, change, excess / length)
        return jnp.sum(weights * each) + penalty, masked_mean((jnp.abs(ratio - 1) > hyper.clip) * 1.0, rows.mask)

    return loss


def value_loss(policy: Policy, hyper: Hyper, rows: Experience):
    """Stacked critics to half the mean squared error, of the value or of the value within reach, whichever is larger.

    Summed over the critics, whose parameters do not meet. The reach is `hyper.value_clip` around the old value.
    """

    def loss(critics: Any) -> Array:
        values = response_values(policy, critics, rows.tokens, rows.segment_ids, rows.mask.shape[1])
        reach = rows.values + jnp.clip(values - rows.values, -hyper.value_clip, hyper.value_clip)
        error = jnp.maximum(jnp.square(values - rows.targets), jnp.square(reach - rows.targets))
        return 0.5 * masked_mean(error, rows.mask).sum()

    return loss


def improver(policy: Policy, parts: Parts, settings: Settings):
    """``(networks, experience, hyper, duals, excess, step, key) -> (networks, Losses)``: all passes over a batch."""
    optimiser = adam(settings.max_grad_norm)

    def improve(
        networks: Networks, experience: Experience, hyper: Hyper, duals: Any, excess: Array, step: Array, key: PRNGKey
    ) -> tuple[Networks, Losses]:
        decay = (1.0 + jnp.cos(jnp.pi * jnp.minimum(step / hyper.total_steps, 1.0))) / 2.0

        def minibatch(networks: Networks, places: Array) -> tuple[Networks, Losses]:
            rows = jax.tree.map(lambda x: x[places], experience)
            objective = policy_loss(policy, parts, settings, hyper, duals, excess, rows)
            (loss, clipped), gradient = jax.value_and_grad(objective, has_aux=True)(networks.policy)
            rate = decay * hyper.learning_rate
            moved = descend(optimiser, gradient, networks.optimiser, networks.policy, rate)
            critic, error = (networks.critic, networks.critic_optimiser), jnp.zeros(())
            if policy.critic is not None:
                error, slope = jax.value_and_grad(value_loss(policy, hyper, rows))(networks.critic)
                own = lambda g, m, p: descend(optimiser, g, m, p, decay * hyper.critic_learning_rate)
                critic = jax.vmap(own)(slope, networks.critic_optimiser, networks.critic)  # each clips for itself
            return Networks(*moved, *critic), Losses(loss, optax.tree.norm(gradient), clipped, error)

        def epoch(networks: Networks, key: PRNGKey) -> tuple[Networks, Losses]:
            places = minibatches(key, experience.mask.shape[0], settings.num_minibatches)
            return jax.lax.scan(minibatch, networks, places)

        networks, losses = jax.lax.scan(epoch, networks, jax.random.split(key, settings.epochs))
        return networks, jax.tree.map(jnp.mean, losses)

    return improve
