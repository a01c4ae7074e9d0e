"""The table of algorithms. Reading one row tells exactly how two algorithms differ.

Numbers are OmniSafe's (https://github.com/PKU-Alignment/omnisafe, YAML defaults) except where hundreds of parallel
environments call for others:

- first order: 8 passes of 10 minibatches of 2,048 at learning rate 1e-3 (OmniSafe: 40 passes of 313 minibatches of 64
  at 3e-4). Same KL stop, 0.02.
- multipliers: Adam at 0.1 (OmniSafe: 0.035, with which the multiplier is still rising when 1e7 steps are over; measured
  on SafetyPointGoal1-v0: cost 28.6 at return 16.7 after 9e6 steps).
- second order: OmniSafe's delta = 0.01 and damping 0.1 refer to the KL *averaged* over action components; ours is
  summed, so on the two components of Point the same trust region is delta = 0.02, damping 0.2.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import optax
from jax.sharding import Mesh

from jaxalign.core.errors import UserError
from jaxalign.core.types import Env, Learner
from jaxalign.dist.mesh import make_mesh
from jaxalign.saferl import constraints as c
from jaxalign.saferl import policy_steps as p
from jaxalign.saferl import surrogates as s
from jaxalign.saferl.estimators import gae
from jaxalign.saferl.onpolicy import CriticFit, OnPolicyConfig, Parts, on_policy


class Row(NamedTuple):
    """An algorithm: one line about it, and its parts (built when asked for)."""

    summary: str
    parts: Callable[[], Parts]


def _on(surrogate: s.Surrogate, constraint: c.Constraint, policy_step: p.PolicyStep, critic: CriticFit):
    return lambda: Parts(gae(0.99, 0.95), surrogate, constraint, policy_step, critic)


_clip, _ratio = s.clipped(0.2), s.ratio()
_none, _lag = c.unconstrained(), c.lagrangian(optax.adam(0.1))
_ppo = p.first_order(p.adam(), epochs=8, num_minibatches=10, target_kl=0.02)
_trpo = p.trust_region(0.02, damping=0.2)
_cpo, _pcpo = p.cpo(0.02, damping=0.2), p.pcpo(0.02, damping=0.2)
_first, _second = CriticFit(8, 10, 1e-3), CriticFit(8, 20, 1e-3)

# fmt: off
CATALOGUE: dict[str, Row] = {
    # name                                                            surrogate  constraint  policy step  critic
    "ppo":      Row("PPO-clip, ignores costs (1707.06347)",       _on(_clip,     _none,      _ppo,        _first)),
    "ppo_lag":  Row("PPO with Lagrange multipliers (Ray 2019)",   _on(_clip,     _lag,       _ppo,        _first)),
    "trpo":     Row("TRPO, ignores costs (1502.05477)",           _on(_ratio,    _none,      _trpo,       _second)),
    "trpo_lag": Row("TRPO with Lagrange multipliers (Ray 2019)",  _on(_ratio,    _lag,       _trpo,       _second)),
    "cpo":      Row("Constrained policy optimisation (1705.10528)", _on(_ratio,  _none,      _cpo,        _second)),
    "pcpo":     Row("Projection-based CPO (2010.03152)",          _on(_ratio,    _none,      _pcpo,       _second)),
}
# fmt: on


def names() -> tuple[str, ...]:
    """All algorithms, sorted."""
    return tuple(sorted(CATALOGUE))


def make(
    name: str,
    env: Env,
    limit: Sequence[float],
    *,
    total_iterations: int,
    config: OnPolicyConfig | None = None,
    mesh: Mesh | None = None,
) -> Learner:
    """Builds a registered algorithm.

    Args:
        name: one of `names()`.
        env: environment; its ``spec.cost_names`` are the constraints, see `rollout.select_costs`.
        limit: highest allowed cost per episode, one per constraint.
        total_iterations: over which the learning rate decays.
        config: sizes; the defaults if None.
        mesh: devices; all if None.

    Raises:
        UserError: unknown name, or numbers that make no sense.
    """
    if name not in CATALOGUE:
        raise UserError(f"Unknown algorithm {name!r}. Known: {', '.join(names())}.")
    parts = CATALOGUE[name].parts()
    return on_policy(env, limit, parts, config or OnPolicyConfig(), total_iterations, mesh or make_mesh())
