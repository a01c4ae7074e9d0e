"""Environment steps per second with random actions and auto-reset, on all cores or devices, beside Safety-Gymnasium.

    python benchmarks/env_throughput.py [--peer-python PATH]

Ours includes resets, observations, rewards and costs; the peer's leaves its resets out (a navigation reset costs it
about a second). ``--peer-python`` names the interpreter of an environment in which ``safety-gymnasium==1.0.0`` is
installed (Python 3.10 or older); it runs right after ours, on the same machine. By default one id per family.

One step of a navigation world is 10 physics substeps of 2 to 10 ms; of a velocity robot 4 or 5 of 2 to 10 ms, each of
which is four evaluations of the dynamics where the integrator is Runge-Kutta (Ant, Racecar, all velocity robots but
HalfCheetah).

What bounds it. With engine ``mujoco`` the C engine's own stepping: a free Point needs none (it moves
in closed form), every other robot is stepped in C in every step. With engine ``mjx`` on a CPU the bound is
the number of instructions of MJX; on an accelerator the memory that the batch's arrays move ("MB per 1,000").
"""

import argparse
import functools
import json
import os
import resource
import subprocess
import time
from pathlib import Path

import jax

jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)

import jax.numpy as jnp  # noqa: E402

import envs_mjx  # noqa: E402
from jaxalign import dist  # noqa: E402
from jaxalign.saferl import rollout  # noqa: E402

FAMILIES = (
    *(f"SafetyPoint{task}-v0" for task in ("Goal0", "Goal1", "Goal2", "Push1", "Button1", "Circle1", "Run0")),
    *(f"Safety{agent}-v0" for agent in ("CarGoal1", "CarGoal2", "CarPush1", "RacecarGoal1", "DoggoGoal1", "AntGoal1")),
    *(f"Safety{robot}Velocity-v1" for robot in ("Ant", "HalfCheetah", "Hopper", "Walker2d", "Swimmer", "Humanoid")),
)


def random_policy(env, keys, obs):
    """Uniform actions in the actuators' range."""
    low, high = jnp.array(env.spec.action_low), jnp.array(env.spec.action_high)
    action = jax.vmap(lambda key: jax.random.uniform(key, low.shape, minval=low, maxval=high))(keys)
    return action, jnp.zeros(obs.shape[0])


def measure(env_id: str, engine: str, num_envs: int, steps: int, repeats: int) -> dict[str, float]:
    """Median steps/s over repeats, seconds to compile reset and rollout, and MB of state and scratch per 1,000 envs."""
    env = rollout.select_costs(envs_mjx.make(env_id, engine), ("cost",))
    mesh = dist.make_mesh()
    act = functools.partial(random_policy, env)
    begin = dist.over_envs(lambda keys, i: rollout.start(env, keys, i, num_envs), mesh, (0, 0), 0)

    def advance(state):
        state, data = rollout.rollout(lambda: env, (), act, state, steps)
        return state, data.cost.mean()[None]

    advance = jax.jit(dist.over_envs(advance, mesh, (0,), (0, 0)), donate_argnums=0)
    keys = jax.random.split(jax.random.key(0), num_envs)
    across = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(dist.mesh.ENVS))
    keys, index = jax.device_put((keys, jnp.arange(num_envs)), across)
    start = time.perf_counter()
    begin = jax.jit(begin).lower(keys, index).compile()
    state = begin(keys, index)
    run = advance.lower(state).compile()
    compile_seconds = time.perf_counter() - start
    state, _ = jax.block_until_ready(run(state))
    rates = []
    for _ in range(repeats):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(run(state))
        rates.append(num_envs * steps / (time.perf_counter() - start))
    memory = run.memory_analysis()
    size = memory.argument_size_in_bytes + memory.temp_size_in_bytes if memory else float("nan")
    return {
        "steps_per_second": sorted(rates)[len(rates) // 2],
        "compile_seconds": compile_seconds,
        "megabytes": size * jax.device_count() / num_envs * 1000 / 2**20,
    }


def peer(python: str, env_id: str) -> dict:
    """The peer's figures, measured by `peer_throughput.py` in its own interpreter."""
    script = Path(__file__).with_name("peer_throughput.py")
    done = subprocess.run([python, str(script), env_id], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"The peer failed under {python}:\n{done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", nargs="+", default=list(FAMILIES), metavar="ID")
    parser.add_argument("--engines", nargs="+", default=["mujoco", "mjx"])
    parser.add_argument("--num-envs", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=100, help="per environment and repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peer-python", help="interpreter with safety-gymnasium==1.0.0")
    args = parser.parse_args()
    devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    print(f"{devices}, jax {jax.__version__}, {args.num_envs} environments, random actions, resets included\n")
    print("| environment | engine | env-steps/s | compile s | MB per 1,000 | peer single | peer best | ratio to best |")
    print("|---|---|---|---|---|---|---|---|")
    for env_id in args.envs:
        other = peer(args.peer_python, env_id) if args.peer_python else None
        for engine in args.engines:
            ours = measure(env_id, engine, args.num_envs, args.steps, args.repeats)
            rate = ours["steps_per_second"]
            cells = [env_id, engine, f"{rate:,.0f}", f"{ours['compile_seconds']:.1f}"]
            cells.append(f"{ours['megabytes']:.1f}")
            if other:
                best = max(other["single"], *other["vector"].values())
                cells += [f"{other['single']:,.0f}", f"{best:,.0f}", f"{rate / best:.1f}"]
            else:
                cells += ["-"] * 3
            print("| " + " | ".join(cells) + " |", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak memory of this process: {peak:,.0f} MB")


if __name__ == "__main__":
    main()
