"""The table of algorithms. Reading one row tells exactly how two algorithms differ.

Numbers are OmniSafe's (https://github.com/PKU-Alignment/omnisafe, YAML defaults) except where hundreds of parallel
environments call for others:

- first order: 4 passes of 10 minibatches of 2,048 at learning rate 1e-3, 2 for the critics (OmniSafe: 40 passes of 313
  minibatches of 64 at 3e-4), because the update is most of an iteration (``benchmarks/RESULTS.md``); with 8
  and 4, PPO-Lag ends within the spread of three seeds of it (``experiments/safe_navigation``). Same KL stop, 0.02; 0.01
  for the projection of CUP.
- multipliers: steps of at most 0.125, proportional to the excess near the limit (OmniSafe: Adam at 0.035, which makes
  full steps there too, so that multiplier and cost circle each other; with it the multiplier is still rising when 1e7
  steps are over). FOCOPS and CUP, whose multipliers are bounded: Adam at 0.1.
- second order: OmniSafe's delta = 0.01 and damping 0.1 refer to the KL *averaged* over action components; ours is
  summed, so on the two components of Point the same trust region is delta = 0.02, damping 0.2.
- off-policy: see `offpolicy`.

Rows ``..._safepo`` have the settings of SafePO (https://github.com/PKU-Alignment/Safe-Policy-Optimization) where its
differ from OmniSafe's. Every choice is argued in ``docs/algorithms.md``.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxalign.core.errors import UserError
from jaxalign.core.types import Env, Learner
from jaxalign.dist.mesh import make_mesh
from jaxalign.saferl import actors as a
from jaxalign.saferl import constraints as c
from jaxalign.saferl import offpolicy as o
from jaxalign.saferl import policy_steps as p
from jaxalign.saferl import surrogates as s
from jaxalign.saferl import worlds as w
from jaxalign.saferl.estimators import gae
from jaxalign.saferl.offpolicy import OffPolicyConfig, off_policy
from jaxalign.saferl.onpolicy import CriticFit, OnPolicyConfig, Parts, on_policy

Config = OnPolicyConfig | OffPolicyConfig


class Row(NamedTuple):
    """An algorithm: one line about it, its parts (built when asked for), and the sizes its driver takes by default."""

    summary: str
    parts: Callable[[], Parts | o.Parts]
    config: Config


class Step(NamedTuple):
    """How an iteration moves policy and critics."""

    policy: p.PolicyStep
    critic: CriticFit


def _on(summary, surrogate: s.Surrogate, constraint: c.Constraint, step: Step, world: w.World = w.plain):
    return Row(summary, lambda: Parts(gae(0.99, 0.95), surrogate, constraint, *step, world), _ON)


def _off(summary, actor: a.Actor, num_critics: int, constraint: c.Constraint):
    return Row(summary, lambda: o.Parts(actor, num_critics, constraint), _OFF)


_ON, _OFF = OnPolicyConfig(), OffPolicyConfig()
_first, _second = CriticFit(2, 10, 1e-3), CriticFit(8, 20, 1e-3)
_clip, _ratio, _focops = s.clipped(0.2), s.ratio(), s.focops(1.5, 0.02)
_none, _lag, _lag2 = c.unconstrained(), c.proportional(0.125), c.lagrangian(optax.adam(0.1), upper_bound=2.0)
_pid, _p3o, _ipo = c.pid(0.1, 0.01, 0.01, penalty_max=100.0), c.exact_penalty(20.0), c.log_barrier(0.01, 1.0)
_crpo, _simmer, _dual = c.switch(2.0), c.simmer(5e-4, 1e-5, 0.0), c.aside(_lag2)
_dual_safepo = c.aside(c.lagrangian(optax.adam(0.1), upper_bound=0.2))

_CUP = {"epochs": 4, "num_minibatches": 10, "weight": (1 - 0.99 * 0.95) / (1 - 0.99)}
_ppo = Step(p.first_order(p.adam(), epochs=4, num_minibatches=10, target_kl=0.02), _first)
_npg = Step(p.natural_gradient(0.02, damping=0.2), _second)
_trpo = Step(p.trust_region(0.02, damping=0.2), _second)
_cpo, _pcpo = Step(p.cpo(0.02, damping=0.2), _second), Step(p.pcpo(0.02, damping=0.2), _second)
_cpo_safepo = Step(p.cpo(0.02, damping=0.2, tries=15), _second)
_cup = Step(p.then_project(_ppo.policy, p.adam(), target_kl=0.01, **_CUP), _first)
_cup_safepo = Step(p.then_project(_ppo.policy, p.adam(), target_kl=0.02, **_CUP), _first)
_saute, _early = w.saute(-1.0, 0.999), w.early_terminated()
_slow_lag, _slow_pid = c.lagrangian(optax.adam(0.01)), c.pid(1e-3, 1e-4, 1e-4, penalty_max=100.0)
_ddpg, _td3, _sac = a.deterministic(), a.deterministic(target_noise=0.2, noise_clip=0.5), a.maximum_entropy(0.02, 1e-3)

# fmt: off
CATALOGUE: dict[str, Row] = {
    # name                                                                  surrogate  constraint    step         world
    "policy_gradient":       _on("Policy gradient (Sutton 1999)",                 _ratio,  _none,        _ppo),
    "natural_pg":            _on("Natural policy gradient (Kakade 2001)",         _ratio,  _none,        _npg),
    "trpo":                  _on("TRPO, ignores costs (1502.05477)",              _ratio,  _none,        _trpo),
    "ppo":                   _on("PPO-clip, ignores costs (1707.06347)",          _clip,   _none,        _ppo),
    "pdo":                   _on("Policy gradient, Lagrange (Chow 2015)",         _ratio,  _lag,         _ppo),
    "rcpo":                  _on("Natural gradient, Lagrange (1805.11074)",       _ratio,  _lag,         _npg),
    "ppo_lag":               _on("PPO, Lagrange multipliers (Ray 2019)",          _clip,   _lag,         _ppo),
    "trpo_lag":              _on("TRPO, Lagrange multipliers (Ray 2019)",         _ratio,  _lag,         _trpo),
    "cppo_pid":              _on("PPO, PID multipliers (2007.03964)",             _clip,   _pid,         _ppo),
    "trpo_pid":              _on("TRPO, PID multipliers (2007.03964)",            _ratio,  _pid,         _trpo),
    "cpo":                   _on("Constrained policy optimisation (1705.10528)",  _ratio,  _none,        _cpo),
    "cpo_safepo":            _on("CPO, line search of SafePO",                    _ratio,  _none,        _cpo_safepo),
    "pcpo":                  _on("Projection-based CPO (2010.03152)",             _ratio,  _none,        _pcpo),
    "focops":                _on("First-order in policy space (2002.06506)",      _focops, _lag2,        _ppo),
    "cup":                   _on("Constrained update projection (2209.07089)",    _clip,   _dual,        _cup),
    "cup_safepo":            _on("CUP, bounds of SafePO",                         _clip,   _dual_safepo, _cup_safepo),
    "p3o":                   _on("Penalised PPO (2205.11814)",                    _clip,   _p3o,         _ppo),
    "ipo":                   _on("Interior-point PPO (1910.09615)",               _clip,   _ipo,         _ppo),
    "on_crpo":               _on("Reward or cost, by turns (2011.05869)",         _ratio,  _crpo,        _trpo),
    "ppo_saute":             _on("PPO that sees its budget (2202.06558)",         _clip,   _none,        _ppo, _saute),
    "trpo_saute":            _on("TRPO that sees its budget (2202.06558)",        _ratio,  _none,        _trpo, _saute),
    "ppo_simmer_pid":        _on("PPO, budget scheduled by PID (2206.02675)",     _clip,   _simmer,      _ppo, _saute),
    "trpo_simmer_pid":       _on("TRPO, budget scheduled by PID (2206.02675)",    _ratio,  _simmer,      _trpo, _saute),
    "ppo_early_terminated":  _on("PPO, costly episodes end (2107.04200)",         _clip,   _none,        _ppo, _early),
    "trpo_early_terminated": _on("TRPO, costly episodes end (2107.04200)",        _ratio,  _none,        _trpo, _early),
    # name                                                                      actor   critics  constraint
    "ddpg":                  _off("DDPG, ignores costs (1509.02971)",             _ddpg,  1,       _none),
    "td3":                   _off("TD3, ignores costs (1802.09477)",              _td3,   2,       _none),
    "sac":                   _off("SAC, ignores costs (1801.01290)",              _sac,   2,       _none),
    "ddpg_lag":              _off("DDPG, Lagrange multipliers",                   _ddpg,  1,       _slow_lag),
    "td3_lag":               _off("TD3, Lagrange multipliers",                    _td3,   2,       _slow_lag),
    "sac_lag":               _off("SAC, Lagrange multipliers",                    _sac,   2,       _slow_lag),
    "ddpg_pid":              _off("DDPG, PID multipliers (2007.03964)",           _ddpg,  1,       _slow_pid),
    "td3_pid":               _off("TD3, PID multipliers (2007.03964)",            _td3,   2,       _slow_pid),
    "sac_pid":               _off("SAC, PID multipliers (2007.03964)",            _sac,   2,       _slow_pid),
}
# fmt: on


def names() -> tuple[str, ...]:
    """All algorithms, sorted."""
    return tuple(sorted(CATALOGUE))


def resolve(name: str) -> str:
    """The catalogue's spelling of a name; OmniSafe's, such as ``"PPOLag"``, is understood too.

    Raises:
        UserError: unknown name.
    """
    known = {known.replace("_", ""): known for known in CATALOGUE}
    try:
        return known[name.replace("_", "").replace("-", "").lower()]
    except KeyError:
        raise UserError(f"Unknown algorithm {name!r}. Known: {', '.join(names())}.") from None


def world(name: str, env: Env, limit: Sequence[float]) -> Env:
    """The environment in which a policy of the algorithm is judged: `env`, or with its budget in the observation.

    Worlds that change what is earned or when an episode ends, but nothing that the policy sees, are for training alone.

    Raises:
        UserError: unknown name.
    """
    parts = CATALOGUE[resolve(name)].parts()
    if not isinstance(parts, Parts):
        return env
    budget = jnp.asarray(limit, jnp.float32)
    trained = parts.world(env, budget, budget)
    return env if trained.spec.obs_blocks == env.spec.obs_blocks else trained


def make(
    name: str,
    env: Env,
    limit: Sequence[float],
    *,
    total_iterations: int,
    config: Config | None = None,
    mesh: Mesh | None = None,
) -> Learner:
    """Builds a registered algorithm.

    Args:
        name: one of `names()`, or OmniSafe's spelling of it.
        env: environment; its ``spec.cost_names`` are the constraints, see `rollout.select_costs`.
        limit: highest allowed cost per episode, one per constraint.
        total_iterations: over which the learning rate of on-policy algorithms decays.
        config: sizes; the row's defaults if None.
        mesh: devices; all if None.

    Raises:
        UserError: unknown name, sizes of the other family, or numbers that make no sense.
    """
    row = CATALOGUE[resolve(name)]
    parts, config = row.parts(), config or row.config
    if type(config) is not type(row.config):
        raise UserError(f"{name} takes sizes of the class {type(row.config).__name__}, not {type(config).__name__}.")
    if isinstance(parts, o.Parts):
        assert isinstance(config, OffPolicyConfig)
        return off_policy(env, limit, parts, config, mesh or make_mesh())
    assert isinstance(config, OnPolicyConfig)
    return on_policy(env, limit, parts, config, total_iterations, mesh or make_mesh())
