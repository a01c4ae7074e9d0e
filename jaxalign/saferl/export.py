"""Policies without their learner: as NumPy arrays and as a StableHLO program."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export
from jaxtyping import Array, Float

from jaxalign import nets
from jaxalign.core.types import Env
from jaxalign.saferl import actors, numpy_policy, onpolicy
from jaxalign.saferl.evaluation import Config
from jaxalign.saferl.numpy_policy import Policy
from jaxalign.saferl.offpolicy import OffPolicyConfig, OffPolicyState
from jaxalign.saferl.onpolicy import OnPolicyConfig, OnPolicyState

PLATFORMS = ("cpu", "cuda", "tpu")
CLIP = 5.0  # what `RunningStatistics.normalise` clips to

Chooser = Callable[[Float[Array, "*batch A"], Float[Array, "*batch O"]], Float[Array, "*batch A"]]


def numpy_of(env: Env, config: Config, state: Any, about: str = "{}") -> Policy:
    """The policy of a learner's state as NumPy arrays; arguments as in `evaluation.actor`."""
    state = jax.device_get(state)
    low, high = (np.array(bound, np.float32) for bound in (env.spec.action_low, env.spec.action_high))
    shift, scale = np.zeros(env.spec.obs_size, np.float32), np.ones(env.spec.obs_size, np.float32)
    if isinstance(config, OffPolicyConfig):
        weights, biases = _layers(state.actor)
        kind = numpy_policy.SQUASHED if len(biases[-1]) == 2 * len(low) else numpy_policy.DETERMINISTIC
        return Policy(kind, shift, scale, np.inf, weights, biases, np.zeros_like(low), low, high, about)
    if config.normalise_obs and state.statistics.samples > 1:
        shift, scale = np.asarray(state.statistics.mean), np.asarray(state.statistics.std())
    clip = CLIP if config.normalise_obs else np.inf
    weights, biases = _layers(state.policy["mean"])
    log_std = np.asarray(state.policy["log_std"])
    return Policy(numpy_policy.GAUSSIAN, shift, scale, clip, weights, biases, log_std, low, high, about)


def _layers(params: Any) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    layers = [params["layers"][name] for name in sorted(params["layers"], key=int)]
    return tuple(np.asarray(x["kernel"]) for x in layers), tuple(np.asarray(x["bias"]) for x in layers)


def chooser(env: Env, config: Config, state: Any) -> Chooser:
    """``(noise, obs) -> action`` in JAX; standard normal noise samples, zero noise does not."""
    if isinstance(config, OffPolicyConfig):
        return _off_policy(env, config, state)
    return _on_policy(env, config, state)


def _on_policy(env: Env, config: OnPolicyConfig, state: OnPolicyState) -> Chooser:
    policy, normalise = onpolicy.gaussian_policy(env, config), onpolicy.normaliser(config)
    params, statistics = jax.device_get((state.policy, state.statistics))

    def choose(noise, obs):
        dist_of = policy.dist(params, normalise(statistics, obs))
        return dist_of.mean + jnp.exp(dist_of.log_std) * noise

    return choose


def _off_policy(env: Env, config: OffPolicyConfig, state: OffPolicyState) -> Chooser:
    low, high = (jnp.array(bound) for bound in (env.spec.action_low, env.spec.action_high))
    params = jax.device_get(state.actor)
    outputs = len(_layers(params)[1][-1])
    network = nets.mlp((env.spec.obs_size, *config.hidden, outputs), jax.nn.relu)

    def choose(noise, obs):
        y = network.apply(params, obs)
        action = actors.squashed(y).transform(noise)[0] if outputs == 2 * env.spec.action_size else jnp.tanh(y)
        return low + 0.5 * (action + 1.0) * (high - low)

    return choose


def stablehlo(env: Env, config: Config, state: Any) -> bytes:
    """The policy as a serialised program of `jax.export`, for CPU, CUDA and TPU and any number of observations.

    ``jax.export.deserialize(bytearray(...)).call(noise [N, A], obs [N, O])`` gives actions ``[N, A]``, float32.
    """
    (number,) = jax_export.symbolic_shape("n")
    noise, obs = (
        jax.ShapeDtypeStruct((number, size), jnp.float32) for size in (env.spec.action_size, env.spec.obs_size)
    )
    program = jax.jit(chooser(env, config, state), keep_unused=True)
    return bytes(jax_export.export(program, platforms=PLATFORMS)(noise, obs).serialize())


def write(path: Path, env: Env, config: Config, state: Any, about: str = "{}") -> tuple[Path, Path, Path]:
    """Writes the policy as ``.npz``, beside it `numpy_policy.py`, which reads it, and the ``.stablehlo`` program.

    Args:
        path: of the ``.npz``.
        env: environment as the policy sees it.
        config: with which the learner was built.
        state: of the learner.
        about: JSON that is kept with the policy.

    Returns:
        The three files.

    Raises:
        OSError: they cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    reader, program = path.with_name("numpy_policy.py"), path.with_suffix(".stablehlo")
    numpy_policy.save(path, numpy_of(env, config, state, about))
    shutil.copyfile(numpy_policy.__file__, reader)
    program.write_bytes(stablehlo(env, config, state))
    return path, reader, program
