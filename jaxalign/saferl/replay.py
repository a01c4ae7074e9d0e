"""A replay buffer on the device: a ring of the last steps of every environment, environments first."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxalign.core.types import PRNGKey


class Experience(NamedTuple):
    """Transitions as off-policy learners need them; actions are within [-1, 1]."""

    obs: Float[Array, "*batch O"]
    action: Float[Array, "*batch A"]
    reward: Float[Array, "*batch"]
    cost: Float[Array, "*batch K"]
    next_obs: Float[Array, "*batch O"]
    terminated: Bool[Array, "*batch"]


class Replay(NamedTuple):
    """Experience ``[B, S, ...]`` of B environments, S steps each.

    As environments come first the buffer is split over devices with them, and a device draws from its own.
    """

    data: Experience
    position: Int[Array, ""]  # where the next steps go
    size: Int[Array, ""]  # how many steps there are


def empty(like: Experience, slots: int) -> Replay:
    """A buffer of `slots` steps per environment for experience such as `like` ``[T, B, ...]``."""
    data = jax.tree.map(lambda x: jnp.zeros((x.shape[1], slots, *x.shape[2:]), x.dtype), like)
    return Replay(data, jnp.int32(0), jnp.int32(0))


def push(replay: Replay, new: Experience) -> Replay:
    """Adds T steps ``[T, B, ...]`` over the oldest; T must divide the number of slots."""
    length, slots = new.reward.shape[0], replay.data.reward.shape[1]

    def write(ring, x):
        start = (0, replay.position, *(0 for _ in x.shape[2:]))
        return jax.lax.dynamic_update_slice(ring, jnp.swapaxes(x, 0, 1), start)

    data = jax.tree.map(write, replay.data, new)
    return Replay(data, (replay.position + length) % slots, jnp.minimum(replay.size + length, slots))


def sample(replay: Replay, key: PRNGKey, per_env: int) -> Experience:
    """`per_env` random steps of every environment, with replacement: ``[B per_env, ...]``."""
    num_envs = replay.data.reward.shape[0]
    steps = jax.random.randint(key, (num_envs, per_env), 0, jnp.maximum(replay.size, 1))
    drawn = jax.tree.map(lambda ring: jax.vmap(lambda x, i: x[i])(ring, steps), replay.data)
    return jax.tree.map(lambda x: x.reshape(num_envs * per_env, *x.shape[2:]), drawn)
