"""Policy gradients on tokens: write, score, compare, improve; one program.

Per token t of a response, with policy pi, reference q and reward r_t:

    rho_t = pi(y_t) / pi_old(y_t),   loss_t = -min(rho_t A_t, clip(rho_t, 1 - eps, 1 + eps) A_t)     (PPO, 1707.06347)

PPO, GRPO and RLOO differ in where A_t comes from (`experience.Parts`), and in settings. Costs are further rewards with
critics of their own, and a handler of `saferl.constraints` mixes their advantages into A_t.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from jaxalign.core.errors import UserError
from jaxalign.core.prng import stream
from jaxalign.core.types import PRNGKey
from jaxalign.lm import sharding
from jaxalign.rlhf import kl
from jaxalign.rlhf.diagnostics import measure
from jaxalign.rlhf.experience import Parts, Policy, Signals, judge, look
from jaxalign.rlhf.rollout import sampler
from jaxalign.rlhf.settings import Hyper, Settings, check, check_rows
from jaxalign.rlhf.updates import Networks, improver, start


class RLState(NamedTuple):
    """What the next iteration needs.

    Attributes:
        networks: trained parameters, ``networks.policy`` above all; critics are stacked, the reward's first.
        constraint: state of the handler.
        hyper: numbers to sweep; the adaptive controller moves ``hyper.kl_coefficient``.
        step: iterations done.
        position: prompts consumed; where a stream goes on (`lm.training.fit`).
        key: of all randomness.
    """

    networks: Networks
    constraint: Any
    hyper: Hyper
    step: Int[Array, ""]
    position: Int[Array, ""]
    key: PRNGKey


class Info(NamedTuple):
    """Diagnostics of one iteration, of the policy that wrote its responses; never fed back.

    Attributes:
        loss: of the policy, mean over the minibatches.
        grad_norm: likewise, before clipping.
        finite: whether losses, gradient, reward and KL are; if not, the state was left as it was.
        reward: mean over responses of the sum of their tokens' rewards, as given: no penalty, clip or whitening.
        held_out: the same for the held-out reward; None where there is none.
        cost: the same for the costs, ``[K]``.
        multiplier: of the constraint handler, ``[K]`` or ``[0]``.
        kl: KL(policy || reference) of a response, nats, exact given the prefixes that were sampled.
        kl_estimate: the same by `Settings.kl_estimator`.
        kl_coefficient: that was used.
        entropy: of a token, nats.
        length: tokens of a response.
        without_eos: share of responses that were cut off.
        refusal: share that begins with one of `Settings.refusals`.
        clip_fraction: share of tokens whose ratio left the clip's range, over all passes.
        value_loss: of the critics, mean over the minibatches; 0 without.
        reward_on_padding: mean over responses of absolute rewards behind the end, which are dropped; not 0 means that
            the reward puts something where there is no token.
    """

    loss: Float[Array, ""]
    grad_norm: Float[Array, ""]
    finite: Bool[Array, ""]
    reward: Float[Array, ""]
    held_out: Float[Array, ""] | None
    cost: Float[Array, " K"]
    multiplier: Float[Array, " M"]
    kl: Float[Array, ""]
    kl_estimate: Float[Array, ""]
    kl_coefficient: Float[Array, ""]
    entropy: Float[Array, ""]
    length: Float[Array, ""]
    without_eos: Float[Array, ""]
    refusal: Float[Array, ""]
    clip_fraction: Float[Array, ""]
    value_loss: Float[Array, ""]
    reward_on_padding: Float[Array, ""]


class RLLearner(NamedTuple):
    """``init(key, policy_params, critic_params=None) -> state``; ``step(state, prompts, mask) -> (state, Info)``.

    Pure: training is a loop of ``jax.jit(step)``, a sweep ``jax.vmap`` over keys or leaves of ``state.hyper``. With
    `lm.training.fit`: ``jax.jit(lambda state, batch, frozen: learner.step(state, *batch))`` on a stream of `Prompts`.
    """

    init: Callable[..., RLState]
    step: Callable[[RLState, Array, Array], tuple[RLState, Info]]


def make(
    policy: Policy, signals: Signals, parts: Parts, settings: Settings, limit: tuple[float, ...] = ()
) -> RLLearner:
    """Builds the learner.

    Arrays that `policy` and `signals` hold become constants of a program that `step` alone is compiled into; with large
    models build the learner inside the compiled function, so that they are among its arguments.

    Args:
        policy: what is improved.
        signals: rewards and costs.
        parts: the algorithm.
        settings: sizes and numbers.
        limit: highest mean cost of a response, one per cost.

    Raises:
        UserError: settings, vocabulary or limits that do not fit together; in `init`, not one critic for the reward and
            each cost; in `step`, prompts and new tokens exceed the context, or rows do not fit the minibatches.
    """
    check(settings, policy.config, policy.reference)
    if len(limit) != len(signals.costs):
        raise UserError(f"There are {len(signals.costs)} costs and {len(limit)} limits; give one limit per cost.")
    write = sampler(policy.network, policy.config, settings.sampling, settings.samples_per_prompt)
    improve = improver(policy, parts, settings)

    def init(key: PRNGKey, policy_params: Any, critic_params: Any = None) -> RLState:
        critics = () if policy.critic is None else _stack(critic_params, 1 + len(limit))
        networks = start(policy_params, critics, settings)
        hyper = Hyper.of(settings, limit)
        return RLState(networks, parts.constraint.init(len(limit)), hyper, jnp.int32(0), jnp.int32(0), key)

    def step(state: RLState, prompts: Array, prompt_mask: Array) -> tuple[RLState, Info]:
        check_rows(prompts.shape[0], settings)
        key, networks, hyper = jax.random.fold_in(state.key, state.step), state.networks, state.hyper
        completions = write(policy.attach(networks.policy), prompts, prompt_mask, stream(key, "responses"))
        seen = look(policy, networks.policy, networks.critic, completions, settings)
        experience, duals, verdict = judge(signals, parts, settings, hyper, state.constraint, completions, seen)
        excess = verdict.cost - hyper.limit
        networks, losses = improve(networks, experience, hyper, duals, excess, state.step, stream(key, "updates"))

        scalars = (*jax.tree.leaves(losses), verdict.reward, verdict.kl)
        moved = [jnp.isfinite(x).all() for x in jax.tree.leaves((networks.policy, networks.critic))]
        info = Info(
            **losses._asdict(),
            **verdict._asdict(),
            **measure(completions, settings.sampling.stops, settings.refusals)._asdict(),
            finite=jnp.isfinite(jnp.stack(scalars)).all() & jnp.stack(moved).all(),
            multiplier=parts.constraint.multipliers(duals),
            kl_coefficient=hyper.kl_coefficient,
        )
        if settings.kl_target is not None:
            rows, horizon = completions.tokens.shape[0], settings.kl_horizon
            coefficient = kl.adapt(hyper.kl_coefficient, verdict.kl, settings.kl_target, rows, horizon)
            hyper = hyper._replace(kl_coefficient=coefficient)
        new = RLState(networks, duals, hyper, state.step + 1, state.position + prompts.shape[0], state.key)
        return jax.tree.map(lambda a, b: jnp.where(info.finite, a, b), new, state), info

    return RLLearner(init, step)


def shardings(state: RLState, mesh: Mesh) -> Any:
    """The places of all leaves on a mesh of `lm.sharding`: its table for parameters and moments, else on every device.

    Args:
        state: arrays or shapes.
        mesh: devices.
    """

    def place(path: tuple[Any, ...], x: Any) -> NamedSharding:
        known = any(getattr(key, "key", None) in sharding.TABLE for key in path)
        return NamedSharding(mesh, sharding.spec(path, x.shape, mesh) if known else PartitionSpec())

    return jax.tree_util.tree_map_with_path(place, state)


def _stack(critics: Any, number: int) -> Any:
    """Parameters of one critic, or a sequence of them, stacked."""
    each = [critics] if isinstance(critics, dict) else list(critics or ())
    if len(each) != number:
        raise UserError(
            f"init needs the parameters of {number} critics (reward, then costs), got {len(each)}; make them with "
            f"rewards.with_head or the init of rewards.value_network."
        )
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
