"""Variations of an environment: noise, miscalibrated sensors, weak actuators, wind, and choice of layouts.

Each is a pure function from `Env` to `Env`, so they compose, also under ``vmap`` and ``jit``:

    env = transforms.layouts(envs_mjx.make("SafetyPointGoal1-v0"), seed=3, number=20)
    env = transforms.observation_noise(env, {"hazards_lidar": 0.05, "gyro": 0.1})
    env = transforms.actuator_gain(env, 0.7, 1.1)

Reward, cost and the ends of episodes are those of the true state: a policy sees and acts through the noise, but is not
judged through it. Velocity robots are the exception: their reward holds the price of the action, and that is of the one
that arrives at the robot, with noise, gain and clipping. The id tells what was done,
``SafetyPointGoal1-v0+layouts(seed=3,number=20)+...``.

Randomness: ``reset(key)`` hands the same ``key`` to the environment inside, and each transform draws from its own named
stream of it. So a transform changes neither the episode that a key stands for nor the draws of other transforms, and
with its strength at zero it changes nothing, bit for bit (but that actions arrive clipped, which velocity robots price
otherwise). Like the environment, the state is all that a step needs. Noise may leave the bounds that the doors give as
observation space.

What is not here: masses, friction, damping and gear of the model are compiled into the physics (``envs_mjx.physics``),
the same for all episodes and lanes; `actuator_gain` and `disturbance` act where a policy meets them.

Domain randomisation: Tobin et al. 2017, https://arxiv.org/abs/1703.06907; of dynamics and sensors: Peng et al. 2018,
https://arxiv.org/abs/1710.06537. Fixed layouts for training and new ones for testing: Cobbe et al. 2019,
https://arxiv.org/abs/1812.02341.
"""

import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from envs_mjx.api import Env, EnvSpec, PRNGKey

Level = float | tuple[float, ...]  # one for all actuators, or one each
Levels = float | Mapping[str, float]  # one for the whole observation, or one for each block that is named
_MARK = "+"  # what separates transforms in an id


class State(NamedTuple):
    """State of a transformed environment.

    Attributes:
        inner: state of the environment inside.
        key: this transform's randomness in this episode.
        time: steps since the reset.
        memory: what it drew for the whole episode, or carries from step to step.
    """

    inner: Any
    key: PRNGKey
    time: Int[Array, "*batch"]
    memory: Any


def action_noise(env: Env, std: Level) -> Env:
    r"""The actuators get :math:`\mathrm{clip}(a) + \sigma\varepsilon`, :math:`\varepsilon\sim N(0, I)` anew each step.

    The noise is added to the clipped action, as Safety-Gymnasium's own (unused) action noise is; the environment then
    clips the sum to the actuators' range.

    Args:
        env: environment.
        std: :math:`\sigma` in units of the action, for all actuators or for each.

    Raises:
        ValueError: a negative or infinite `std`, or not one or one for each actuator.
    """
    sigma = _per_actuator(env.spec, "action_noise", "std", std)

    def act(key, memory, action):
        return memory, _clip(env.spec, action) + sigma * jax.random.normal(key, action.shape)

    return _transformed(env, "action_noise", {"std": std}, act=act)


def actuator_gain(env: Env, low: Level, high: Level) -> Env:
    r"""The actuators get :math:`g\,\mathrm{clip}(a)` with :math:`g_i\sim U(low_i, high_i)`, drawn once per episode.

    A gain above one matters only below saturation, since the environment clips the product to the actuators' range.
    Point and Car clip their motors' force far below the largest action (see their actuators), so weakening is felt
    only where :math:`g\,|a|` falls below that.

    Args:
        env: environment.
        low: of the gain, for all actuators or for each.
        high: of the gain, for all actuators or for each.

    Raises:
        ValueError: a negative or infinite gain, ``low > high``, or not one or one for each actuator.
    """
    least = _per_actuator(env.spec, "actuator_gain", "low", low)
    most = _per_actuator(env.spec, "actuator_gain", "high", high)
    if (least > most).any():
        raise ValueError(f"actuator_gain: low={low} is above high={high}; pass the smaller first.")

    def begin(key):
        return least + (most - least) * jax.random.uniform(key, least.shape)

    def act(key, gain, action):
        return gain, gain * _clip(env.spec, action)

    return _transformed(env, "actuator_gain", {"low": low, "high": high}, begin, act)


def disturbance(env: Env, std: Level, time_constant: float) -> Env:
    r"""Gusts: the actuators get :math:`\mathrm{clip}(a) + w_t`, where :math:`w` wanders around zero.

    An Ornstein-Uhlenbeck process in its exact discretisation, stationary from the first step on:

    .. math:: w_0 \sim N(0, \sigma^2),\quad w_{t+1} = \rho w_t + \sqrt{1-\rho^2}\,\sigma\varepsilon_t,\quad
              \rho = e^{-\Delta t/\tau}

    so that :math:`\mathrm{Cov}(w_t, w_{t+k}) = \sigma^2\rho^k`.

    Args:
        env: environment.
        std: :math:`\sigma` in units of the action, for all actuators or for each.
        time_constant: :math:`\tau`, s; short against the control step it is `action_noise`.

    Raises:
        ValueError: a negative or infinite `std`, not one or one for each actuator, or a time constant that is not
            positive.
    """
    sigma = _per_actuator(env.spec, "disturbance", "std", std)
    if not 0 < time_constant < math.inf:
        raise ValueError(f"disturbance: time_constant={time_constant}; pass a positive number of seconds.")
    rho = math.exp(-env.spec.control_dt / time_constant)

    def begin(key):
        return sigma * jax.random.normal(key, sigma.shape)

    def act(key, wind, action):
        after = rho * wind + math.sqrt(1 - rho**2) * sigma * jax.random.normal(key, sigma.shape)
        return after, _clip(env.spec, action) + wind

    return _transformed(env, "disturbance", {"std": std, "time_constant": time_constant}, begin, act)


def observation_noise(env: Env, std: Levels) -> Env:
    r"""The policy sees :math:`o + \sigma\varepsilon`, :math:`\varepsilon\sim N(0, I)` anew each step and at the reset.

    Args:
        env: environment.
        std: :math:`\sigma` in units of the observation, or by block of ``env.spec.obs_blocks``; blocks that are not
            named stay exact.

    Raises:
        ValueError: a negative or infinite `std`, or a block that the observation does not have.
    """
    sigma = _per_entry(env.spec, "observation_noise", "std", std)

    def see(key, memory, obs):
        return obs + sigma * jax.random.normal(key, obs.shape)

    return _transformed(env, "observation_noise", {"std": std}, see=see)


def miscalibration(env: Env, bias: Levels = 0.0, gain: Levels = 0.0) -> Env:
    r"""The policy sees :math:`(1 + g)\,o + b` with errors of the sensors that stay the same for an episode.

    :math:`b_i\sim N(0, \mathrm{bias}_i^2)` and :math:`g_i\sim U(-\mathrm{gain}_i, \mathrm{gain}_i)`, each entry of the
    observation its own.

    Args:
        env: environment.
        bias: standard deviation of the offset, in units of the observation, for all entries or by block.
        gain: largest relative error, for all entries or by block.

    Raises:
        ValueError: a negative or infinite number, or a block that the observation does not have.
    """
    sigma = _per_entry(env.spec, "miscalibration", "bias", bias)
    span = _per_entry(env.spec, "miscalibration", "gain", gain)

    def begin(key):
        key_gain, key_bias = jax.random.split(key)
        scale = 1 + span * jax.random.uniform(key_gain, span.shape, minval=-1.0)
        return scale, sigma * jax.random.normal(key_bias, sigma.shape)

    def see(key, errors, obs):
        scale, offset = errors
        return scale * obs + offset

    return _transformed(env, "miscalibration", {"bias": bias, "gain": gain}, begin, see=see)


def layouts(env: Env, seed: int, number: int = 1) -> Env:
    """Every episode is one of `number` fixed ones, chosen at random; with one, the layout is always the same.

    Episode ``i`` of the pool is ``env.reset(fold_in(jax.random.key(seed), i))``, so also the later goals of an episode
    repeat, as with Safety-Gymnasium's ``randomize_layout=False``. Put it innermost: it fixes all randomness inside.

    Args:
        env: environment that has no other transform yet.
        seed: names the pool, in [0, 2**32).
        number: of episodes in the pool.

    Raises:
        ValueError: the environment is transformed already, an empty pool, or the seed is out of range.
    """
    if _MARK in env.spec.id:
        raise ValueError(
            f"layouts: {env.spec.id} is transformed already, and what those transforms draw would be fixed, too; "
            "apply layouts first."
        )
    if number < 1:
        raise ValueError(f"layouts: number={number}; a pool holds at least one layout.")
    if not 0 <= seed < 2**32:
        raise ValueError(f"layouts: seed={seed} is out of range; pass an integer from 0 to {2**32 - 1}.")

    def reset(key):
        which = jax.random.randint(_stream(key, "layouts"), (), 0, number)
        return env.reset(jax.random.fold_in(jax.random.key(seed), which))

    return Env(reset, env.step, _renamed(env.spec, "layouts", {"seed": seed, "number": number}))


def base(env_id: str, state: Any) -> tuple[str, Any]:
    """The id and the state of the environment inside all transforms."""
    while isinstance(state, State):
        state = state.inner
    return env_id.split(_MARK, maxsplit=1)[0], state


def _transformed(
    env: Env,
    name: str,
    settings: dict[str, Any],
    begin: Callable[[PRNGKey], Any] = lambda key: (),
    act: Callable[[PRNGKey, Any, Array], tuple[Any, Array]] = lambda key, memory, action: (memory, action),
    see: Callable[[PRNGKey, Any, Array], Array] = lambda key, memory, obs: obs,
) -> Env:
    """An environment that draws a memory, changes actions and changes observations, each from its own stream."""
    stream = f"{name}/{env.spec.id.count(_MARK + name)}"  # twice the same transform must not draw the same

    def reset(key):
        inner, obs = env.reset(key)
        key = _stream(key, stream)
        memory = begin(_stream(key, "begin"))
        state = State(inner, key, jnp.int32(0), memory)
        return state, see(_now(state, "see"), memory, obs)

    def step(state: State, action: Float[Array, " A"]):
        memory, action = act(_now(state, "act"), state.memory, action)
        inner, after = env.step(state.inner, action)
        state = State(inner, state.key, state.time + 1, memory)
        return state, after._replace(obs=see(_now(state, "see"), memory, after.obs))

    return Env(reset, step, _renamed(env.spec, name, settings))


def _now(state: State, name: str) -> PRNGKey:
    return jax.random.fold_in(_stream(state.key, name), state.time)


def _stream(key: PRNGKey, name: str) -> PRNGKey:
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def _renamed(spec: EnvSpec, name: str, settings: dict[str, Any]) -> EnvSpec:
    def spell(value):
        if isinstance(value, Mapping):
            return "{" + ",".join(f"{block}:{level:g}" for block, level in value.items()) + "}"
        if isinstance(value, tuple):
            return "[" + ",".join(f"{level:g}" for level in value) + "]"
        return f"{value:g}" if isinstance(value, float) else str(value)

    told = ",".join(f"{setting}={spell(value)}" for setting, value in settings.items())
    return spec._replace(id=f"{spec.id}{_MARK}{name}({told})")


def _clip(spec: EnvSpec, action: Float[Array, " A"]) -> Float[Array, " A"]:
    """The action in the actuators' range; what is not finite stays, for the environment to flag."""
    clipped = jnp.clip(action, jnp.array(spec.action_low, jnp.float32), jnp.array(spec.action_high, jnp.float32))
    return jnp.where(jnp.isfinite(action), clipped, action)


def _per_actuator(spec: EnvSpec, name: str, setting: str, level: Level) -> Float32[np.ndarray, " A"]:
    values = np.asarray(level, np.float32)
    if values.shape not in ((), (spec.action_size,)):
        raise ValueError(
            f"{name}: {setting} has shape {values.shape}; {spec.id} has {spec.action_size} actuators, pass one number "
            "or one for each."
        )
    _check(name, setting, level, values)
    return np.broadcast_to(values, (spec.action_size,))


def _per_entry(spec: EnvSpec, name: str, setting: str, level: Levels) -> Float32[np.ndarray, " O"]:
    blocks = [block for block, _ in spec.obs_blocks]
    by_block = level if isinstance(level, Mapping) else dict.fromkeys(blocks, level)
    for block in by_block:
        if block not in blocks:
            raise ValueError(f"{name}: {spec.id} observes no {block!r}; choose among {', '.join(blocks)}.")
    values = np.concatenate([np.full(size, by_block.get(block, 0.0), np.float32) for block, size in spec.obs_blocks])
    _check(name, setting, level, values)
    return values


def _check(name: str, setting: str, level: Any, values: np.ndarray) -> None:
    if not ((values >= 0) & np.isfinite(values)).all():
        raise ValueError(f"{name}: {setting}={level}; pass finite numbers that are not negative.")
