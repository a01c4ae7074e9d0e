"""Policy steps: how parameters move, given one batch as functions of them. First order, TRPO, CPO, PCPO, CUP."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from jaxalign.core.types import PRNGKey

Rows = Int[Array, " R"]


class Problem(NamedTuple):
    """One batch [T, B] of transitions as functions of the policy's parameters; `rows` select time steps.

    Attributes:
        loss: ``(params, rows) -> (scalar, kl)``, surrogate of the mixed advantage plus the constraint's penalty, and
            the mean KL(old || new), summed over action components.
        reward_loss: ``(params, rows) -> scalar``, minus the importance-weighted reward advantage.
        cost_change: ``(params, rows) -> [K]``, predicted change of the cost per episode.
        kl: ``(params, rows) -> scalar``, that KL alone.
        kl_between: ``(params, reference params, rows) -> scalar``, KL(policy || reference).
        multipliers: of the constraint handler, ``[K]`` or ``[0]``.
        excess: measured cost per episode minus its limit, ``[K]``.
        episode_length: mean length of an episode, steps.
        num_rows: T.
    """

    loss: Callable[..., tuple[Float[Array, ""], Float[Array, ""]]]
    reward_loss: Callable[..., Float[Array, ""]]
    cost_change: Callable[..., Float[Array, " K"]]
    kl: Callable[..., Float[Array, ""]]
    kl_between: Callable[..., Float[Array, ""]]
    multipliers: Float[Array, " M"]
    excess: Float[Array, " K"]
    episode_length: Float[Array, ""]
    num_rows: int

    @property
    def everything(self) -> Rows:
        """All rows."""
        return jnp.arange(self.num_rows)


class PolicyStep(NamedTuple):
    """``init(params) -> state``; ``update(key, params, state, problem, learning_rate) -> (params, state, scalars)``."""

    init: Callable[[Any], Any]
    update: Callable[..., tuple[Any, Any, dict[str, Array]]]


def adam(max_grad_norm: float = 40.0) -> optax.GradientTransformation:
    """Adam directions on clipped gradients; whoever uses them multiplies by the learning rate, which is a leaf."""
    return optax.chain(optax.clip_by_global_norm(max_grad_norm), optax.scale_by_adam())


def descend(optimiser: optax.GradientTransformation, gradients, state, params, learning_rate):
    """One step of `optimiser` against `gradients`."""
    direction, state = optimiser.update(gradients, state, params)
    return optax.apply_updates(params, jax.tree.map(lambda d: -learning_rate * d, direction)), state


def minibatches(key: PRNGKey, num_rows: int, number: int) -> Int[Array, "M R"]:
    """A random partition of the rows: every minibatch holds the same number of time steps of every environment."""
    return jax.random.permutation(key, num_rows).reshape(number, -1)


def first_order(
    optimiser: optax.GradientTransformation, *, epochs: int, num_minibatches: int, target_kl: float = jnp.inf
) -> PolicyStep:
    """Minibatch descent on `problem.loss`, until the KL to the old policy, seen on a minibatch, exceeds `target_kl`.

    Deviation from OmniSafe, which looks only after each pass: a narrow policy can be far away by then.
    """
    descent = _descent(optimiser, epochs, num_minibatches, target_kl)

    def update(key, params, opt, problem, learning_rate):
        params, opt, loss, done = descent(key, params, opt, problem.loss, problem.num_rows, learning_rate)
        kl = problem.loss(params, problem.everything)[1]
        return params, opt, {"policy_loss": loss, "epochs": done, "kl": kl}

    return PolicyStep(optimiser.init, update)


def _descent(optimiser: optax.GradientTransformation, epochs: int, num_minibatches: int, target_kl: float):
    """Minibatch descent on any ``(params, rows) -> (loss, kl)``, until the KL exceeds `target_kl`."""

    def descent(key, params, opt, objective, num_rows, learning_rate):
        def minibatch(carry, rows):
            params, opt, kl = carry
            (loss, new_kl), gradients = jax.value_and_grad(objective, has_aux=True)(params, rows)
            kl = jnp.maximum(kl, new_kl)  # once too far, no further step
            moved = descend(optimiser, gradients, opt, params, learning_rate)
            params, opt = jax.tree.map(functools.partial(jnp.where, kl <= target_kl), moved, (params, opt))
            return (params, opt, kl), loss

        def epoch(carry):
            params, opt, kl, done, _ = carry
            rows = minibatches(jax.random.fold_in(key, done), num_rows, num_minibatches)
            (params, opt, kl), losses = jax.lax.scan(minibatch, (params, opt, kl), rows)
            return params, opt, kl, done + 1, losses.mean()

        def unfinished(carry):
            return (carry[3] < epochs) & (carry[2] <= target_kl)

        start = params, opt, jnp.float32(0.0), jnp.int32(0), jnp.float32(0.0)
        params, opt, _, done, loss = jax.lax.while_loop(unfinished, epoch, start)
        return params, opt, loss, done.astype(jnp.float32)

    return descent


def then_project(
    first: PolicyStep,
    optimiser: optax.GradientTransformation,
    *,
    epochs: int,
    num_minibatches: int,
    target_kl: float,
    weight: float,
) -> PolicyStep:
    """CUP: a step that looks at the reward alone, then minibatch descent on

        sum_k mu_k weight E[rho A_k] + KL(policy || policy after the first step)

    with fresh minibatches, until that KL exceeds `target_kl`.

    Source: Yang et al. 2022, https://arxiv.org/abs/2209.07089, algorithm 1; weight = (1 - gamma lam) / (1 - gamma).

    Args:
        first: step that improves the reward.
        optimiser: of the projection.
        epochs: passes of the projection, at most.
        num_minibatches: per pass.
        target_kl: where the projection stops.
        weight: of the costs.
    """
    descent = _descent(optimiser, epochs, num_minibatches, target_kl)

    def update(key, params, state, problem, learning_rate):
        inner, opt = state
        improved, inner, extra = first.update(jax.random.fold_in(key, 0), params, inner, problem, learning_rate)

        def objective(params, rows):
            cost = problem.multipliers @ problem.cost_change(params, rows) / problem.episode_length
            distance = problem.kl_between(params, improved, rows)
            return weight * cost + distance, distance

        args = objective, problem.num_rows, learning_rate
        params, opt, loss, done = descent(jax.random.fold_in(key, 1), improved, opt, *args)
        extra |= {"projection_loss": loss, "projection_epochs": done, "kl": problem.kl(params, problem.everything)}
        return params, (inner, opt), extra

    return PolicyStep(lambda params: (first.init(params), optimiser.init(params)), update)


class _Curvature(NamedTuple):
    """The flat parameters, the damped Fisher product, and conjugate-gradient solves with it."""

    flat: Float[Array, " P"]
    unravel: Callable[[Array], Any]
    product: Callable[[Array], Array]
    solve: Callable[[Array], Array]


def conjugate_gradient(product: Callable[[Array], Array], b: Float[Array, " P"], iterations: int) -> Float[Array, " P"]:
    """Approximate solution of ``product(x) = b``, started at 0 and stopped early at a residual of 1e-5."""
    return jax.scipy.sparse.linalg.cg(product, b, maxiter=iterations, tol=0.0, atol=1e-5)[0]


def _curvature(params, problem: Problem, damping: float, cg_iterations: int) -> _Curvature:
    flat, unravel = ravel_pytree(params)
    gradient = jax.grad(lambda p: problem.kl(unravel(p), problem.everything))
    _, hessian = jax.linearize(gradient, flat)  # once; every product then costs the linear part only

    def product(v):
        return hessian(v) + damping * v

    return _Curvature(flat, unravel, product, lambda b: conjugate_gradient(product, b, cg_iterations))


def _line_search(curvature: _Curvature, direction, accept, *, tries: int, shrink: float = 0.8):
    """The first accepted point among ``flat + shrink**i direction``; the old parameters if none is."""

    def attempt(carry):
        number, _, _ = carry
        fraction = shrink ** number.astype(jnp.float32)
        return number + 1, fraction, accept(curvature.unravel(curvature.flat + fraction * direction))

    def unfinished(carry):
        return (carry[0] < tries) & ~carry[2]

    _, fraction, accepted = jax.lax.while_loop(unfinished, attempt, (jnp.int32(0), jnp.float32(0.0), jnp.bool_(False)))
    fraction = jnp.where(accepted, fraction, 0.0)
    return curvature.unravel(curvature.flat + jnp.where(accepted, fraction * direction, 0.0)), fraction


def trust_region(delta: float, *, damping: float, cg_iterations: int = 15, tries: int = 15) -> PolicyStep:
    """TRPO: the natural-gradient step of length KL = delta, shortened until the loss does not rise and KL <= delta.

    Source: Schulman et al. 2015, https://arxiv.org/abs/1502.05477.

    Args:
        delta: trust region on the mean KL (summed over action components).
        damping: added to the Fisher matrix's diagonal.
        cg_iterations: conjugate-gradient iterations.
        tries: line-search steps, each 0.8 times the one before.
    """

    def update(key, params, state, problem, learning_rate):
        del key, learning_rate
        rows = problem.everything
        curvature = _curvature(params, problem, damping, cg_iterations)
        loss, direction = _natural_direction(curvature, problem, delta)

        def accept(candidate):
            new, kl = problem.loss(candidate, rows)
            return jnp.isfinite(new) & (new <= loss) & (kl <= delta)

        params, fraction = _line_search(curvature, direction, accept, tries=tries)
        return params, state, {"policy_loss": loss, "step": fraction, "kl": problem.kl(params, rows)}

    return PolicyStep(lambda params: (), update)


def natural_gradient(delta: float, *, damping: float, cg_iterations: int = 15) -> PolicyStep:
    """The natural-gradient step of length KL = delta, taken as it is.

    Source: Kakade 2001, "A natural policy gradient". Arguments as in `trust_region`. A step that is not finite is left.
    """

    def update(key, params, state, problem, learning_rate):
        del key, learning_rate
        curvature = _curvature(params, problem, damping, cg_iterations)
        loss, direction = _natural_direction(curvature, problem, delta)
        sound = jnp.isfinite(direction).all()
        params = curvature.unravel(curvature.flat + jnp.where(sound, direction, 0.0))
        return params, state, {"policy_loss": loss, "kl": problem.kl(params, problem.everything)}

    return PolicyStep(lambda params: (), update)


def _natural_direction(curvature: _Curvature, problem: Problem, delta: float):
    """The loss, and the step along H^-1 times minus its gradient, of length sqrt(2 delta) in the Fisher metric."""
    rows = problem.everything
    loss, gradient = jax.value_and_grad(lambda p: problem.loss(curvature.unravel(p), rows)[0])(curvature.flat)
    x = curvature.solve(-gradient)
    return loss, jnp.sqrt(2 * delta / (x @ curvature.product(x) + 1e-8)) * x


class Dual(NamedTuple):
    """Solution of the linear-quadratic programme of CPO: step = (H^-1 g - nu H^-1 b) / lam, or recovery if case 0."""

    lam: Float[Array, ""]
    nu: Float[Array, ""]
    case: Int[Array, ""]


def cpo_dual(q, r, s, c, delta: float) -> Dual:
    """Dual variables of: maximise g.x subject to c + b.x <= 0 and x.Hx / 2 <= delta.

    With q = g.H^-1 g, r = g.H^-1 b, s = b.H^-1 b, A = q - r^2/s, B = 2 delta - c^2/s the cases are: 4 no cost gradient,
    3 the whole trust region is feasible, 2 the boundary cuts it and the present point is feasible, 1 it is infeasible
    but a feasible point is within reach, 0 none is (then only the cost is reduced).

    Source: Achiam et al. 2017, https://arxiv.org/abs/1705.10528, theorem 2, where the objective is minimised: its r is
    minus ours. Deviation from OmniSafe and SafePO, whose r has the wrong sign and whose projection on an empty interval
    returns the upper end: their cases 1 and 2 do not solve the programme.
    """
    tiny = 1e-12
    r = -r
    flat = (s <= 1e-8) & (c < 0)
    safe_s, safe_c = jnp.maximum(s, 1e-8), jnp.where(c == 0, tiny, c)
    # q - r^2/s vanishes for parallel gradients, where float32 leaves noise: keep it from deciding
    a, b = jnp.maximum(q - r**2 / safe_s, 1e-6 * q), 2 * delta - c**2 / safe_s
    case = jnp.where(c < 0, jnp.where(b < 0, 3, 2), jnp.where(b >= 0, 1, 0))
    case = jnp.where(flat, 4, case)

    split = r / safe_c
    low_a, high_a = jnp.where(c < 0, 0.0, split), jnp.where(c < 0, split, jnp.inf)
    low_b, high_b = jnp.where(c < 0, split, 0.0), jnp.where(c < 0, jnp.inf, split)
    lam_a = jnp.maximum(jnp.maximum(low_a, 0.0), jnp.minimum(high_a, jnp.sqrt(a / jnp.maximum(b, tiny))))
    lam_b = jnp.maximum(jnp.maximum(low_b, 0.0), jnp.minimum(high_b, jnp.sqrt(q / (2 * delta))))
    dual_a = -0.5 * (a / (lam_a + tiny) + b * lam_a) - r * c / safe_s
    dual_a = jnp.where(low_a <= high_a, dual_a, -jnp.inf)
    dual_b = -0.5 * (q / (lam_b + tiny) + 2 * delta * lam_b)
    lam = jnp.where(dual_a >= dual_b, lam_a, lam_b)
    nu = jnp.maximum(lam * c - r, 0.0) / safe_s
    plain, recover = case >= 3, case == 0
    lam = jnp.where(plain, jnp.sqrt(q / (2 * delta)), jnp.where(recover, 0.0, lam))
    nu = jnp.where(plain, 0.0, jnp.where(recover, jnp.sqrt(2 * delta / safe_s), nu))
    return Dual(lam, nu, case)


def cpo_direction(x, p, q, r, s, c, delta: float):
    """CPO's step from x = H^-1 g and p = H^-1 b, and its case; see `cpo_dual`."""
    lam, nu, case = cpo_dual(q, r, s, c, delta)
    return jnp.where(case == 0, -nu * p, (x - nu * p) / jnp.maximum(lam, 1e-12)), case


def pcpo_direction(x, p, q, r, s, c, delta: float):
    """PCPO's step: natural gradient of length delta, then projection (in the Fisher metric) onto the constraint.

        sqrt(2 delta / q) x - max(0, (sqrt(2 delta / q) r + c) / s) p

    Source: Yang et al. 2020, https://arxiv.org/abs/2010.03152, eq. 6. Deviation from OmniSafe and SafePO, which use H x
    where x = H^-1 g is meant.
    """
    length = jnp.sqrt(2 * delta / (q + 1e-8))
    return length * x - jnp.maximum(0.0, (length * r + c) / (s + 1e-8)) * p, jnp.int32(1)


def _constrained(direction_of, delta: float, damping: float, cg_iterations: int, tries: int) -> PolicyStep:
    """CPO and PCPO: one linear constraint, the most violated of K (the others are left to later iterations).

    The linear model is c + b.x with c = J_c - limit per episode and b the gradient of the cost surrogate per *step*, as
    in OmniSafe: a violation of more than a fraction of one cost unit is met by a pure recovery step. With c divided by
    the episode length, as dimensions ask for, the reduction that the model predicts is within the noise of b (measured
    on SafetyPointGoal1-v0: always case 1, and the cost stays at 49 against a limit of 25 for 5.5e6 steps).
    """

    def update(key, params, state, problem, learning_rate):
        del key, learning_rate
        rows, length = problem.everything, problem.episode_length
        worst = jnp.argmax(problem.excess)
        c = problem.excess[worst]
        curvature = _curvature(params, problem, damping, cg_iterations)

        def reward_loss(p):
            return problem.reward_loss(curvature.unravel(p), rows)

        def cost(p):
            return problem.cost_change(curvature.unravel(p), rows)[worst] / length

        before, descent = jax.value_and_grad(reward_loss)(curvature.flat)
        g, b = -descent, jax.grad(cost)(curvature.flat)
        x, p = curvature.solve(g), curvature.solve(b)
        hx = curvature.product(x)
        direction, case = direction_of(x, p, x @ hx, p @ hx, p @ curvature.product(p), c, delta)

        def accept(candidate):
            flat = ravel_pytree(candidate)[0]
            new = reward_loss(flat)
            improves = (case <= 1) | (new <= before)
            within = (cost(flat) <= jnp.maximum(-c, 0.0)) & (problem.kl(candidate, rows) <= delta)
            return jnp.isfinite(new) & improves & within

        params, fraction = _line_search(curvature, direction, accept, tries=tries)
        kl = problem.kl(params, rows)
        return params, state, {"policy_loss": before, "step": fraction, "case": case.astype(jnp.float32), "kl": kl}

    return PolicyStep(lambda params: (), update)


def cpo(delta: float, *, damping: float, cg_iterations: int = 15, tries: int = 20) -> PolicyStep:
    """Constrained policy optimisation (https://arxiv.org/abs/1705.10528); arguments as in `trust_region`."""
    return _constrained(cpo_direction, delta, damping, cg_iterations, tries)


def pcpo(delta: float, *, damping: float, cg_iterations: int = 15, tries: int = 200) -> PolicyStep:
    """Projection-based constrained policy optimisation (https://arxiv.org/abs/2010.03152).

    The projection grows with the excess of the cost, and the line search has to shrink it to the trust region: from an
    excess of 100 by three orders of magnitude, which 20 tries do not.
    """
    return _constrained(pcpo_direction, delta, damping, cg_iterations, tries)
