"""Groups of runs on devices: each device computes its own group, and nothing passes between them.

So a run's numbers do not depend on how many devices there are, two or more: the program that a device runs is the same.
On a single device XLA does not run its partitioner, and rounds otherwise.
"""

import json
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from config import Group, Program
from jax.sharding import AxisType, Mesh, PartitionSpec

import envs_mjx
from jaxalign import dist, saferl, track
from jaxalign.core import prng
from jaxalign.core.errors import UserError
from jaxalign.saferl import evaluation, worlds


def run(program: Program) -> bool:
    """Trains and evaluates this process's share of a program's groups; False if it was interrupted.

    Raises:
        UserError: unknown names, or numbers that make no sense.
    """
    mine = [g for g in program.groups[jax.process_index() :: jax.process_count()] if not g.done]
    if not mine:
        return True
    trainer = Trainer(program)
    by_iteration: dict[int, list[Group]] = {}
    for group in mine:  # those that were interrupted at the same iteration go on together
        by_iteration.setdefault(trainer.saved_iteration(group), []).append(group)
    for groups in by_iteration.values():
        for first in range(0, len(groups), trainer.devices):
            if not trainer.wave(groups[first : first + trainer.devices]):
                return False
    return True


class Trainer:
    """A program compiled for all devices of this process, a group on each."""

    def __init__(self, program: Program):
        self.program, config = program, program.config
        try:
            self.env = saferl.select_costs(envs_mjx.make(program.env, config.engine), config.costs)
        except ValueError as error:
            raise UserError(str(error)) from None
        self.devices = config.devices or jax.local_device_count()
        if not 1 <= self.devices <= jax.local_device_count():
            raise UserError(f"--devices is {self.devices}, but JAX sees {jax.local_device_count()} in this process.")
        devices = np.array(jax.local_devices()[: self.devices]).reshape(self.devices, 1, 1)
        self.mesh = Mesh(devices, dist.mesh.AXES, axis_types=(AxisType.Auto,) * 3)
        alone = dist.make_mesh(1)  # the learner itself is spread over nothing
        limit = (config.limits[0],) * len(config.costs)
        learner = saferl.make(
            program.algorithm, self.env, limit, total_iterations=program.iterations, config=program.sizes, mesh=alone
        )

        def begin(seed, limit, rate, critic_rate):
            state = learner.init(jax.random.key(seed))
            names = {"learning_rate": rate, "critic_learning_rate": critic_rate}
            known = {name: x for name, x in names.items() if name in type(state.hyper)._fields}
            return state._replace(hyper=state.hyper._replace(limit=jnp.full(len(config.costs), limit), **known))

        self.begin, self.step = self._spread(begin), self._spread(learner.step, donate_argnums=0)

    def _spread(self, fun, **options):
        """``vmap(fun)`` over runs, those of a group on one device."""
        over = PartitionSpec(dist.mesh.AXES)
        spread = jax.shard_map(jax.vmap(fun), mesh=self.mesh, in_specs=over, out_specs=over, check_vma=False)
        return jax.jit(spread, **options)

    def wave(self, groups: Sequence[Group]) -> bool:
        """Trains as many groups as there are devices, or fewer, from where they were; False if it was interrupted."""
        program, G = self.program, self.program.config.together
        filled = [*groups, *[groups[-1]] * (self.devices - len(groups))]
        members = [member for group in filled for member in group.members]
        columns = [np.array(column, np.float32) for column in zip(*members, strict=True)]
        *hyper, seeds = columns
        start = seeds.astype(np.uint32), *hyper
        done = self.saved_iteration(groups[0])
        state = self.begin(*start) if not done else self._load(filled, jax.eval_shape(self.begin, *start))
        kept = range(len(groups) * G)
        size = program.sizes.steps_per_iteration
        logs = {m: track.Jsonl(program.folder / m.name / "metrics.jsonl", done * size or None) for m in {*members}}
        total = size * len(logs)
        progress = track.Progress(total * program.iterations, total * done, program.config.limits[:1])
        saved = time.monotonic()
        try:
            with dist.StopRequest() as stop:
                for iteration in range(done + 1, program.iterations + 1):
                    state, info = self.step(state)
                    rows = dict(zip(members, _rows(program, jax.device_get(info)), strict=True))
                    for member, log in logs.items():
                        log.log(iteration * size, rows[member])
                    mean = {key: float(np.mean([row[key] for row in rows.values()])) for key in rows[members[0]]}
                    progress.log(iteration * total, mean)
                    last = stop.received is not None or iteration == program.iterations
                    if last or time.monotonic() - saved > program.config.checkpoint_seconds:
                        self._save(groups, iteration, state)
                        saved = time.monotonic()
                    if stop.received is not None:
                        return False
        finally:
            for tracker in (*logs.values(), progress):
                tracker.close()
        self._evaluate(members, kept, state)
        return True

    def saved_iteration(self, group: Group) -> int:
        """Where a group was left; 0 if it was never."""
        path = group.folder / "state.npz"
        if not path.exists():
            return 0
        try:
            with np.load(path) as found:
                return int(found["iteration"])
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{path} cannot be read ({error}); remove it to begin the group anew.") from None

    def _save(self, groups: Sequence[Group], iteration: int, state: Any) -> None:
        G = self.program.config.together
        leaves = [np.asarray(x) for x in jax.tree.leaves(_numbers(state))]
        for i, group in enumerate(groups):
            arrays = {f"leaf{k}": x[i * G : (i + 1) * G] for k, x in enumerate(leaves)}
            group.folder.mkdir(parents=True, exist_ok=True)
            with track.replacing(group.folder / "state.npz") as path, path.open("wb") as file:
                np.savez(file, iteration=iteration, **arrays)

    def _load(self, groups: Sequence[Group], like: Any) -> Any:
        plain = jax.eval_shape(_numbers, like)
        leaves, tree = jax.tree.flatten(plain)
        found = [np.load(group.folder / "state.npz") for group in groups]
        arrays = [np.concatenate([f[f"leaf{k}"] for f in found]) for k in range(len(leaves))]
        for x, want in zip(arrays, leaves, strict=True):
            if x.shape != want.shape or x.dtype != want.dtype:
                raise UserError(
                    f"{groups[0].folder} holds the state of another grid; use the same sizes, or another --out."
                )
        place = jax.sharding.NamedSharding(self.mesh, PartitionSpec(dist.mesh.AXES))
        state = jax.device_put(jax.tree.unflatten(tree, arrays), place)
        return jax.tree.map(lambda x, want: jax.random.wrap_key_data(x) if _is_key(want) else x, state, like)

    def _evaluate(self, members: Sequence[Any], kept: range, state: Any) -> None:
        """Every run on the same episodes; in worlds that know of a budget, under the run's own limit."""
        config, program = self.program.config, self.program
        world_of = getattr(saferl.CATALOGUE[program.algorithm].parts(), "world", worlds.plain)
        limits = {members[i].limit for i in kept}
        if world_of is worlds.plain:  # the same world for every limit
            limits = {members[0].limit}
        for limit in limits:
            world = saferl.world(program.algorithm, self.env, (limit,) * len(config.costs))
            key = prng.stream(jax.random.key(0), "evaluation")
            outcomes = evaluation.evaluate_sweep(
                world, program.sizes, state, key, config.eval_episodes, self._spread_outcome
            )
            for i in kept:
                if members[i].limit == limit or world_of is worlds.plain:
                    costs = {name: outcomes[i].costs[:, k].tolist() for k, name in enumerate(config.costs)}
                    text = json.dumps({"return": outcomes[i].returns.tolist(), "cost": costs})
                    with track.replacing(program.folder / members[i].name / "evaluation.json") as path:
                        path.write_text(text + "\n")

    def _spread_outcome(self, fun):
        over = PartitionSpec(dist.mesh.AXES)
        return jax.shard_map(fun, mesh=self.mesh, in_specs=(over, PartitionSpec()), out_specs=over, check_vma=False)


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _numbers(state: Any) -> Any:
    """The state with random keys as their numbers."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, state)


def _rows(program: Program, info: Any) -> list[dict[str, float]]:
    """What is recorded of every run."""
    costs = program.config.costs
    return [
        {"episode_return": float(info.episode_return[i])}
        | {f"episode_cost/{name}": float(x) for name, x in zip(costs, info.episode_cost[i])}
        | {f"multiplier/{name}": float(x) for name, x in zip(costs, info.multiplier[i])}
        for i in range(len(info.episode_return))
    ]
