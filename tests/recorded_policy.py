"""The actor and the batch whose losses and updates OmniSafe recorded, as a problem of ours (tests/ is importable)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign import nets
from jaxalign.core import Gaussian
from jaxalign.saferl.policy_steps import Problem

GOLDEN = Path(__file__).parent / "golden" / "saferl"


def recorded(name):
    return np.load(GOLDEN / f"{name}.npz")


NET = nets.mlp((5, 16, 16, 3))


def to_params(data, flat):
    """Our parameters from a flat vector in torch's order: log_std, then weight (out, in) and bias of every layer."""
    parts, start = {}, 0
    for name in data["param_order"].tolist():
        shape = data[f"param__{name}"].shape
        parts[name] = jnp.asarray(flat[start : start + np.prod(shape)].reshape(shape))
        start += np.prod(shape)
    assert start == len(flat)
    layers = {i: {"kernel": parts[f"mean.{2 * i}.weight"].T, "bias": parts[f"mean.{2 * i}.bias"]} for i in range(3)}
    return {"log_std": parts["log_std"], "mean": {"layers": layers}}


def to_flat(params):
    """The inverse of `to_params`."""
    layers = [params["mean"]["layers"][i] for i in range(3)]
    parts = [params["log_std"], *(x for layer in layers for x in (layer["kernel"].T, layer["bias"]))]
    return np.concatenate([np.ravel(part) for part in parts])


def dist_of(params, obs):
    mean = NET.apply(params["mean"], obs)
    return Gaussian(mean, jnp.broadcast_to(params["log_std"], mean.shape))


def recorded_actor(data):
    return to_params(data, np.concatenate([data[f"param__{name}"].ravel() for name in data["param_order"].tolist()]))


def problem_of(data, cost):
    """The recorded batch as a problem whose advantages are as recorded: not standardised, one-step episodes."""
    dtype = jnp.asarray(1.0).dtype
    obs, action, log_prob, reward_adv, cost_adv = (
        jnp.asarray(data[name], dtype) for name in ("obs", "act", "logp_old", "adv_r", "adv_c")
    )
    params = to_params(data, data["theta_before"].astype(dtype))
    old = dist_of(params, obs)

    def rho(params, rows):
        return jnp.exp(dist_of(params, obs[rows]).log_prob(action[rows]) - log_prob[rows])

    def reward_loss(params, rows):
        return -jnp.mean(rho(params, rows) * reward_adv[rows])

    def cost_change(params, rows):
        return jnp.mean((rho(params, rows) - 1.0) * cost_adv[rows])[None]

    def kl(params, rows):
        return Gaussian(old.mean[rows], old.log_std[rows]).kl(dist_of(params, obs[rows])).mean()

    def loss(params, rows):
        return reward_loss(params, rows), kl(params, rows)

    excess = jnp.asarray([cost - data["cost_limit"]], dtype)
    none = jnp.zeros(0, dtype)
    return params, Problem(loss, reward_loss, cost_change, kl, kl, none, excess, jnp.ones((), dtype), 64)


# Recorded with the KL averaged over the three action components, ours is summed: delta and damping are thrice theirs.
TRUST = {"delta": 0.03, "damping": 0.3}


def recorded_gradients(product, b, iterations):
    """OmniSafe's conjugate gradients, on a third of our matrix."""

    def iteration(_, carry):
        x, residual, direction, square = carry
        z = product(direction) / 3
        alpha = square / (direction @ z + 1e-6)
        x, residual = x + alpha * direction, residual - alpha * z
        after = residual @ residual
        return x, residual, residual + after / (square + 1e-6) * direction, after

    return jax.lax.fori_loop(0, iterations, iteration, (jnp.zeros_like(b), b, b, b @ b))[0] / 3
