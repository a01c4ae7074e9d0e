"""Brax's interface: environments for its wrappers, its learners and code that steps a ``State``.

    from brax.training.agents.ppo import train as ppo
    from envs_mjx.adapters import brax as safety

    env = safety.Environment("SafetyPointGoal1-v0")
    make_policy, params, metrics = ppo.train(env, num_timesteps=..., episode_length=env.spec.horizon, ...)

The cost of a step is in ``state.info["cost"]`` and, for Brax's evaluation, in ``state.metrics["cost"]``, where it is
summed over an episode; so are the single costs and whatever else the environment tells. With Brax's ``action_repeat``
rewards are summed over the repeated steps, but ``info`` and ``metrics`` are those of the last.

Actions are passed on as they are. Brax's learners write actions in [-1, 1]: Racecar's throttle goes to 20, Humanoid's
torques to 0.4 (``env.spec.action_low`` and ``action_high``), so scale actions for those before this door.

Ends of episodes. ``done`` means that the episode cannot go on: the robot died, or the simulation failed. The time limit
is left to Brax's ``EpisodeWrapper``, which counts steps itself, tells ``info["truncation"]`` and treats any ``done`` of
the environment as a terminal state; if the environment's own limit were a ``done`` as well, cut episodes would be
bootstrapped with zero. So pass ``episode_length=env.spec.horizon``: without that wrapper episodes have no time limit.

``AutoResetWrapper`` begins each episode of a lane in the state of its first one: the same layout and the same later
goals, until the learner resets (in PPO ``num_resets_per_eval``). The other doors draw new layouts in every episode.

With JAX 0.10 and later, ``ppo.train`` of Brax 0.14.2 (and its SAC and APG) stop at ``jax.device_put_replicated``, which
JAX no longer has (https://github.com/google/brax/issues/671). Until a release mends it, this stands in on one device:

    jax.device_put_replicated = lambda tree, devices: jax.tree.map(lambda x: jax.numpy.stack([x] * len(devices)), tree)

MuJoCo Playground's own wrappers want ``state.data`` where Brax's have ``state.pipeline_state``: use Brax's.
"""

import functools
import warnings

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt32

import envs_mjx
from envs_mjx.api import Env, EnvSpec

try:
    with warnings.catch_warnings():  # of JAXopt, which Brax imports, that it is no longer maintained
        warnings.simplefilter("ignore", DeprecationWarning)
        from brax.envs.base import Env as BraxEnv
        from brax.envs.base import State
except ImportError as error:
    raise ImportError(f'{__name__} needs the package brax: pip install "jaxalign[brax]"') from error


class Environment(BraxEnv):
    """An environment with Brax's interface; see the module docstring.

    Args:
        env: one of ``envs_mjx.ids()``, or an environment, such as one from `envs_mjx.transforms`.
        engine: see `envs_mjx.make`; only with an id.

    Raises:
        ValueError: unknown id or engine, or an engine for a ready environment.
    """

    def __init__(self, env: str | Env, engine: str | None = None):
        if engine is not None and not isinstance(env, str):
            raise ValueError(f"{env.spec.id}: engine={engine!r} comes too late for a ready environment; leave it out.")
        self._env = envs_mjx.make(env, engine) if isinstance(env, str) else env

    def reset(self, rng: UInt32[Array, "2"] | Key[Array, ""]) -> State:
        """Begins an episode.

        Args:
            rng: a key, old style (as Brax passes them) or new.

        Returns:
            A state whose ``pipeline_state`` is the state of the functional environment.
        """
        key = rng if jnp.issubdtype(rng.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(rng)
        state, obs = self._env.reset(key)
        told = {name: jnp.zeros(()) for name in self._metrics}
        info = {"cost": jnp.zeros(())}
        return State(state, obs, jnp.zeros(()), jnp.zeros(()), told, info)  # pyright: ignore[reportCallIssue]

    def step(self, state: State, action: Float[Array, " A"]) -> State:
        """One control step; actions are clipped to the actuators' range.

        Args:
            state: of the last step or reset; what wrappers keep in its ``info`` and ``metrics`` stays there.
            action: ``[A]``.

        Returns:
            The next state, which is not reset when the episode is over.
        """
        inner, after = self._env.step(state.pipeline_state, action)
        costs = dict(zip(self.spec.cost_names, jnp.moveaxis(after.cost, -1, 0), strict=True))
        told = {name: value.astype(jnp.float32) for name, value in (costs | after.info).items()}
        done = after.terminated | after.info["diverged"] if "diverged" in after.info else after.terminated
        return state.replace(  # pyright: ignore[reportAttributeAccessIssue]
            pipeline_state=inner,
            obs=after.obs,
            reward=after.reward,
            done=done.astype(jnp.float32),
            metrics={**state.metrics, **told},
            info={**state.info, "cost": told["cost"]},
        )

    @functools.cached_property
    def _metrics(self) -> tuple[str, ...]:
        """Names of the costs and infos of a step."""
        state, _ = jax.eval_shape(self._env.reset, jax.random.key(0))
        _, after = jax.eval_shape(self._env.step, state, jnp.zeros(self.action_size))
        return (*self.spec.cost_names, *after.info)

    @property
    def spec(self) -> EnvSpec:
        """What is known of the environment beforehand, such as ``horizon`` and ``cost_names``."""
        return self._env.spec

    @property
    def dt(self) -> float:
        """Duration of a step, s."""
        return self.spec.control_dt

    @property
    def observation_size(self) -> int:
        """Length of the observation."""
        return self.spec.obs_size

    @property
    def action_size(self) -> int:
        """Number of actuators."""
        return self.spec.action_size

    @property
    def backend(self) -> str:
        """What computes the physics, ``"mjx"`` or ``"mujoco"``."""
        return self.spec.engine
