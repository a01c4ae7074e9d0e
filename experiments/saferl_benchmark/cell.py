"""A cell of the grid: one algorithm in one environment, all seeds, limits and learning rates in one program."""

import dataclasses
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from config import Config

import envs_mjx
from jaxalign import dist, saferl, track
from jaxalign.core import prng
from jaxalign.core.errors import UserError
from jaxalign.saferl import evaluation


class Member(NamedTuple):
    """One run of a cell."""

    seed: int
    limit: float
    learning_rate: float

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"seed{self.seed}-limit{self.limit:g}-rate{self.learning_rate:g}"


@dataclasses.dataclass(frozen=True)
class Cell:
    """What one compilation runs."""

    config: Config
    algorithm: str
    env: str

    @property
    def folder(self) -> Path:
        """Where it is written."""
        return self.config.out / self.env.rpartition(":")[2] / self.algorithm

    @property
    def sizes(self) -> Any:
        """Of its learner."""
        family = type(saferl.CATALOGUE[self.algorithm].config)
        return self.config.off_policy if family is saferl.OffPolicyConfig else self.config.on_policy

    @property
    def iterations(self) -> int:
        """Of every member."""
        return -(-self.config.steps // self.sizes.steps_per_iteration)

    @property
    def members(self) -> list[Member]:
        """All combinations."""
        rates = [self.sizes.learning_rate if rate is None else rate for rate in self.config.learning_rates]
        return [Member(*values) for values in itertools.product(self.config.seeds, self.config.limits, rates)]

    @property
    def done(self) -> bool:
        """Whether every member has been evaluated."""
        return all((self.folder / member.name / "evaluation.json").exists() for member in self.members)


def cells(config: Config) -> Iterator[Cell]:
    """The whole grid."""
    for env in config.envs:
        for algorithm in config.algorithms:
            yield Cell(config, saferl.resolve(algorithm), env)


def run(cell: Cell) -> bool:
    """Trains a cell, from its last checkpoint if there is one, and evaluates it; False if it was interrupted.

    Raises:
        UserError: unknown names, or numbers that make no sense.
    """
    config, members = cell.config, cell.members
    mesh = dist.make_mesh(max(n for n in range(1, jax.device_count() + 1) if cell.sizes.num_envs % n == 0))
    try:
        env = saferl.select_costs(envs_mjx.make(cell.env, config.engine), config.costs)
    except ValueError as error:
        raise UserError(str(error)) from None
    limit = (config.limits[0],) * len(config.costs)
    learner = saferl.make(cell.algorithm, env, limit, total_iterations=cell.iterations, config=cell.sizes, mesh=mesh)

    def begin(seed, limit, rate):
        state = learner.init(jax.random.key(seed))
        hyper = state.hyper._replace(limit=jnp.full(len(config.costs), limit), learning_rate=rate)
        return state._replace(hyper=hyper)

    seeds, limits, rates = (np.array(column) for column in zip(*members, strict=True))
    columns = jnp.asarray(seeds), jnp.asarray(limits, jnp.float32), jnp.asarray(rates, jnp.float32)
    shape = jax.eval_shape(jax.vmap(begin), *columns)
    where = dist.shardings(shape, mesh, saferl.SPLIT, axis=1)
    like = jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shape, where)
    checkpoints = dist.Checkpoints(cell.folder / "checkpoints", keep=1)
    if checkpoints.latest() is None:
        state = jax.jit(jax.vmap(begin), out_shardings=where)(*columns)
    else:
        state = checkpoints.restore(like)
    step = jax.jit(jax.vmap(learner.step), in_shardings=(where,), out_shardings=(where, None), donate_argnums=0)
    state, finished = _train(cell, step, state, checkpoints)
    if finished:
        _evaluate(cell, env, state)
    checkpoints.close()
    return finished


def _train(cell: Cell, step, state, checkpoints: dist.Checkpoints):
    """The state at the end, or where a signal stopped it; saved either way."""
    done = int(jax.device_get(state.iteration)[0])
    size, saved = cell.sizes.steps_per_iteration, time.monotonic()
    trackers = [
        track.Jsonl(cell.folder / member.name / "metrics.jsonl", done * size if done else None)
        for member in cell.members
    ]
    total = cell.iterations * size * len(trackers)
    progress = track.Progress(total, done * size * len(trackers), cell.config.limits[:1])
    try:
        with dist.StopRequest() as stop:
            for iteration in range(done + 1, cell.iterations + 1):
                state, info = step(state)
                rows = _rows(cell, jax.device_get(info))
                for tracker, row in zip(trackers, rows, strict=True):
                    tracker.log(iteration * size, row)
                mean = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
                progress.log(iteration * size * len(trackers), mean)
                due = time.monotonic() - saved > cell.config.checkpoint_seconds
                if due or stop.received is not None or iteration == cell.iterations:
                    checkpoints.save(iteration, state)
                    saved = time.monotonic()
                if stop.received is not None:
                    return state, iteration == cell.iterations
    finally:
        for tracker in (*trackers, progress):
            tracker.close()
    return state, True


def _rows(cell: Cell, info) -> list[dict[str, float]]:
    """What is recorded of every member."""
    rows = []
    for i in range(len(cell.members)):
        row = {"episode_return": float(info.episode_return[i])}
        row |= {f"episode_cost/{name}": float(x) for name, x in zip(cell.config.costs, info.episode_cost[i])}
        row |= {f"multiplier/{name}": float(x) for name, x in zip(cell.config.costs, info.multiplier[i])}
        rows.append(row)
    return rows


def _evaluate(cell: Cell, env, state) -> None:
    """Every member on the same episodes; in worlds that know of a budget, under the member's own limit."""
    config = cell.config
    for limit in config.limits:
        chosen = [i for i, member in enumerate(cell.members) if member.limit == limit]
        world = saferl.world(cell.algorithm, env, (limit,) * len(config.costs))
        key = prng.stream(jax.random.key(0), "evaluation")
        states = jax.tree.map(lambda x, rows=np.array(chosen): x[rows], state)
        outcomes = evaluation.evaluate_sweep(world, cell.sizes, states, key, config.eval_episodes)
        for i, outcome in zip(chosen, outcomes, strict=True):
            costs = {name: outcome.costs[:, k].tolist() for k, name in enumerate(config.costs)}
            text = json.dumps({"return": outcome.returns.tolist(), "cost": costs})
            with track.replacing(cell.folder / cell.members[i].name / "evaluation.json") as temporary:
                temporary.write_text(text + "\n")
