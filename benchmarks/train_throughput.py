"""End-to-end training speed: environment steps per second, rollout and update apart, compile time and peak memory.

    python benchmarks/train_throughput.py [--algorithms ppo_lag cpo ...]
    python benchmarks/train_throughput.py --seeds 8 --algorithms ppo_lag

"end to end" is the whole learner step, timed over many iterations as `jaxalign train` runs it; "rollout" times the same
simulation and policy alone; the update is the difference. Nothing is left out but compilation, which is given apart.

The arithmetic that bounds the update: a network of 60-64-64 units and 1 or 2 outputs has 8 k weights, about 50 kFLOP
per sample for a forward and backward pass; 4 passes of the policy and 2 of two critics make 0.4 MFLOP per step.
"""

import argparse
import dataclasses
import os
import resource
import time

import jax

jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)

import jax.numpy as jnp  # noqa: E402

import envs_mjx  # noqa: E402
from jaxalign import dist, saferl  # noqa: E402
from jaxalign.saferl import offpolicy, onpolicy  # noqa: E402

LIMIT = (25.0,)


def clock(fun, state, iterations: int) -> tuple[float, float]:
    """Seconds to compile (the first call less a later one), and per call, of a jitted `fun(state) -> (state, ...)`."""
    start = time.perf_counter()
    state, _ = jax.block_until_ready(fun(state))
    first = time.perf_counter() - start
    start = time.perf_counter()
    for _ in range(iterations):
        state, _ = fun(state)
    jax.block_until_ready(state)
    seconds = (time.perf_counter() - start) / iterations
    return first - seconds, seconds


def rollout_alone(algorithm: str, env, config, mesh):
    """``state -> (state, something computed from the data)``: an iteration of the learner without its updates."""
    parts = saferl.CATALOGUE[algorithm].parts()
    if isinstance(config, saferl.OffPolicyConfig):
        explore = offpolicy.collector(offpolicy.scaled(env), parts, config, mesh)

        def collect(state):
            return explore(state.actor, jnp.bool_(False), state.rollout)
    else:
        act = onpolicy.collector(env, parts.world, LIMIT, config, mesh)

        def collect(state):
            budget = parts.constraint.budget(state.constraint, state.hyper.limit)
            return act(state.policy, state.statistics, budget, state.hyper.limit, state.rollout)

    def simulate(state):
        envs, data = collect(state)
        return state._replace(rollout=envs), data.reward.mean()

    return simulate


def prepared(algorithm: str, env, iterations: int):
    """Learner, sizes, mesh; off-policy learners without their first random steps, in which they do not update."""
    config, mesh = saferl.CATALOGUE[algorithm].config, dist.make_mesh()
    if isinstance(config, saferl.OffPolicyConfig):
        config = dataclasses.replace(config, random_steps=0)
    learner = saferl.make(algorithm, env, LIMIT, total_iterations=iterations, config=config, mesh=mesh)
    return learner, config, mesh


def measure(algorithm: str, env_id: str, engine: str | None, iterations: int) -> str:
    """A row of the table."""
    env = saferl.select_costs(envs_mjx.make(env_id, engine), ("cost",))
    learner, config, mesh = prepared(algorithm, env, iterations)
    where = dist.shardings(jax.eval_shape(learner.init, jax.random.key(0)), mesh, saferl.SPLIT)
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    init = jax.jit(learner.init, out_shardings=where)
    key = jax.device_put(jax.random.key(0), everywhere)
    step = jax.jit(learner.step, in_shardings=(where,), out_shardings=(where, None), donate_argnums=0)
    compiled, seconds = clock(step, init(key), iterations)

    simulate = rollout_alone(algorithm, env, config, mesh)
    simulate = jax.jit(simulate, in_shardings=(where,), out_shardings=(where, None), donate_argnums=0)
    _, alone = clock(simulate, init(key), iterations)
    steps = config.steps_per_iteration
    cells = [algorithm, env_id, env.spec.engine, f"{steps / seconds:,.0f}", f"{steps / alone:,.0f}"]
    cells += [f"{alone:.2f}", f"{seconds - alone:.2f}", f"{compiled:.1f}"]
    return "| " + " | ".join(cells) + " |"


def sweep(algorithm: str, env_id: str, engine: str | None, iterations: int, seeds: int) -> str:
    """Seconds per iteration of one seed, and of `seeds` in one program."""
    env = saferl.select_costs(envs_mjx.make(env_id, engine), ("cost",))
    learner, _, mesh = prepared(algorithm, env, iterations)
    cells = []
    for number in (1, seeds):
        keys = jax.random.split(jax.random.key(0), number)
        shape = jax.eval_shape(jax.vmap(learner.init), keys)
        where = dist.shardings(shape, mesh, saferl.SPLIT, axis=1)
        state = jax.jit(jax.vmap(learner.init), out_shardings=where)(keys)
        step = jax.jit(jax.vmap(learner.step), in_shardings=(where,), out_shardings=(where, None), donate_argnums=0)
        cells.append(clock(step, state, iterations)[1])
    one, many = cells
    return f"| {algorithm} | {env_id} | {one:.2f} | {many:.2f} | {many / one:.1f} |"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithms", nargs="+", default=list(saferl.names()))
    parser.add_argument("--env", default="SafetyPointGoal1-v0")
    parser.add_argument("--engine", default=None)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=0, help="time a sweep of so many seeds beside one, instead")
    args = parser.parse_args()
    print(f"{jax.device_count()} x {jax.devices()[0].device_kind}, jax {jax.__version__}\n")
    if args.seeds:
        print(f"| algorithm | environment | s per iteration, 1 seed | {args.seeds} seeds in one program | ratio |")
        print("|---|---|---|---|---|")
        for algorithm in args.algorithms:
            print(sweep(algorithm, args.env, args.engine, args.iterations, args.seeds), flush=True)
        return
    print("| algorithm | environment | engine | env-steps/s | rollout alone | rollout s | update s | compile s |")
    print("|---|---|---|---|---|---|---|---|")
    for algorithm in args.algorithms:
        print(measure(algorithm, args.env, args.engine, args.iterations), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak memory of this process: {peak:,.0f} MB")


if __name__ == "__main__":
    main()
