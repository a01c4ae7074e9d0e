"""A training run: build, train with checkpoints and records, evaluate. Used by the command line and by experiments."""

import contextlib
import dataclasses
import itertools
import json
import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import envs_mjx
from envs_mjx import render
from jaxalign import dist, saferl, track
from jaxalign.cli.config import TrainConfig, check, read_config, to_json
from jaxalign.core import prng
from jaxalign.core.errors import UserError
from jaxalign.core.types import Env, Learner
from jaxalign.saferl import evaluation
from jaxalign.track.wandb import Wandb

VIDEO_FRAMES = 250


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run leaves behind.

    Attributes:
        folder: of the run.
        rows: metrics, an iteration each; empty in all processes but the first.
        evaluation: None if the run was interrupted, and in all processes but the first.
        stopped: whether it was interrupted.
    """

    folder: Path
    rows: list[dict[str, Any]]
    evaluation: evaluation.Evaluation | None
    stopped: bool


def prepare_devices(config: TrainConfig) -> int:
    """Chooses the number of devices; on a CPU also creates one JAX device per core. Call before JAX is used.

    Raises:
        UserError: there are not that many, or the environments cannot be split over them.
    """
    cores = os.cpu_count() or 1
    if config.devices is not None and config.devices < 1:
        raise UserError(f"--devices is {config.devices}; choose 1 or more.")
    if config.mesh is not None:
        if config.devices is not None:
            raise UserError("--mesh says how many devices there are; leave --devices out.")
        cores = dist.read_mesh(config.mesh).devices or cores
    if jax.config.jax_num_cpu_devices < 0 and "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # JAX already runs with the devices it has
            jax.config.update("jax_num_cpu_devices", cores)
    keep_programs()
    dist.start(config.distributed)
    available, num_envs = jax.device_count(), config.sizes.num_envs
    if jax.process_count() > 1:  # every process must own a part
        if config.devices not in (None, available):
            raise UserError(f"--devices is {config.devices}, but {jax.process_count()} processes have {available}.")
        return available
    if config.devices is None:
        return max(n for n in range(1, available + 1) if num_envs % n == 0)
    if config.devices > available:
        raise UserError(f"--devices is {config.devices}, but JAX sees {available} here; choose 1 to {available}.")
    return config.devices


def keep_programs() -> None:
    """Has JAX keep compiled programs on disk, unless it does already."""
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "jaxalign" / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


def build(config: TrainConfig) -> tuple[Env, Learner, dist.Mesh]:
    """Environment with the constrained costs, learner and mesh of a run.

    Raises:
        UserError: unknown names or numbers that make no sense.
    """
    check(config)
    number = prepare_devices(config)
    mesh = dist.make_mesh(number)
    if config.mesh is not None:
        mesh = dist.make_mesh(**dataclasses.asdict(dist.read_mesh(config.mesh)))
    try:
        env = envs_mjx.make(config.env, config.engine)
    except ValueError as error:
        raise UserError(str(error)) from None
    for name, limit in zip(config.costs, config.cost_limit, strict=True):
        if limit > env.spec.horizon:
            raise UserError(
                f"--cost-limit {limit:g} for {name} can never be exceeded: an episode of {config.env} has "
                f"{env.spec.horizon} steps and each costs at most 1; choose a lower limit, or ppo to train without one."
            )
    env = saferl.select_costs(env, config.costs)
    learner = saferl.make(
        config.algorithm,
        env,
        config.cost_limit,
        total_iterations=config.iterations,
        config=config.sizes,
        mesh=mesh,
    )
    return env, learner, mesh


def train(config: TrainConfig) -> Result:
    """Runs a training from its beginning.

    Raises:
        UserError: a mistake in `config`, or its folder exists.
    """
    built = build(config)
    config = dataclasses.replace(config, engine=built[0].spec.engine)  # whoever goes on, on whatever platform, needs it
    if config.mesh is not None:  # the run may be moved; its file need not
        config = dataclasses.replace(config, mesh=None, devices=built[2].size)

    def begin() -> str:
        folder = _new_folder(config)
        _write_json(folder / "config.json", to_json(config) | {"versions": _versions()})
        return str(folder)

    folder = Path(dist.from_first(begin))
    return _Run(config, folder, *built).go(resume=False)


def resume(folder: Path, distributed: str = "off", devices: int | None = None) -> Result:
    """Continues an interrupted run from its last checkpoint, as if nothing had happened.

    Args:
        folder: of the run.
        distributed: as in `TrainConfig`; the run may go on with other processes and devices than before.
        devices: how many; by default as before.

    Raises:
        UserError: there is no such run or no checkpoint.
    """
    config = read_config(folder)
    config = dataclasses.replace(config, distributed=distributed, devices=devices or config.devices)
    return _Run(config, folder, *build(config)).go(resume=True)


def evaluate(folder: Path, episodes: int, seed: int, deterministic: bool, video: bool) -> evaluation.Evaluation:
    """Evaluates the last checkpoint of a run, prints the closing table, writes `evaluation-seedN.json`.

    Raises:
        UserError: there is no such run or no checkpoint.
    """
    if episodes < 2:
        raise UserError(f"--episodes is {episodes}; an interval needs at least 2.")
    config = dataclasses.replace(read_config(folder), eval_episodes=episodes, video=video)
    run = _Run(config, folder, *build(config))
    return run.evaluate(run.checkpoints.restore(run.like()), seed, f"evaluation-seed{seed}", deterministic)


def restore(folder: Path, config: TrainConfig) -> tuple[Env, Any]:
    """Environment as the policy sees it, and learner's state of the last checkpoint of a run.

    Raises:
        UserError: there is no checkpoint, or it cannot be read.
    """
    run = _Run(config, folder, *build(config))
    return saferl.world(config.algorithm, run.env, config.cost_limit), run.checkpoints.restore(run.like())


class _Run:
    """One run in progress."""

    def __init__(self, config: TrainConfig, folder: Path, env: Env, learner: Learner, mesh: dist.Mesh):
        self.config, self.folder, self.env, self.learner, self.mesh = config, folder, env, learner, mesh
        self.checkpoints = dist.Checkpoints(folder / "checkpoints")
        self.limits = dict(zip(config.costs, config.cost_limit, strict=True))
        self.key = jax.random.key(config.seed)
        shape = jax.eval_shape(learner.init, self.key)
        self.where = dist.shardings(shape, mesh, saferl.SPLIT)
        self._finite = jax.jit(_finite)
        self.shape = shape

    def like(self):
        """The state's shapes and places, for restoring."""
        return jax.tree.map(
            lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), self.shape, self.where
        )

    def go(self, resume: bool) -> Result:
        """Trains to the end or until asked to stop, then evaluates."""
        state = self.checkpoints.restore(self.like()) if resume else self._begin()
        done = int(state.iteration)
        trackers = self._trackers(done * self.config.sizes.steps_per_iteration if resume else None)
        try:
            with dist.StopRequest() as stop:
                state, stopped = self._loop(state, done, trackers, stop)
        finally:
            trackers.close()
        if not dist.is_first():
            return Result(self.folder, [], None, stopped)
        rows = track.read_jsonl(self.folder / "metrics.jsonl")
        title = f"{self.config.algorithm} on {self.config.env}, seed {self.config.seed}"
        track.learning_curve(rows, self.folder / "learning_curve.png", self.limits, title)
        if stopped:
            by = stop.received.name if stop.received else "another process"
            print(f"\nStopped by {by} and saved. Continue with:\n  jaxalign resume {self.folder}")
            return Result(self.folder, rows, None, stopped)
        return Result(self.folder, rows, self.evaluate(state, self.config.seed, "evaluation"), stopped)

    def _begin(self):
        """The initial state, saved at once: from here on a run can be resumed whenever it dies."""
        begin = jax.jit(lambda data: self.learner.init(jax.random.wrap_key_data(data)), out_shardings=self.where)
        state = begin(np.asarray(jax.random.key_data(self.key)))  # NumPy: equal in all processes, where JAX's are local
        self.checkpoints.save(0, state)
        return state

    def _loop(self, state, done: int, trackers: track.Tracker, stop: dist.StopRequest) -> tuple[Any, bool]:
        """The final state, and whether somebody asked to stop."""
        step = jax.jit(
            self.learner.step, in_shardings=(self.where,), out_shardings=(self.where, None), donate_argnums=0
        )
        saved, clock = time.monotonic(), _Clock(done)
        pending: tuple[int, Any] | None = None
        stopped = False
        for iteration in range(done + 1, self.config.iterations + 1):
            state, info = step(state)
            if pending is not None:  # recorded while the device works on the next iteration
                self._record(*pending, trackers, clock)
            pending = iteration, info
            late = time.monotonic() - saved >= self.config.checkpoint_seconds
            stopped, due = dist.any_of(stop.received is not None, late)
            if due or stopped or iteration == self.config.iterations:
                self._record(*pending, trackers, clock)
                pending = None
                if not self._finite(evaluation.learned(state)):
                    raise UserError(
                        f"The policy holds numbers that are not finite after iteration {iteration}; the checkpoint "
                        "before it is kept. Start anew with a lower learning rate."
                    )
                self.checkpoints.save(iteration, state)
                saved = time.monotonic()
            if stopped:
                break
        return state, stopped

    def _record(self, iteration: int, info, trackers: track.Tracker, clock: "_Clock") -> None:
        info = jax.device_get(info)
        costs, spi = self.config.costs, self.config.sizes.steps_per_iteration
        metrics = {"episode_return": float(info.episode_return)}
        metrics |= {f"episode_cost/{name}": float(x) for name, x in zip(costs, info.episode_cost, strict=True)}
        metrics |= {f"multiplier/{name}": float(x) for name, x in zip(costs, info.multiplier, strict=False)}
        metrics |= {name: float(x) for name, x in info.extra.items()}
        metrics |= {"time/env_steps_per_second": clock.rate(iteration) * spi}
        trackers.log(iteration * spi, metrics)

    def _trackers(self, resume_step: int | None) -> track.Composite:
        total = self.config.iterations * self.config.sizes.steps_per_iteration
        if not dist.is_first():
            return track.Composite([])
        trackers: list[track.Tracker] = [
            track.Jsonl(self.folder / "metrics.jsonl", resume_step),
            track.TensorBoard(self.folder / "tensorboard", resume_step),
            track.Progress(total, resume_step or 0, self.config.cost_limit),
        ]
        if self.config.wandb:
            settings = self.folder / "wandb", self.folder.name, to_json(self.config), resume_step
            trackers.append(Wandb(self.config.wandb, *settings))
        return track.Composite(trackers)

    def evaluate(self, state, seed: int, name: str, deterministic: bool = False) -> evaluation.Evaluation:
        """Evaluates, films, writes `NAME.json` and prints the closing table."""
        world = saferl.world(self.config.algorithm, self.env, self.config.cost_limit)
        act = evaluation.actor(world, self.config.sizes, state, deterministic)
        key = prng.stream(jax.random.key(seed), "evaluation")
        outcome = evaluation.evaluate(world, act, key, self.config.eval_episodes)
        costs = {name: outcome.costs[:, k] for k, name in enumerate(self.config.costs)}
        summary = {"episodes": self.config.eval_episodes, "seed": seed, "deterministic": deterministic}
        summary["return"] = outcome.returns.tolist()
        summary["cost"] = {name: x.tolist() for name, x in costs.items()}
        _write_json(self.folder / f"{name}.json", summary)
        print(f"\n{self.config.eval_episodes} episodes of {self.config.env} after {int(state.iteration)} iterations:\n")
        print(track.evaluation_table(outcome.returns, costs, self.limits))
        if self.config.video:
            self._film(outcome.film, int(outcome.lengths[0]))
        print(f"\nWritten to {self.folder}")
        return outcome

    def _film(self, film: evaluation.Film, length: int) -> None:
        stride = max(1, length // VIDEO_FRAMES)
        states, reward, cost = jax.tree.map(lambda x: np.asarray(x)[:length], film)
        frames = render.frames(states, reward, cost.sum(axis=1), stride)
        path = self.folder / "policy.gif"
        print(f"\nFilm of one episode: {path} (drawn with {render.video(self.config.env, frames, path)})")


def _finite(tree: Any) -> jax.Array:
    return jnp.all(jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(tree)]))


class _Clock:
    """Iterations per second between records."""

    def __init__(self, done: int):
        self.last = done, time.monotonic()

    def rate(self, iteration: int) -> float:
        """Iterations per second since the last call."""
        before, now = self.last, time.monotonic()
        self.last = iteration, now
        return (iteration - before[0]) / max(now - before[1], 1e-9)


def _new_folder(config: TrainConfig) -> Path:
    if config.name is not None:
        folder = config.out / config.name
        if folder.exists():
            raise UserError(f"{folder} exists; choose another --name, or continue it with `jaxalign resume {folder}`.")
    else:
        name = f"{config.algorithm}-{config.env.rpartition(':')[2]}-seed{config.seed}"
        candidates = (config.out / (f"{name}-{n}" if n > 1 else name) for n in itertools.count(1))
        folder = next(candidate for candidate in candidates if not candidate.exists())
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(
            f"Cannot create the folder {folder} ({error.strerror}); choose another --out or --name."
        ) from None
    return folder


def _versions() -> dict[str, str]:
    packages = ("jaxalign", "jax", "jaxlib", "flax", "optax", "mujoco", "mujoco-mjx", "numpy")
    found = {name: metadata.version(name) for name in packages if _installed(name)}
    return found | {"python": platform.python_version(), "device": jax.devices()[0].device_kind}


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _write_json(path: Path, value: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(temporary, path)
