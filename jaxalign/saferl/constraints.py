"""Constraint handlers: the part that makes an algorithm safe.

A handler can act in three places: between iterations (`observe` the measured excess ``J_c - limit`` [K], positive when
violated), before the surrogate (`mix` one advantage out of 1 + K), and inside the loss (`penalty` on the predicted
change of the cost). Beyond these it can set the `budget` that an environment which knows of the constraint
(`worlds`) holds the policy to. Each defaults to doing nothing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

PerConstraint = Float[Array, " K"]


class Constraint(NamedTuple):
    """A constraint handler.

    Attributes:
        init: number of constraints to state.
        observe: ``(state, J_c [K], limit [K]) -> state``, once per iteration and before the policy step.
        mix: ``(state, reward_advantage [...], cost_advantage [..., K]) -> advantage [...]``.
        penalty: ``(state, change [K], excess [K]) -> scalar`` added to the policy loss: predicted change of the cost,
            and measured cost minus limit, both per step.
        budget: ``(state, limit [K]) -> [K]``, cost that an episode may have, for environments that are told.
        multipliers: state to what a person wants to see, ``[K]``.
    """

    init: Callable[[int], Any] = lambda num_costs: ()
    observe: Callable[[Any, PerConstraint, PerConstraint], Any] = lambda state, cost, limit: state
    mix: Callable[[Any, Array, Array], Array] = lambda state, reward, cost: reward
    penalty: Callable[[Any, PerConstraint, PerConstraint], Array] = lambda state, change, excess: jnp.zeros(())
    budget: Callable[[Any, PerConstraint], PerConstraint] = lambda state, limit: limit
    multipliers: Callable[[Any], PerConstraint] = lambda state: jnp.zeros(0)


def scalarise(multipliers: PerConstraint, reward: Float[Array, "*batch"], cost: Float[Array, "*batch K"]):
    """(A - sum_k mu_k A_k) / (1 + sum_k mu_k), a convex combination whatever the multipliers."""
    return (reward - cost @ multipliers) / (1.0 + multipliers.sum())


def unconstrained() -> Constraint:
    """Ignores costs."""
    return Constraint()


class LagrangeState(NamedTuple):
    """Multipliers [K] and the state of their optimiser."""

    multipliers: PerConstraint
    optimiser: Any


def lagrangian(
    optimiser: optax.GradientTransformation, initial: float = 1e-3, upper_bound: float = jnp.inf
) -> Constraint:
    """Dual ascent on mu >= 0 along J_c - limit; any optax optimiser does the ascent.

    Source: Ray, Achiam, Amodei 2019, "Benchmarking safe exploration"; initial value and Adam as in OmniSafe.

    Args:
        optimiser: of the multipliers.
        initial: first value.
        upper_bound: multipliers are clipped to [0, upper_bound] after each step.
    """

    def init(num_costs):
        multipliers = jnp.full(num_costs, initial, jnp.float32)
        return LagrangeState(multipliers, optimiser.init(multipliers))

    def observe(state, cost, limit):
        updates, opt = optimiser.update(limit - cost, state.optimiser, state.multipliers)
        return LagrangeState(jnp.clip(state.multipliers + updates, 0.0, upper_bound), opt)

    def mix(state, reward, cost):
        return scalarise(state.multipliers, reward, cost)

    return Constraint(init, observe, mix, multipliers=lambda state: state.multipliers)


def proportional(rate: float, initial: float = 1e-3) -> Constraint:
    """Dual ascent whose steps shrink near the limit: ``mu <- max(0, mu + rate clip((J_c - d) / max(d, 1), -1, 1))``.

    Far from the limit ``d`` a step is `rate`, whatever the scale of the costs, as with Adam; near it steps are
    proportional to the excess. Adam's are not, and an integral controller with full steps at the set point circles it
    (measured: ``experiments/safe_navigation``). The rule is this library's own.

    Args:
        rate: largest step of a multiplier.
        initial: first value.
    """

    def observe(multipliers, cost, limit):
        excess = jnp.clip((cost - limit) / jnp.maximum(limit, 1.0), -1.0, 1.0)
        return jnp.maximum(multipliers + rate * excess, 0.0)

    return Constraint(
        init=lambda num_costs: jnp.full(num_costs, initial, jnp.float32),
        observe=observe,
        mix=scalarise,
        multipliers=lambda multipliers: multipliers,
    )


class PIDState(NamedTuple):
    """Memory of a PID controller, per constraint; `past` holds the smoothed costs of the last `delay` steps."""

    integral: PerConstraint
    smooth_excess: PerConstraint
    smooth_cost: PerConstraint
    past: Float[Array, "delay K"]
    multipliers: PerConstraint


def pid(
    kp: float = 0.1,
    ki: float = 0.01,
    kd: float = 0.01,
    *,
    delay: int = 10,
    smoothing: float = 0.95,
    initial: float = 1e-3,
    penalty_max: float = jnp.inf,
    diff_norm: bool = False,
) -> Constraint:
    """Multipliers from a PID controller on the excess.

        I <- max(0, I + ki D),  P <- a P + (1 - a) D,  C <- a C + (1 - a) J_c     with D = J_c - limit
        mu = max(0, kp P + I + kd max(0, C - C[delay steps ago]))

    Source: Stooke, Achiam, Abbeel 2020, https://arxiv.org/abs/2007.03964; gains, delay, initial value as in OmniSafe.

    Args:
        kp: proportional gain.
        ki: integral gain.
        kd: derivative gain.
        delay: steps over which the derivative is taken.
        smoothing: a above.
        initial: initial integral.
        penalty_max: largest multiplier.
        diff_norm: keep integral and multiplier within [0, 1].
    """
    ceiling = 1.0 if diff_norm else jnp.inf

    def init(num_costs):
        zeros = jnp.zeros(num_costs)
        return PIDState(jnp.full(num_costs, initial, jnp.float32), zeros, zeros, jnp.zeros((delay, num_costs)), zeros)

    def observe(state, cost, limit):
        excess = cost - limit
        integral = jnp.clip(state.integral + ki * excess, 0.0, ceiling)
        smooth_excess = smoothing * state.smooth_excess + (1 - smoothing) * excess
        smooth_cost = smoothing * state.smooth_cost + (1 - smoothing) * cost
        derivative = jnp.maximum(smooth_cost - state.past[0], 0.0)
        output = jnp.maximum(kp * smooth_excess + integral + kd * derivative, 0.0)
        past = jnp.concatenate([state.past[1:], smooth_cost[None]])
        return PIDState(integral, smooth_excess, smooth_cost, past, jnp.minimum(output, min(ceiling, penalty_max)))

    def mix(state, reward, cost):
        return scalarise(state.multipliers, reward, cost)

    return Constraint(init, observe, mix, multipliers=lambda state: state.multipliers)


def aside(handler: Constraint) -> Constraint:
    """Multipliers that are followed and shown, but left to the policy step: the advantage is the reward's alone."""
    return handler._replace(mix=Constraint().mix)


def log_barrier(kappa: float = 0.01, penalty_max: float = 1.0) -> Constraint:
    """The gradient of the barrier kappa log(limit - J_c): a multiplier p = kappa / (limit - J_c).

    Source: Liu, Ding, Liu 2020 (IPO), https://arxiv.org/abs/1910.09615. As in OmniSafe ``p`` is `penalty_max` where it
    would be larger or the limit is exceeded, where the barrier does not exist.
    """

    def observe(state, cost, limit):
        multiplier = kappa / (limit - cost + 1e-8)
        return jnp.where((multiplier < 0) | (multiplier > penalty_max), penalty_max, multiplier)

    return Constraint(jnp.zeros, observe, scalarise, multipliers=lambda state: state)


def exact_penalty(kappa: float = 20.0) -> Constraint:
    """Kappa sum_k max(0, E[rho A_k] + excess_k) inside the loss.

    Source: Zhang et al. 2022 (P3O), https://arxiv.org/abs/2205.11814. Both terms are per step, as in the paper, whose
    factor (1 - gamma) at the excess is one over the episode's length here; OmniSafe adds the excess of a whole episode
    to the advantage of a step, and leaves out the factor. As there the ratio is not clipped: the KL stop bounds it.
    """
    return Constraint(penalty=lambda state, change, excess: kappa * jnp.sum(jnp.maximum(change + excess, 0.0)))


def switch(tolerance: float = 2.0) -> Constraint:
    """The reward's advantage while every cost is below limit + tolerance; else minus that of the worst cost.

    Source: Xu, Liang, Lan 2021 (CRPO), https://arxiv.org/abs/2011.05869; tolerance as in OmniSafe.
    """

    def mix(excess, reward, cost):
        worst = jnp.argmax(excess)
        return jnp.where(excess[worst] > tolerance, -cost[..., worst], reward)

    return Constraint(jnp.zeros, lambda state, cost, limit: cost - limit, mix)


class SimmerState(NamedTuple):
    """Memory of Simmer's controller, per constraint; `slack` is the limit minus the budget."""

    slack: PerConstraint
    error: PerConstraint
    past: Float[Array, "window K"]
    raw: PerConstraint
    action: PerConstraint


def simmer(
    kp: float = 5e-4, ki: float = 1e-5, kd: float = 0.0, *, smoothing: float = 0.995, window: int = 10
) -> Constraint:
    """The safety budget follows a PID controller on budget - J_c, and never exceeds the limit.

        e <- s e + (1 - s) (budget - J_c),  a = clip(kp e + ki (sum of the last e) + kd (a' - raw'), -1, 1)
        budget <- clip(budget + a, 0, limit)

    where a' and raw' are the last action and its value before clipping.

    Source: Sootla et al. 2022, https://arxiv.org/abs/2206.02675; gains as in OmniSafe, whose costs are scaled by the
    discount of the budget (0.63 for 1000 steps) where ours are per episode.
    """

    def init(num_costs):
        zeros = jnp.zeros(num_costs)
        return SimmerState(zeros, zeros, jnp.zeros((window, num_costs)), zeros, zeros)

    def observe(state, cost, limit):
        budget = limit - state.slack
        error = smoothing * state.error + (1 - smoothing) * (budget - cost)
        past = jnp.concatenate([state.past[1:], error[None]])
        raw = kp * error + ki * past.sum(0) + kd * (state.action - state.raw)
        action = jnp.clip(raw, -1.0, 1.0)
        return SimmerState(limit - jnp.clip(budget + action, 1e-6, limit), error, past, raw, action)

    return Constraint(
        init, observe, budget=lambda state, limit: limit - state.slack, multipliers=lambda state: state.slack
    )
