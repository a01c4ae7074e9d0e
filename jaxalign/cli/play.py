"""Watching a policy: plays episodes of one environment, writes a film, prints what they earned."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro

import envs_mjx
from envs_mjx import EnvSpec, render
from envs_mjx.render import Frame
from jaxalign.cli import run
from jaxalign.core import prng
from jaxalign.core.errors import UserError
from jaxalign.core.types import Env
from jaxalign.saferl import evaluation, worlds

FRAMES_PER_SECOND = 25
DEFAULT_ENV = "SafetyPointGoal1-v0"


@dataclasses.dataclass(frozen=True)
class Play:
    """Film a policy, random actions by default.

    Attributes:
        env: environment id (see `jaxalign list`); by default that of the policy.
        policy: folder of a run, such as runs/NAME, whose last checkpoint acts; without it actions are random.
        out: the film, .mp4 or .gif; by default named after environment and seed.
        episodes: number of episodes.
        steps: of an episode, at most; by default until it ends.
        seed: of everything random.
        renderer: "gl" (MuJoCo, in perspective), "plot" (matplotlib, flat), or "auto": gl where this machine can.
        engine: physics engine, mujoco or mjx; by default the faster here, or that of the policy's run.
        camera: of the renderer gl: track, fixednear, fixedfar or vision; by default what suits the episode.
        deterministic: take the policy's mean action instead of sampling.
    """

    env: Annotated[str | None, tyro.conf.Positional] = None
    policy: Path | None = None
    out: Path | None = None
    episodes: int = 1
    steps: int | None = None
    seed: int = 0
    renderer: str = "auto"
    engine: str | None = None
    camera: str | None = None
    deterministic: bool = False


Act = Callable[[Any, Any], Any]


def play(config: Play) -> Path:
    """Plays, writes the film, prints return and cost of every episode; returns the film's path.

    Raises:
        UserError: a mistake in `config`, or the renderer cannot work here.
    """
    if config.episodes < 1:
        raise UserError(f"--episodes is {config.episodes}; choose 1 or more.")
    if config.steps is not None and config.steps < 1:
        raise UserError(f"--steps is {config.steps}; choose 1 or more.")
    if config.camera and config.renderer == "plot":
        raise UserError("--camera is of the renderer gl; leave it out with --renderer plot.")
    trained = run.read_config(config.policy) if config.policy else None
    env_id = config.env or (trained.env if trained else DEFAULT_ENV)
    if trained and config.engine not in (None, trained.engine):
        raise UserError(f"{config.policy} was trained with the engine {trained.engine}; leave --engine out.")
    if trained and trained.env != env_id:
        raise UserError(f"{config.policy} was trained on {trained.env}, not on {env_id}; leave the id out.")
    try:
        path = render.check(env_id, config.out or f"{env_id}-seed{config.seed}.mp4", config.renderer, config.camera)
        env, act = _policy(config, trained) if trained else _random(env_id, config.engine)
    except (ValueError, render.GLUnavailable) as error:
        raise UserError(str(error)) from None
    frames = _episodes(config, env, act)
    print(f"Film: {path} (drawn with {_write(config, env.spec, frames, path)})")
    return path


def _policy(config: Play, trained: run.TrainConfig) -> tuple[Env, Act]:
    assert config.policy is not None
    env, state = run.restore(config.policy, trained)
    return env, evaluation.actor(env, trained.sizes, state, config.deterministic)


def _random(env_id: str, engine: str | None) -> tuple[Env, Act]:
    run.keep_programs()
    env = envs_mjx.make(env_id, engine)
    low, high = (np.array(bound, np.float32) for bound in (env.spec.action_low, env.spec.action_high))
    return env, lambda key, obs: jax.random.uniform(key, low.shape, minval=low, maxval=high)


def _episodes(config: Play, env: Env, act: Act) -> list[Frame]:
    """Plays all episodes, printing each one's outcome."""
    reset = jax.jit(env.reset)

    @jax.jit
    def step(key, time, state, obs):
        state, after = env.step(state, act(jax.random.fold_in(key, time), obs))
        return state, after, render.seen(worlds.bare(state))

    frames = []
    root = prng.stream(jax.random.key(config.seed), "play")
    for episode in range(config.episodes):
        key_reset, key_act = jax.random.split(jax.random.fold_in(root, episode))
        state, obs = reset(key_reset)
        states, rewards, costs, over = [], [], [], False
        while not over and len(states) < (config.steps or env.spec.horizon):
            state, after, seen = step(key_act, np.int32(len(states)), state, obs)
            obs, over = after.obs, bool(after.terminated | after.truncated)
            states.append(jax.device_get(seen))
            rewards.append(float(after.info.get(worlds.TASK_REWARD, after.reward)))
            costs.append(float(after.info["cost"]))
        stacked = jax.tree.map(lambda *x: np.stack(x), *states)
        frames += render.frames(stacked, np.array(rewards), np.array(costs), _stride(env.spec))
        print(f"Episode {episode + 1}: return {sum(rewards):.2f}, cost {sum(costs):.0f}, {len(rewards)} steps")
    return frames


def _stride(spec: EnvSpec) -> int:
    """Steps per frame, so that a film runs at about the speed of its world."""
    return max(1, round(1 / (FRAMES_PER_SECOND * spec.control_dt)))


def _write(config: Play, spec: EnvSpec, frames: list[Frame], path: Path) -> str:
    fps = round(1 / (_stride(spec) * spec.control_dt))
    try:
        return render.video(spec.id, frames, path, fps, config.renderer, config.camera)
    except (ValueError, render.GLUnavailable) as error:
        raise UserError(str(error)) from None
    except OSError as error:
        raise UserError(f"Cannot write {path} ({error.strerror or error}); choose another --out.") from None
