"""Small environments with known answers (tests/ is on the import path)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxalign.core.types import Env, EnvSpec, TimeStep


class ProbeState(NamedTuple):
    obs: jax.Array
    time: jax.Array


def probe(
    name,
    reward,
    cost=lambda obs, action: jnp.zeros(1),
    horizon=1,
    draw=lambda key: jnp.zeros(1),
    terminal=True,
    clock=1.0,
    hidden=False,
):
    """A one-dimensional world: `reward(obs, action)`, `cost(obs, action)` [K]; obs is redrawn only at a reset.

    The observation has the drawn number (0 if `hidden`) and `clock` times the fraction of the horizon that has passed.
    """
    num_costs = jax.eval_shape(cost, jnp.zeros(1), jnp.zeros(1)).shape[0]
    spec = EnvSpec(
        name, (("probe", 2),), (-1.0,), (1.0,), tuple(f"cost{k}" for k in range(num_costs)), horizon, 1.0, "none"
    )

    def observe(state):
        return jnp.append(0.0 * state.obs if hidden else state.obs, clock * state.time / horizon)

    def reset(key):
        state = ProbeState(draw(key), jnp.int32(0))
        return state, observe(state)

    def step(state, action):
        after = ProbeState(state.obs, state.time + 1)
        costs = cost(state.obs, action)
        done = after.time >= horizon
        info = {"cost": costs.sum()}
        ended, cut = (done, jnp.bool_(False)) if terminal else (jnp.bool_(False), done)
        return after, TimeStep(observe(after), reward(state.obs, action), costs, ended, cut, info)

    return Env(reset, step, spec)


def constrained(horizon=4):
    """Reward is the action plus unseen noise, cost the action: return and cost both want to end at the limit.

    The noise keeps the spread of the reward's advantage, by which it is divided, from vanishing with the policy's; and
    neither reward nor cost pushes on that spread.
    """

    def draw(key):
        return 0.5 * jax.random.normal(key, (1,))

    return probe("Constrained", lambda o, a: a[0] + o[0], lambda o, a: a, horizon, draw, terminal=False, hidden=True)


def two_costs(horizon=4):
    """Reward a; costs a^2 and max(a, 0)."""

    def cost(obs, action):
        return jnp.stack([jnp.square(action[0]), jnp.maximum(action[0], 0.0)])

    return probe("TwoCosts", lambda o, a: a[0], cost, horizon, terminal=False)
