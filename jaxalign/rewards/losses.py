"""Losses of a difference of rewards: how a reward model is told that one response is better.

Each is ``(difference, margin) -> loss``, elementwise: difference = r_chosen - r_rejected, margin = by how much the
chosen one should be ahead. Convex functions of difference - margin as a family: Tang et al. 2024, "Generalized
preference optimization", https://arxiv.org/abs/2402.05749.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxalign.core.errors import UserError

PreferenceLoss = Callable[[Array, Array], Array]
Pairs = Float[Array, "*pairs"]


def bradley_terry(difference: Pairs, margin: Pairs) -> Pairs:
    """-log sigmoid(d - m): the likelihood of Bradley and Terry 1952; margin as in Llama 2 (Touvron et al. 2023)."""
    return -jax.nn.log_sigmoid(difference - margin)


def log_exp(difference: Pairs, margin: Pairs) -> Pairs:
    """log(1 + exp(m - d)): `bradley_terry` under the name it has in OpenRLHF; the same number."""
    return jax.nn.softplus(margin - difference)


def hinge(difference: Pairs, margin: Pairs) -> Pairs:
    """max(0, 1 + m - d): the support vector machine; pairs that are ahead by 1 + m pull no more."""
    return jax.nn.relu(1.0 + margin - difference)


def squared(difference: Pairs, margin: Pairs) -> Pairs:
    """(d - m - 1/2)^2: regression on a fixed lead, which bounds rewards even where labels never contradict.

    Identity preference optimisation with tau = 1 (Azar et al. 2023, https://arxiv.org/abs/2310.12036).
    """
    return jnp.square(difference - margin - 0.5)


def exponential(difference: Pairs, margin: Pairs) -> Pairs:
    """exp(m - d): boosting; mistakes weigh exponentially."""
    return jnp.exp(margin - difference)


FAMILY: Mapping[str, PreferenceLoss] = {
    "bradley_terry": bradley_terry,
    "log_exp": log_exp,
    "hinge": hinge,
    "ipo": squared,
    "exponential": exponential,
}


def preference(name: str) -> PreferenceLoss:
    """The loss called `name`.

    Raises:
        UserError: there is none of that name.
    """
    if name not in FAMILY:
        raise UserError(f"There is no preference loss {name!r}; choose one of {', '.join(FAMILY)}.")
    return FAMILY[name]
