"""A small constrained Markov decision process as an environment, and its optima by linear programming and recursion."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linprog

from jaxalign.core.types import Env, EnvSpec, TimeStep

STRETCH = 1.1  # certainty lies just within the range of actions, where squashed actors still have a slope


class Table(NamedTuple):
    """Four states or so, two choices (0 timid, 1 bold), T steps."""

    reward: np.ndarray  # [S, 2]
    cost: np.ndarray  # [S, 2], 0 or 1
    follow: np.ndarray  # [S, 2, S], probability of the next state
    start: np.ndarray  # [S]
    horizon: int
    noise: float = 0.0  # standard deviation that is added to rewards: it keeps the spread of advantages from vanishing


class Optimum(NamedTuple):
    """Return and cost per episode of the best policy, and what one more unit of cost would add to the return."""

    total: float
    cost: float
    price: float


def optimum(table: Table, limit: float = np.inf) -> Optimum:
    """The best of all policies that see state and time, with an expected cost of at most `limit`.

    Linear programme over the probabilities x[t, s, u] of being at time t in state s and choosing u, undiscounted:

        maximise sum x reward  with  sum x cost <= limit,  sum_u x[0, s, u] = start[s],
        sum_u x[t + 1, s', u] = sum_su x[t, s, u] follow[s, u, s'],  x >= 0
    """
    states, horizon = len(table.start), table.horizon
    flow = np.zeros((horizon, states, horizon, states, 2))
    for t in range(horizon):
        flow[t, np.arange(states), t, np.arange(states)] = 1.0
        if t:
            flow[t, :, t - 1] = -np.moveaxis(table.follow, -1, 0)
    mass = np.zeros((horizon, states))
    mass[0] = table.start
    reward, cost = (np.tile(x.ravel(), horizon) for x in (table.reward, table.cost))
    bound = [min(limit, horizon)]
    solved = linprog(-reward, cost[None], bound, flow.reshape(horizon * states, -1), mass.ravel(), method="highs")
    assert solved.success, solved.message
    return Optimum(-solved.fun, float(cost @ solved.x), float(-solved.ineqlin.marginals[0]))


def sure_optimum(table: Table, limit: float) -> float:
    """The return of the best policy whose cost exceeds `limit` in no episode, which sees what it has spent."""
    budget = int(np.floor(limit))
    value = np.zeros((len(table.start), budget + 1))  # by state and what is left
    for _ in range(table.horizon):
        future = np.einsum("sun,nb->sub", table.follow, value)
        choice = np.full((len(table.start), 2, budget + 1), -np.inf)
        for s, u in np.ndindex(table.cost.shape):
            spent = int(table.cost[s, u])
            choice[s, u, spent:] = table.reward[s, u] + future[s, u, : budget + 1 - spent]
        value = choice.max(axis=1)
    return float(table.start @ value[:, budget])


def terminated_optimum(table: Table, limit: float, restarts: int = 5) -> float:
    """The best return of policies that see state and time but not what is spent, where exceeding `limit` ends it all.

    The step that exceeds the limit earns nothing, nor does any after it. The return is linear in each single chance of
    the bold choice, as a time comes once in an episode: so the best policy is found among those that do not mix, by
    changing one choice at a time from several random beginnings.
    """
    budget, random = int(np.floor(limit)), np.random.default_rng(0)
    states = np.arange(len(table.start))

    def value_of(bold):  # [T, S]
        value = np.zeros((len(states), budget + 1))
        for row in bold[::-1]:
            chosen = np.zeros_like(value)
            for s in states:
                spent = int(table.cost[s, row[s]])
                future = table.follow[s, row[s]] @ value[:, : budget + 1 - spent]
                chosen[s, spent:] = table.reward[s, row[s]] + future
            value = chosen
        return float(table.start @ value[:, budget])

    def climb(bold):
        best, improved = value_of(bold), True
        while improved:
            improved = False
            for at in np.ndindex(bold.shape):
                bold[at] = 1 - bold[at]
                value = value_of(bold)
                if value > best + 1e-12:
                    best, improved = value, True
                else:
                    bold[at] = 1 - bold[at]
        return best

    return max(climb(random.integers(0, 2, (table.horizon, len(states)))) for _ in range(restarts))


class Place(NamedTuple):
    """Where an episode is."""

    state: jax.Array
    time: jax.Array
    key: jax.Array


def environment(table: Table) -> Env:
    """The chance of the bold choice is (1 + STRETCH action) / 2 within [0, 1]: any policy of the table is one here.

    The observation says state (one-hot) and time. Episodes terminate after T steps.
    """
    states = len(table.start)
    spec = EnvSpec("Table", (("state", states), ("time", 1)), (-1.0,), (1.0,), ("cost",), table.horizon, 1.0, "none")
    reward, cost, follow = (jnp.asarray(x, jnp.float32) for x in (table.reward, table.cost, table.follow))

    def observe(place):
        return jnp.append(jax.nn.one_hot(place.state, states), place.time / table.horizon)

    def reset(key):
        place = Place(jax.random.choice(key, states, p=jnp.asarray(table.start)), jnp.int32(0), key)
        return place, observe(place)

    def step(place, action):
        key, to_choose, to_follow, to_blur = jax.random.split(place.key, 4)
        bold = jax.random.bernoulli(to_choose, jnp.clip(0.5 * (1.0 + STRETCH * action[0]), 0.0, 1.0)).astype(jnp.int32)
        at = place.state, bold
        after = Place(jax.random.choice(to_follow, states, p=follow[at]), place.time + 1, key)
        over, costs = after.time >= table.horizon, cost[at][None]
        earned = reward[at] + table.noise * jax.random.normal(to_blur)
        return after, TimeStep(observe(after), earned, costs, over, jnp.bool_(False), {"cost": costs[0]})

    return Env(reset, step, spec)
