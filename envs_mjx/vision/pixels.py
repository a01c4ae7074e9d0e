"""Navigation worlds whose observation is a dictionary with a picture from the robot's own camera.

The physics runs as in `envs_mjx.make`, compiled; the picture is drawn by MuJoCo's renderer on the host, so that `reset`
and `step` cannot be put into `jax.jit`, `jax.vmap` or `jax.lax.scan`. They take batches as they are: the physics of a
batch is one compiled call, but its pictures are drawn one after the other. MJX-Warp has a batched renderer for NVIDIA
GPUs (``mujoco.mjx.create_render_context``), which needs the package warp-lang and a world simulated by MJX-Warp; that
is no engine of this package, so it is not used here.

Source: the ids that end in ``Vision-v0`` of Safety-Gymnasium 1.0.0 (Ji et al. 2023, https://arxiv.org/abs/2310.12567).
Deviations, see `envs_mjx.render.stage`: a black sky without stars, a racecar of simple shapes.
"""

import difflib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, UInt8

import envs_mjx
from envs_mjx.api import EnvSpec, TimeStep
from envs_mjx.registry import bare, navigation_ids
from envs_mjx.render.gl import canvas
from envs_mjx.render.stage import seen

SIZE = (256, 256)

Observation = dict[str, Any]


class VisionEnv(NamedTuple):
    """``reset(key) -> (state, obs)`` and ``step(state, action) -> (state, TimeStep)``, on the host, without auto-reset.

    A key ``[B]``, and then states and actions ``[B, A]``, make a batch. An observation is a dictionary: the blocks of
    ``spec.obs_blocks`` by name, ``[n]`` or ``[B, n]``, and ``"vision"``, a uint8 array ``[H, W, 3]`` or
    ``[B, H, W, 3]``.

    Attributes:
        reset: begins an episode.
        step: one control step; ``TimeStep.obs`` is such a dictionary.
        spec: of the environment without the picture, but with the id that was asked for.
        size: of the picture: width, height, pixels.
    """

    reset: Callable[[Any], tuple[Any, Observation]]
    step: Callable[[Any, Any], tuple[Any, TimeStep]]
    spec: EnvSpec
    size: tuple[int, int]


def ids() -> tuple[str, ...]:
    """All ids that `make` knows, sorted: every navigation id with ``Vision`` before its version."""
    return tuple(sorted(env_id.replace("-", "Vision-") for env_id in navigation_ids()))


def make(env_id: str, size: tuple[int, int] = SIZE, engine: str | None = None) -> VisionEnv:
    """The environment `env_id` with a picture in its observation.

    Args:
        env_id: one of `ids()`, such as ``"SafetyPointGoal1Vision-v0"``; for a world of one's own, registered as
            ``Name-v0`` in a file or module, ``"FILE.py:NameVision-v0"``.
        size: width and height of the picture, pixels.
        engine: see `envs_mjx.make`.

    Raises:
        ValueError: unknown id (the message suggests the nearest) or engine, a file that cannot be imported, or a size
            without pixels.
        envs_mjx.render.GLUnavailable: no OpenGL context can be made on this machine.
    """
    env_id = bare(env_id)
    base = env_id.replace("Vision-", "-")
    if env_id not in ids():
        near = difflib.get_close_matches(env_id, ids(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"Unknown vision id {env_id!r}.{hint} envs_mjx.vision.ids() lists them.")
    env = envs_mjx.make(base, engine)
    canvas(base, *size)  # a machine that cannot draw says so now
    reset, step = _compiled(env.reset), _compiled(env.step)

    def look(state: Any, obs: Array, batched: bool) -> Observation:
        host = np.asarray(obs)
        ends = np.cumsum([0, *(number for _, number in env.spec.obs_blocks)])
        blocks = {name: host[..., ends[i] : ends[i + 1]] for i, (name, _) in enumerate(env.spec.obs_blocks)}
        return blocks | {"vision": _pictures(base, size, state, len(host) if batched else None)}

    def begin(key: Key[Array, "*batch"]) -> tuple[Any, Observation]:
        batched = key.ndim > (0 if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else 1)  # or a key of old style
        state, obs = reset[batched](key)
        return state, look(state, obs, batched)

    def advance(state: Any, action: Any) -> tuple[Any, TimeStep]:
        action = np.asarray(action, np.float32)
        batched = action.ndim > 1
        state, after = step[batched](state, action)
        return state, after._replace(obs=look(state, after.obs, batched))

    return VisionEnv(begin, advance, env.spec._replace(id=env_id), size)


def _compiled(fun: Callable) -> tuple[Callable, Callable]:
    """`fun` for one environment, and for a batch."""
    return jax.jit(fun), jax.jit(jax.vmap(fun))


def _pictures(env_id: str, size: tuple[int, int], state: Any, batch: int | None) -> UInt8[np.ndarray, "*batch H W 3"]:
    """What the robots see."""
    painter = canvas(env_id, *size)
    shown = jax.device_get(seen(state))
    if batch is None:
        return painter.draw(shown, "vision")
    return np.stack([painter.draw(jax.tree.map(lambda x, i=i: x[i], shown), "vision") for i in range(batch)])
