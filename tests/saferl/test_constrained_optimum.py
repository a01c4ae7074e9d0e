"""Every algorithm on a constrained decision process whose optimum a linear programme knows.

Return and cost are averages over the last third of the training: multipliers circle their saddle point, and the mean of
policies is again a policy of the programme. That is not enough for the rows in `CIRCLING`, of which single trainings
ended between 0.80 and 1.00 of the optimum: there the average is over four trainings as well.

For on-policy rows rewards are blurred, so that the spread of advantages, by which they divide, stays put when a policy
has settled; the price of the constraint in units of that spread is then about 0.7, below 1, IPO's largest multiplier.
"""

import functools
from typing import NamedTuple

import jax
import numpy as np
import pytest
from tabular import Table, environment, optimum, sure_optimum, terminated_optimum

from jaxalign import saferl

TABLE = Table(
    reward=np.array([[1.0, 2.0], [1.0, 3.0], [0.5, 4.0], [0.0, 0.5]]),
    cost=np.array([[0, 1], [0, 1], [0, 1], [0, 0]]),
    follow=np.array(
        [
            [[0.5, 0.2, 0.2, 0.1], [0.2, 0.5, 0.2, 0.1]],
            [[0.5, 0.2, 0.1, 0.2], [0.1, 0.2, 0.6, 0.1]],
            [[0.3, 0.3, 0.1, 0.3], [0.2, 0.2, 0.2, 0.4]],
            [[0.4, 0.4, 0.1, 0.1], [0.1, 0.4, 0.4, 0.1]],
        ]
    ),
    start=np.array([0.4, 0.3, 0.2, 0.1]),
    horizon=10,
    noise=3.0,
)
LIMIT = 2.5
BLIND = ("policy_gradient", "natural_pg", "trpo", "ppo", "ddpg", "td3", "sac")
BUDGETED = ("ppo_saute", "trpo_saute", "ppo_simmer_pid", "trpo_simmer_pid")
TERMINATED = ("ppo_early_terminated", "trpo_early_terminated")
CIRCLING = ("ppo_lag", "trpo_lag", "rcpo", "cppo_pid", "trpo_pid", "focops", "cup", "cup_safepo")
BY_DEFAULT = ("cpo",)
ROWS = [name if name in BY_DEFAULT else pytest.param(name, marks=pytest.mark.slow) for name in saferl.names()]

ON = {"num_envs": 64, "rollout_length": 20, "hidden": (32,)}
SLOWLY = {"learning_rate": 3e-4, "decay_learning_rate": False}
OFF = {"num_envs": 16, "rollout_length": 20, "hidden": (32, 32), "batch_size": 64, "update_to_data": 1 / 8}
OFF |= {"capacity": 400_000, "random_steps": 1000, "multiplier_steps": 2000, "averaging": 0.02}
OFF |= {"critic_learning_rate": 1e-3}  # that of the actor stays low: faster ones drive tanh where it has no slope


class Goal(NamedTuple):
    """The return of the best policy that the algorithm can aim at, and the cost per episode that it may have."""

    total: float
    cost: float


@functools.cache
def goal(name) -> Goal:
    if name in BLIND:
        return Goal(optimum(TABLE).total, np.inf)
    if name == "on_crpo":  # holds the cost below limit + tolerance
        return Goal(optimum(TABLE, LIMIT + 2.0).total, LIMIT + 2.0)
    if name in BUDGETED:  # hold the limit in every episode, not on average
        return Goal(sure_optimum(TABLE, LIMIT), LIMIT)
    if name in TERMINATED:  # likewise, without seeing what they have spent
        return Goal(terminated_optimum(TABLE, LIMIT), LIMIT)
    return Goal(optimum(TABLE, LIMIT).total, LIMIT)


def train(name, mesh):
    """Mean return and cost over the last third of the iterations, and over four trainings if the row is `CIRCLING`."""
    if isinstance(saferl.CATALOGUE[name].config, saferl.OffPolicyConfig):
        # multipliers move once an iteration; PID gains are a tenth of the Lagrange rate, so its iterations are short
        length, iterations = (2, 12_000) if name.endswith("pid") else (20, 300 if name in BLIND else 1500)
        config, table = saferl.OffPolicyConfig(**OFF | {"rollout_length": length}), TABLE._replace(noise=0.0)
    elif name == "pdo":
        config, iterations, table = saferl.OnPolicyConfig(**ON | SLOWLY), 1200, TABLE
    else:
        config, iterations, table = saferl.OnPolicyConfig(**ON), 400, TABLE
    learner = saferl.make(name, environment(table), (LIMIT,), total_iterations=iterations, config=config, mesh=mesh)

    def run(key):
        return jax.lax.scan(lambda s, _: learner.step(s), learner.init(key), None, length=iterations)[1]

    seed = jax.random.key(1)
    info = jax.jit(jax.vmap(run))(jax.random.split(seed, 4)) if name in CIRCLING else jax.jit(run)(seed)
    last = slice(-(iterations // 3), None)
    return float(info.episode_return[..., last].mean()), float(info.episode_cost[..., last, 0].mean())


def test_the_limit_matters():
    """The problem is worth its name: unconstrained, the cost is three times the limit; without any, half the return."""
    free, bound, timid = optimum(TABLE), optimum(TABLE, LIMIT), optimum(TABLE, 0.0)
    assert free.cost > 3 * LIMIT
    assert bound.cost == pytest.approx(LIMIT)
    assert timid.total < 0.55 * bound.total < 0.55 * 0.65 * free.total
    assert timid.total < terminated_optimum(TABLE, LIMIT) < sure_optimum(TABLE, LIMIT) < bound.total


def test_programme_and_recursion_agree():
    """Without limit all three optima are the same one; with limit 0 as well."""
    for limit, total in ((TABLE.horizon, optimum(TABLE).total), (0.0, optimum(TABLE, 0.0).total)):
        assert sure_optimum(TABLE, limit) == pytest.approx(total)
        assert terminated_optimum(TABLE, limit) == pytest.approx(total)


@pytest.mark.parametrize("name", ROWS)
def test_learns_the_constrained_optimum(name, one_device):
    total, cost = train(name, one_device)
    print(f"{name}: return {total:.2f} of {goal(name).total:.2f}, cost {cost:.2f} of {goal(name).cost:.2f}")
    assert cost <= goal(name).cost + 0.1 * LIMIT
    if name == "pdo":
        # The policy gradient, without clipping or trust region, lags behind a multiplier that moves by 0.1 an
        # iteration: its cost swings from 0.4 to 3.4 and is below the limit on average, so what that cost allows counts.
        assert total >= 0.9 * optimum(TABLE, cost).total
        assert total >= 0.85 * goal(name).total
    else:
        assert total >= 0.9 * goal(name).total
    assert total <= optimum(TABLE, cost).total + 0.4, "four standard errors above what that cost allows"
    if name in BLIND:
        assert cost > 2 * LIMIT
