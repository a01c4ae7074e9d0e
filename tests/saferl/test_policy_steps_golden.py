"""Policy steps and surrogates: OmniSafe's recorded numbers where it is right, the programme to be solved elsewhere.

Where double precision is needed to tell an error from rounding, tests ask for the fixture `x64`.
"""

import functools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from recorded_policy import TRUST, dist_of, problem_of, recorded, recorded_actor, recorded_gradients, to_flat, to_params
from scipy.optimize import minimize

from jaxalign.core import Gaussian
from jaxalign.saferl import policy_steps
from jaxalign.saferl.constraints import unconstrained
from jaxalign.saferl.estimators import gae
from jaxalign.saferl.onpolicy import CriticFit, Parts, make_problem
from jaxalign.saferl.policy_steps import Problem, cpo, cpo_direction, cpo_dual, first_order, pcpo, trust_region
from jaxalign.saferl.rollout import Transition
from jaxalign.saferl.surrogates import clipped, ratio

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


# --- conjugate gradients


def iterates(data, iterations):
    def solve(h, b):
        return policy_steps.conjugate_gradient(lambda v: h @ v, b, iterations)

    return np.asarray(jax.jit(jax.vmap(solve))(jnp.asarray(data["H"]), jnp.asarray(data["b"])))


def test_conjugate_gradients_solve_the_recorded_systems(x64):
    data = recorded("conjugate_gradients")
    for h, b, x, exact in zip(data["H"], data["b"], iterates(data, 15), data["x_exact"], strict=True):
        assert np.linalg.norm(h @ x - b) <= 1e-5  # where it stops
        assert np.linalg.norm(x - exact) <= 1e-5 / np.linalg.eigvalsh(h)[0]  # and what follows from that


# The recorded iterates have 1e-6 added to both denominators. That is nothing at first, and keeps the last ones, whose
# residuals are as small, away from the solution: the recorded x_10 and x_15 are 6.6e-4 and 4.7e-4 off x_exact.
@pytest.mark.parametrize(("iterations", "tolerance"), [(3, 1e-5), (10, 7e-4), (15, 5e-4)])
def test_conjugate_gradients_take_the_recorded_iterations(iterations, tolerance, x64):
    data = recorded("conjugate_gradients")
    np.testing.assert_allclose(iterates(data, iterations), data[f"x_{iterations}"], rtol=0, atol=tolerance)


# --- the programme of CPO, and the projection of PCPO


def moments(g, b, h, c):
    """The arguments of the directions but delta: x, p, q, r, s, c."""
    x, p = np.linalg.solve(h, g), np.linalg.solve(h, b)
    return x, p, g @ x, g @ p, b @ p, c


@functools.cache
def compiled(function, delta):
    return jax.jit(jax.vmap(lambda *arguments: function(*arguments, delta)))


def mapped(function, problems, skip=0):
    """`function` of all problems (g, b, H, c, delta), without the first `skip` moments; delta is static."""
    results = [None] * len(problems)
    for delta in {problem[4] for problem in problems}:
        index = [i for i, problem in enumerate(problems) if problem[4] == delta]
        arguments = zip(*(moments(*problems[i][:4])[skip:] for i in index), strict=True)
        out = compiled(function, delta)(*(jnp.asarray(np.stack(x), jnp.asarray(1.0).dtype) for x in arguments))
        for number, i in enumerate(index):
            results[i] = [np.asarray(x[number], np.float64) if np.ndim(x) else x for x in out]
    return [np.stack(x) for x in zip(*results, strict=True)]


def directions(direction, problems):
    """Steps and cases, stacked."""
    return mapped(direction, problems)


def duals(problems):
    """Multipliers lam and nu, and cases, stacked."""
    return mapped(cpo_dual, problems, skip=2)


def solved(g, b, h, c, delta):
    """Maximise g.x subject to c + b.x <= 0 and x.Hx / 2 <= delta, or minimise b.x if no x meets both; by SLSQP."""
    root = np.linalg.cholesky(h)
    scale = np.sqrt(2 * delta)
    g, b = scale * np.linalg.solve(root, g), scale * np.linalg.solve(root, b)  # x.Hx / 2 <= delta is y.y <= 1
    size = max(np.linalg.norm(b), 1e-300)
    c, b, g = c / size, b / size, g / max(np.linalg.norm(g), 1e-300)
    constraints = [{"type": "ineq", "fun": lambda y: 1.0 - y @ y, "jac": lambda y: -2.0 * y}]
    objective = b if c > 1.0 else -g
    if c <= 1.0:
        constraints.append({"type": "ineq", "fun": lambda y: -c - b @ y, "jac": lambda y: -b})
    # SLSQP sometimes stops early, so the best of three
    candidates = [
        minimize(
            lambda y: objective @ y,
            start,
            jac=lambda y: objective,
            constraints=constraints,
            method="SLSQP",
            options={"ftol": 1e-15, "maxiter": 500},
        ).x
        for start in (np.zeros_like(g), 0.5 * (g - b), -b)
    ]
    feasible = [y for y in candidates if all(constraint["fun"](y) >= -1e-9 for constraint in constraints)]
    return scale * np.linalg.solve(root.T, min(feasible, key=lambda y: objective @ y))


def golden_problems(data):
    delta = float(data["target_kl"])
    return [(g, b, h, float(c), delta) for g, b, h, c in zip(data["g"], data["b"], data["H"], data["c"], strict=True)]


def random_problems(number):
    """Random programmes; every third has nearly parallel gradients, so that the constraint matters more, or less."""
    rng = np.random.default_rng(0)
    for i in range(number):
        basis, _ = np.linalg.qr(rng.standard_normal((6, 6)))
        h = (basis * rng.uniform(0.2, 3.0, 6)) @ basis.T
        g, b = (rng.standard_normal(6) * np.exp(rng.normal()) for _ in range(2))
        if i % 3 == 1:
            b = rng.choice([-1.0, 1.0]) * np.exp(rng.normal()) * g + 0.3 * b
        delta = float(rng.choice([0.01, 0.02, 0.1]))
        # in units of the largest reduction within the trust region; at +-1 it is touched in one point
        distance = rng.choice([-1.0, 1.0]) * rng.choice([rng.uniform(0.0, 0.98), rng.uniform(1.02, 2.0)])
        if i % 20 == 0:
            distance = 0.0
        c = distance * np.sqrt(2 * delta * b @ np.linalg.solve(h, b))
        yield (g, 1e-6 * b, h, -1.0, delta) if i % 20 == 5 else (g, b, h, c, delta)


def test_cpo_solves_the_recorded_problems(x64):
    data = recorded("cpo")
    problems = golden_problems(data)
    step, case = directions(cpo_direction, problems)
    assert Counter(case.tolist()) == {4: 2, 3: 6, 2: 6, 1: 8, 0: 6}
    np.testing.assert_array_equal(case, data["ref_case"])
    np.testing.assert_allclose(step, data["ref_step"], rtol=1e-9, atol=1e-12)
    feasible = case != 0  # the recorded solution of the others is NaN
    np.testing.assert_allclose(step[feasible], data["exact_step"][feasible], rtol=1e-7, atol=1e-8)
    lam, nu, _ = duals(problems)
    np.testing.assert_allclose(lam, data["ref_lambda"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(nu, data["ref_nu"], rtol=1e-9, atol=1e-12)


def test_cpo_agrees_with_omnisafe_only_where_omnisafe_is_right(x64):
    data = recorded("cpo")
    step, case = directions(cpo_direction, golden_problems(data))
    error = np.abs(step - data["step"]).max(axis=1)
    right = np.isin(case, [0, 3, 4])
    assert error[right].max() < 1e-4  # its conjugate gradients stop after 10 iterations and have an epsilon
    assert error[~right].min() > 1e-3


def test_cpo_solves_the_recorded_problems_in_single_precision():
    data = recorded("cpo")
    step, case = directions(cpo_direction, golden_problems(data))
    np.testing.assert_array_equal(case, data["ref_case"])
    np.testing.assert_allclose(step, data["ref_step"], **CLOSE)


def test_cpo_solves_random_programmes(x64):
    problems = list(random_problems(240))
    step, case = directions(cpo_direction, problems)
    active = duals(problems)[1] > 0
    counts = Counter(zip(case.tolist(), active.tolist(), strict=True))
    # every case, and the constraint both active and inactive where it may be either
    assert set(counts) == {(4, False), (3, False), (2, False), (2, True), (1, False), (1, True), (0, True)}
    assert min(counts.values()) >= 8
    for x, problem in zip(step, problems, strict=True):
        expected = solved(*problem)
        # SLSQP finds the solution to the root of the machine epsilon
        np.testing.assert_allclose(x, expected, rtol=0, atol=1e-7 * np.abs(expected).max())


def test_cpo_steps_use_the_whole_trust_region_and_keep_the_linear_constraint(x64):
    problems = list(random_problems(240))
    for x, case, (_, b, h, c, delta) in zip(*directions(cpo_direction, problems), problems, strict=True):
        np.testing.assert_allclose(x @ h @ x / 2, delta, rtol=1e-9)
        reduction = np.sqrt(2 * delta * b @ np.linalg.solve(h, b))
        assert c + b @ x <= (c - reduction if case == 0 else 0.0) + 1e-9 * reduction


@pytest.mark.parametrize("distance", [-0.5, -0.1, 0.1, 0.5])
@pytest.mark.parametrize("alignment", [-2.0, 2.0])
@pytest.mark.parametrize("noise", [0.0, 1e-5, 1e-4, 1e-3])
def test_cpo_survives_gradients_that_are_almost_parallel(noise, alignment, distance):
    """Reward and cost that say the same, or the opposite: q - r^2 / s is then below single precision.

    A thousandth of the largest improvement is all that rounding may cost.
    """
    rng = np.random.default_rng(3)
    problems = []
    for _ in range(50):
        basis, _ = np.linalg.qr(rng.standard_normal((6, 6)))
        h = (basis * rng.uniform(0.2, 3.0, 6)) @ basis.T
        g = rng.standard_normal(6)
        b = alignment * g + noise * rng.standard_normal(6)
        problems.append((g, b, h, distance * np.sqrt(2 * 0.02 * b @ np.linalg.solve(h, b)), 0.02))
    steps, _ = directions(cpo_direction, problems)
    for x, (g, b, h, c, delta) in zip(steps, problems, strict=True):
        q, r, s = (v @ np.linalg.solve(h, w) for v, w in ((g, g), (g, b), (b, b)))
        gain, reduction, cosine = np.sqrt(2 * delta * q), np.sqrt(2 * delta * s), r / np.sqrt(q * s)
        # the plane of g and b in the metric of H: the best point of the unit disk, or of the chord that is cut off it
        best = 1.0 if cosine <= -distance else np.sqrt((1 - cosine**2) * (1 - distance**2)) - distance * cosine
        assert x @ h @ x / 2 <= 1.25 * delta  # the line search mends what is left
        assert c + b @ x <= 1e-3 * reduction
        assert g @ x >= (best - 1.5e-3) * gain


def test_pcpo_projects_as_in_the_paper(x64):
    data = recorded("pcpo")
    step, _ = directions(policy_steps.pcpo_direction, golden_problems(data))
    # 1e-8 is added to q and s, which are of order 1 or larger
    np.testing.assert_allclose(step, data["step_paper"], rtol=1e-7, atol=1e-7)


def test_pcpo_projects_as_in_the_paper_in_single_precision():
    data = recorded("pcpo")
    step, _ = directions(policy_steps.pcpo_direction, golden_problems(data))
    np.testing.assert_allclose(step, data["step_paper"], **CLOSE)


# --- a recorded actor: 5-16-16-3, tanh, and a standard deviation that does not see the observation


def test_parameters_map_there_and_back():
    data = recorded("second_order_full")
    np.testing.assert_array_equal(to_flat(to_params(data, data["theta_before"])), data["theta_before"])
    np.testing.assert_array_equal(to_flat(recorded_actor(data)), data["theta_before"])


def test_the_gaussian_is_torchs():
    data = recorded("policy_losses")
    new = dist_of(recorded_actor(data), jnp.asarray(data["obs"]))
    old = Gaussian(jnp.asarray(data["old_mean"]), jnp.log(data["old_std"]))
    action = jnp.asarray(data["act"])
    np.testing.assert_allclose(new.mean, data["mean_new"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(jnp.exp(new.log_std), data["std_new"], rtol=1e-6)
    np.testing.assert_allclose(new.log_prob(action), data["logp_new"], rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(old.log_prob(action), data["logp_old"], rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(new.kl(old), data["kl_new_old"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(old.kl(new), data["kl_old_new"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(new.entropy().mean() / 3, data["entropy_mean"], rtol=1e-6)  # recorded per component


def test_gaussian_samples_have_its_moments():
    mean, log_std = jnp.array([1.0, -2.0]), jnp.array([-1.0, 0.5])
    wide = Gaussian(jnp.broadcast_to(mean, (40_000, 2)), jnp.broadcast_to(log_std, (40_000, 2)))
    z = (wide.sample(jax.random.key(0)) - mean) / jnp.exp(log_std)
    # five standard errors
    np.testing.assert_allclose(z.mean(0), 0.0, atol=0.025)
    np.testing.assert_allclose(z.T @ z / len(z), np.eye(2), atol=0.036)


@pytest.mark.parametrize(
    ("name", "surrogate", "advantage"),
    [
        ("ppo_clip", clipped(0.2), "adv_r"),
        ("pg", ratio(), "adv_r"),
        ("cost_surrogate_cpo", lambda *samples: -ratio()(*samples), "adv_c"),
    ],
)
def test_surrogates_have_the_recorded_value_and_gradient(name, surrogate, advantage):
    data = recorded("policy_losses")
    assert ((data["ratio"] < 0.8) | (data["ratio"] > 1.2)).sum() > 5  # clipping matters

    def loss(params):
        log_ratio = dist_of(params, jnp.asarray(data["obs"])).log_prob(jnp.asarray(data["act"])) - data["logp_old"]
        return surrogate(log_ratio, jnp.asarray(data[advantage]), jnp.zeros(64))

    value, gradient = jax.jit(jax.value_and_grad(loss))(recorded_actor(data))
    np.testing.assert_allclose(value, data[f"loss_{name}"], rtol=1e-6)
    np.testing.assert_allclose(to_flat(gradient), data[f"grad_{name}"], rtol=1e-5, atol=2e-6)


def test_the_fisher_product_is_the_recorded_one():
    data, actor = recorded("policy_losses"), recorded("second_order_full")
    np.testing.assert_array_equal(data["obs"], actor["obs"])
    params, problem = problem_of(actor, 25.0)

    def product_with(vector):
        curvature = policy_steps._curvature(params, problem, TRUST["damping"], 15)
        return curvature.unravel(curvature.product(ravel_pytree(vector)[0]))

    product = to_flat(jax.jit(product_with)(to_params(data, data["fvp_vec"]))) / 3
    np.testing.assert_allclose(product, data["fvp_out_damping0.1"], rtol=1e-5, atol=1e-6)
    assert np.abs(product - 0.1 * data["fvp_vec"]).max() > 1.0  # not only damping


@functools.cache
def compiled_update(make, cg_iterations, x64):
    """The excess to the new parameters and diagnostics, for the recorded batch."""
    params, problem = problem_of(recorded("second_order_full"), 25.0)
    step = make(**TRUST, cg_iterations=cg_iterations)

    def run(params, excess):
        return step.update(None, params, step.init(params), problem._replace(excess=excess), None)

    compiled = jax.jit(run)
    return lambda cost: compiled(params, jnp.asarray([cost - 25.0], problem.excess.dtype))


def whole_update(make, cost, cg_iterations=15):
    new, state, info = compiled_update(make, cg_iterations, jax.config.jax_enable_x64)(cost)
    assert state == ()
    return new, {name: float(x) for name, x in info.items()}


FULL = {
    "trpo": (trust_region, 25.0, {}),
    "cpo_Jc5": (cpo, 5.0, {"case": 3}),
    "cpo_Jc40": (cpo, 40.0, {"case": 0}),
}


def check_whole_updates(atol, atol_kl):
    data = recorded("second_order_full")
    for name, (make, cost, expected) in FULL.items():
        new, info = whole_update(make, cost)
        np.testing.assert_allclose(to_flat(new), data[f"theta_after_{name}"], rtol=0, atol=atol, err_msg=name)
        assert np.abs(data[f"theta_after_{name}"] - data["theta_before"]).max() > 0.07
        assert info["step"] == 1.0
        kl = "trpo_final_kl" if name == "trpo" else f"{name}_kl"
        np.testing.assert_allclose(info["kl"] / 3, data[kl], rtol=0, atol=atol_kl)
        np.testing.assert_allclose(info["policy_loss"], -np.mean(data["adv_r"], dtype=float), atol=1e-6)
        assert {key: info[key] for key in expected} == expected


@pytest.fixture
def their_gradients(monkeypatch):
    compiled_update.cache_clear()
    monkeypatch.setattr(policy_steps, "conjugate_gradient", recorded_gradients)
    yield
    compiled_update.cache_clear()


@pytest.mark.usefixtures("their_gradients", "x64")
def test_whole_updates_are_the_recorded_ones():
    """With OmniSafe's conjugate gradients, everything else is the same to single precision."""
    # a KL in single precision is a difference of numbers of order 1
    check_whole_updates(atol=2e-6, atol_kl=5e-7)


def test_whole_updates_are_near_the_recorded_ones():
    """As they are, in single precision.

    The epsilon in OmniSafe's conjugate gradients (see above) makes, after 15 iterations that do not converge, 1.2e-4 of
    a step whose largest component is 8e-2, and 5e-6 of the KL; rounding within those iterations is of the same size.
    """
    check_whole_updates(atol=2e-4, atol_kl=1e-5)


@functools.cache
def dense():
    """Gradients g and b, the Fisher matrix, and the flat parameters of the recorded batch, in double precision."""
    with jax.enable_x64(True):
        params, problem = problem_of(recorded("second_order_full"), 25.0)
        flat, unravel = ravel_pytree(params)

        def everything(flat):
            rows, curvature = problem.everything, policy_steps._curvature(params, problem, TRUST["damping"], 0)
            g = -jax.grad(lambda p: problem.reward_loss(unravel(p), rows))(flat)
            b = jax.grad(lambda p: problem.cost_change(unravel(p), rows)[0])(flat)
            return g, b, jax.vmap(curvature.product)(jnp.eye(flat.size))

        g, b, h = jax.jit(everything)(flat)
    np.testing.assert_allclose(h, h.T, atol=1e-12)
    return [np.asarray(x) for x in (g, b, h, flat)]


@pytest.mark.parametrize(("cost", "case"), [(25.03, 1), (24.97, 2)])
def test_cpo_solves_the_programme_where_omnisafe_does_not(cost, case, x64):
    """The constraint cuts the trust region: OmniSafe's recorded steps there are wrong and must not be matched."""
    data = recorded("second_order_full")
    g, b, h, flat = dense()
    # the solution is a combination of H^-1 g and H^-1 b: whatever else would only lengthen it
    basis = np.linalg.solve(h, np.stack([g, b], -1))
    weights = solved(basis.T @ g, basis.T @ b, basis.T @ h @ basis, cost - 25.0, TRUST["delta"])
    new, info = whole_update(cpo, cost, cg_iterations=300)
    assert info["case"] == case
    assert info["step"] == 1.0
    np.testing.assert_allclose(ravel_pytree(new)[0] - flat, basis @ weights, rtol=0, atol=1e-6)
    assert np.abs(to_flat(new) - data[f"theta_after_cpo_Jc{cost}"]).max() > 1e-2


@pytest.mark.parametrize("cost", [5.0, 24.97, 25.03, 25.2])
def test_pcpo_takes_its_step_on_the_recorded_batch(cost, x64):
    g, b, h, flat = dense()
    x, p = np.linalg.solve(h, np.stack([g, b], -1)).T
    length = np.sqrt(2 * TRUST["delta"] / (g @ x))
    step = length * x - max(0.0, (length * g @ p + cost - 25.0) / (b @ p)) * p
    new, info = whole_update(pcpo, cost, cg_iterations=300)
    assert info["step"] > 0.0
    np.testing.assert_allclose(ravel_pytree(new)[0] - flat, info["step"] * step, rtol=0, atol=1e-6)


def test_make_problem_states_the_batch_as_recorded():
    data = recorded("second_order_full")
    before, after = (to_params(data, data[name]) for name in ("theta_before", "theta_after_trpo"))
    arrays = [data[name] for name in ("obs", "act", "logp_old")]
    obs, action, log_prob = (jnp.asarray(x.reshape(32, 2, *x.shape[1:])) for x in arrays)
    zeros, never = jnp.zeros((32, 2)), jnp.zeros((32, 2), bool)
    batch = Transition(obs, action, log_prob, obs, zeros, zeros, zeros[..., None], never, never)
    advantage = np.stack([data["adv_r"], data["adv_c"]], -1).reshape(32, 2, 2)
    step = first_order(optax.sgd(1.0), epochs=1, num_minibatches=1)
    parts = Parts(gae(0.99, 0.95), clipped(0.02), unconstrained(), step, CriticFit(1, 1, 1e-3))
    excess = jnp.array([-5.0])
    problem = make_problem(parts, dist_of, before, batch, jnp.asarray(advantage), (), excess, jnp.float32(250.0))
    assert problem.num_rows == 32

    everything = problem.everything
    assert float(problem.kl(before, everything)) == pytest.approx(0.0, abs=1e-7)
    np.testing.assert_allclose(problem.kl(after, everything) / 3, data["trpo_final_kl"], rtol=1e-5)

    rho = np.exp(np.asarray(dist_of(after, obs).log_prob(action) - log_prob, np.float64))
    reward = (advantage[..., 0] - advantage[..., 0].mean()) / advantage[..., 0].std()
    cost = advantage[..., 1] - advantage[..., 1].mean()

    @jax.jit
    def stated(params, rows):
        return problem.reward_loss(params, rows), *problem.loss(params, rows), problem.cost_change(params, rows)

    for rows in (np.arange(32), np.array([4, 0, 31])):
        r, a = rho[rows], reward[rows]
        reward_loss, loss, kl, change = stated(after, rows)
        np.testing.assert_allclose(reward_loss, -np.mean(r * a), rtol=1e-5)
        expected = -np.mean(np.minimum(r * a, np.clip(r, 0.98, 1.02) * a))
        np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(kl, problem.kl(after, rows), rtol=1e-6)
        # the ratio less one, known to 1e-7 absolutely, times 250
        np.testing.assert_allclose(change, [250.0 * np.mean((r - 1.0) * cost[rows])], rtol=1e-5, atol=3e-5)


# --- line search, several constraints, and descent, on problems of two parameters


def plane(curve=0.0, cost_curve=0.0, excess=(-1.0,), costs=((1.0, 0.0),), length=1.0):
    """KL = |p|^2 / 2 + curve |p|^4, reward p.(1, 2), cost per episode = length (costs.p + cost_curve |p|^2)."""
    costs = jnp.asarray(costs)

    def reward_loss(params, rows):
        return -params @ jnp.array([1.0, 2.0])

    def cost_change(params, rows):
        return length * (costs @ params + cost_curve * params @ params)

    def kl(params, rows):
        return 0.5 * params @ params + curve * (params @ params) ** 2

    def loss(params, rows):
        return reward_loss(params, rows), kl(params, rows)

    numbers = jnp.zeros(0), jnp.asarray(excess), jnp.asarray(length)
    return Problem(loss, reward_loss, cost_change, kl, kl, *numbers, 4)


def update(step, params, problem):
    new, state, info = jax.jit(lambda params: step.update(None, params, step.init(params), problem, None))(params)
    assert state == ()
    return new, {name: float(x) for name, x in info.items()}


def test_the_line_search_takes_the_first_point_within_the_trust_region(x64):
    delta, curve = 0.5, 3.0
    problem = plane(curve=curve)
    new, info = update(trust_region(delta, damping=0.0), jnp.zeros(2), problem)
    fractions = 0.8 ** np.arange(15)
    square = 2 * delta * fractions**2  # of the length of the step
    first = fractions[np.argmax(0.5 * square + curve * square**2 <= delta)]
    assert 0.0 < first < 0.8
    np.testing.assert_allclose(info["step"], first, rtol=1e-6)
    np.testing.assert_allclose(new, first * np.sqrt(2 * delta / 5) * np.array([1.0, 2.0]), rtol=1e-6)


@pytest.mark.parametrize("make", [trust_region, cpo, pcpo])
def test_without_an_acceptable_point_parameters_stay(make, x64):
    problem = plane(curve=1e120)
    start = jnp.zeros(2)
    new, info = update(make(0.5, damping=0.0), start, problem)
    np.testing.assert_array_equal(new, start)
    assert info["step"] == 0.0
    assert info["kl"] == 0.0


def test_a_rising_loss_is_not_accepted(x64):
    problem = plane()

    def worse(p, rows):
        return -p @ jnp.array([1.0, 2.0]) + 3.0 * p @ p

    curved = problem._replace(loss=lambda p, rows: (worse(p, rows), problem.kl(p, rows)))
    _, info = update(trust_region(0.5, damping=0.0), jnp.zeros(2), curved)
    # the loss along the step of length 1 is -sqrt(5) t + 3 t^2, which is negative below t = sqrt(5) / 3
    np.testing.assert_allclose(info["step"], 0.8**2, rtol=1e-6)
    curved = problem._replace(reward_loss=worse, excess=jnp.array([-50.0]))
    _, info = update(cpo(0.5, damping=0.0), jnp.zeros(2), curved)
    np.testing.assert_allclose(info["step"], 0.8**2, rtol=1e-6)


@pytest.mark.parametrize("length", [1.0, 10.0])
def test_the_cost_may_use_what_is_left_below_the_limit_but_no_more(length, x64):
    """Of the step t (1, 2) / sqrt 5 the predicted cost is t / sqrt 5 + 2 t^2 per step, and 1 per episode is left."""
    problem = plane(cost_curve=2.0, length=length)
    _, info = update(cpo(0.5, damping=0.0), jnp.zeros(2), problem)
    fractions = 0.8 ** np.arange(15)
    first = fractions[np.argmax(fractions / np.sqrt(5) + 2 * fractions**2 <= 1.0)]
    assert 0.0 < first < 0.8
    np.testing.assert_allclose(info["step"], first, rtol=1e-6)


@pytest.mark.parametrize("excess", [1.0, 100.0, 1e4])
def test_pcpo_recovers_however_far_above_the_limit(excess, x64):
    """The projection is as long as the excess; the line search finds the part of it that the trust region holds."""
    new, info = update(pcpo(0.5, damping=0.0), jnp.zeros(2), plane(excess=(excess,)))
    assert 0.8 * 0.5 <= info["kl"] / 0.8 <= 0.5 / 0.8
    assert info["kl"] <= 0.5
    assert new[0] < 0, "the cost falls"


def test_of_several_constraints_the_most_violated_counts(x64):
    costs, excess = ((1.0, 0.0), (-1.0, 1.0), (0.0, 1.0)), (-2.0, 0.3, 0.2)
    for make in (cpo, pcpo):
        together, _ = update(make(0.5, damping=0.0), jnp.zeros(2), plane(costs=costs, excess=excess))
        alone, _ = update(make(0.5, damping=0.0), jnp.zeros(2), plane(costs=costs[1:2], excess=excess[1:2]))
        np.testing.assert_allclose(together, alone, rtol=1e-9, atol=1e-12)
        assert float(together @ jnp.array([-1.0, 1.0])) <= -0.3 + 1e-6


def test_the_constraint_is_the_excess_per_episode_plus_a_gradient_per_step(x64):
    """As in OmniSafe, and on purpose: the length of an episode does not change the step."""
    short, _ = update(cpo(0.5, damping=0.0), jnp.zeros(2), plane(excess=(0.1,)))
    long, _ = update(cpo(0.5, damping=0.0), jnp.zeros(2), plane(excess=(0.1,), length=10.0))
    np.testing.assert_allclose(long, short, rtol=1e-9)
    np.testing.assert_allclose(short, [-0.1, np.sqrt(1 - 0.01)], rtol=1e-5)


def test_minibatches_are_a_random_partition():
    rows = policy_steps.minibatches(jax.random.key(0), 12, 3)
    assert rows.shape == (3, 4)
    np.testing.assert_array_equal(np.sort(rows.ravel()), np.arange(12))
    assert (np.asarray(rows).ravel() != np.arange(12)).any()
    assert (np.asarray(rows) != np.asarray(policy_steps.minibatches(jax.random.key(1), 12, 3))).any()


def descent(problem, target_kl, epochs=7, num_minibatches=2):
    step = first_order(optax.identity(), epochs=epochs, num_minibatches=num_minibatches, target_kl=target_kl)
    new, _, info = step.update(jax.random.key(0), jnp.zeros(2), step.init(jnp.zeros(2)), problem, jnp.float32(0.1))
    return new, info


def test_first_order_stops_beyond_the_target():
    """Every minibatch adds 0.1 (1, 2), so that the KL after n of them is 5 (0.1 n)^2 / 2 = 0.025 n^2."""
    new, info = descent(plane(), target_kl=0.5)
    np.testing.assert_allclose(new, [0.5, 1.0], rtol=1e-6)
    np.testing.assert_allclose(info["kl"], 0.025 * 5**2, rtol=1e-6)
    assert float(info["epochs"]) == 3.0
    new, info = descent(plane(), target_kl=np.inf)
    np.testing.assert_allclose(new, [1.4, 2.8], rtol=1e-6)
    assert float(info["epochs"]) == 7.0


def test_first_order_stops_for_good():
    """One time step sees the policy move, the others do not."""
    order = np.ravel(policy_steps.minibatches(jax.random.fold_in(jax.random.key(0), 0), 4, 4))
    seer = int(order[1])

    def loss(params, rows):
        return -params @ jnp.array([1.0, 2.0]), jnp.where(rows[0] == seer, params @ params, 0.0)

    new, info = descent(plane()._replace(loss=loss), target_kl=0.01, num_minibatches=4)
    np.testing.assert_allclose(new, [0.1, 0.2], rtol=1e-6)
    assert float(info["epochs"]) == 1.0


def test_first_order_sees_every_row_once_per_epoch():
    weights = jnp.array([[1.0, 0.0], [0.0, 10.0], [100.0, 0.0], [0.0, 1000.0]])
    problem = plane()._replace(loss=lambda params, rows: (-jnp.sum(weights[rows] @ params), jnp.float32(0.0)))
    new, _ = descent(problem, target_kl=np.inf, epochs=3)
    np.testing.assert_allclose(new, [0.3 * 101.0, 0.3 * 1010.0], rtol=1e-6)


def test_adam_clips_the_gradient_and_moves_by_the_learning_rate():
    optimiser, params = policy_steps.adam(max_grad_norm=1.0), jnp.zeros(2)
    state = optimiser.init(params)
    new, state = policy_steps.descend(optimiser, jnp.array([300.0, -400.0]), state, params, 0.01)
    np.testing.assert_allclose(new, [-0.01, 0.01], rtol=1e-5)
    np.testing.assert_allclose(state[1].mu, [0.1 * 0.6, -0.1 * 0.8], rtol=1e-5)
