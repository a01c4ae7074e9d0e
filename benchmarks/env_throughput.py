"""Environment steps per second with random actions and auto-reset, on all cores or devices, beside Safety-Gymnasium.

    python benchmarks/env_throughput.py [--peer-python PATH]

One environment step is 10 physics substeps. Ours includes resets, observations, rewards and costs; the peer's leaves
its resets out (they cost it about a second each). ``--peer-python`` names the interpreter of an environment in which
``safety-gymnasium==1.0.0`` is installed (Python 3.10 or older); it runs right after ours, on the same machine.

What bounds it: a free Point costs 11 passes of MJX over 3 degrees of freedom; an environment in which a vase is touched
or moves costs a contact solve of 9 + 6 (n - 1) degrees of freedom and up to 9 contacts per vase in each of 10 substeps.
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


def random_policy(env, keys, obs):
    """Uniform actions in the actuators' range."""
    low, high = jnp.array(env.spec.action_low), jnp.array(env.spec.action_high)
    action = jax.vmap(lambda key: jax.random.uniform(key, low.shape, minval=low, maxval=high))(keys)
    return action, jnp.zeros(obs.shape[0])


def measure(env_id: str, engine: str, num_envs: int, steps: int, repeats: int) -> dict[str, float]:
    """Median steps/s over repeats, and seconds to compile reset and rollout."""
    env = rollout.select_costs(envs_mjx.make(env_id, engine), ("cost",))
    mesh = dist.make_mesh()
    act = functools.partial(random_policy, env)
    begin = dist.over_envs(lambda keys, i: rollout.start(env, keys, i, num_envs), mesh, (0, 0), 0)

    def advance(state):
        state, data = rollout.rollout(env, act, state, steps)
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
    return {"steps_per_second": sorted(rates)[len(rates) // 2], "compile_seconds": compile_seconds}


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
    parser.add_argument("--envs", nargs="+", default=list(envs_mjx.ids()), metavar="ID")
    parser.add_argument("--engines", nargs="+", default=["mujoco", "mjx"])
    parser.add_argument("--num-envs", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=100, help="per environment and repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peer-python", help="interpreter with safety-gymnasium==1.0.0")
    args = parser.parse_args()
    devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    print(f"{devices}, jax {jax.__version__}, {args.num_envs} environments, random actions, resets included\n")
    print("| environment | engine | env-steps/s | substeps/s | compile s | peer single | peer best | ratio to best |")
    print("|---|---|---|---|---|---|---|---|")
    for env_id in args.envs:
        other = peer(args.peer_python, env_id) if args.peer_python else None
        for engine in args.engines:
            ours = measure(env_id, engine, args.num_envs, args.steps, args.repeats)
            rate = ours["steps_per_second"]
            cells = [env_id, engine, f"{rate:,.0f}", f"{10 * rate:,.0f}", f"{ours['compile_seconds']:.1f}"]
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
