"""Seconds to compile reset + step of a batch of environments: cold, and with the persistent compilation cache.

    python benchmarks/compile_time.py

Each figure comes from a fresh process that traces, lowers and compiles both functions; the cache is a temporary folder.
"""

import argparse
import json
import subprocess
import sys
import tempfile

DEFAULT = ("SafetyPointGoal0-v0", "SafetyPointGoal1-v0", "SafetyPointGoal2-v0", "SafetyPointButton1-v0")
DEFAULT += ("SafetyCarPush1-v0", "SafetyDoggoGoal1-v0", "SafetyAntGoal1-v0", "SafetyAntVelocity-v1")

_CHILD = """
import json, sys, time, jax
env_id, engine, num_envs, cache = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
jax.config.update("jax_compilation_cache_dir", cache)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
import jax.numpy as jnp
import envs_mjx
env = envs_mjx.make(env_id, engine)
keys = jax.random.split(jax.random.key(0), num_envs)
state = jax.eval_shape(jax.vmap(env.reset), keys)[0]
action = jnp.zeros((num_envs, env.spec.action_size))
start = time.perf_counter()
jax.jit(jax.vmap(env.reset)).lower(keys).compile()
before = time.perf_counter()
lowered = jax.jit(jax.vmap(env.step)).lower(state, action)
lowered_at = time.perf_counter()
lowered.compile()
end = time.perf_counter()
print(json.dumps({"total": end - start, "trace": lowered_at - before}))
"""


def measure(env_id: str, engine: str, num_envs: int, cache: str) -> dict[str, float]:
    """Figures of one process."""
    command = [sys.executable, "-c", _CHILD, env_id, engine, str(num_envs), cache]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", nargs="+", default=list(DEFAULT), metavar="ID")
    parser.add_argument("--engines", nargs="+", default=["mujoco", "mjx"])
    parser.add_argument("--num-envs", type=int, default=512)
    args = parser.parse_args()
    print("| environment | engine | cold s | cached s | of which tracing step s |")
    print("|---|---|---|---|---|")
    for env_id in args.envs:
        for engine in args.engines:
            with tempfile.TemporaryDirectory() as cache:
                cold, warm = (measure(env_id, engine, args.num_envs, cache) for _ in range(2))
            cells = (f"{cold['total']:.1f}", f"{warm['total']:.1f}", f"{warm['trace']:.1f}")
            print(f"| {env_id} | {engine} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
