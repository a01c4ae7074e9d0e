"""Weak and strong scaling of a training step over devices, and what the same step would cost on pods, on paper.

    python benchmarks/scaling.py [--devices 1 2 4 8] [--algorithm ppo_lag] [--env SafetyPointGoal1-v0]

Strong: the same 512 environments over more devices. Weak: 256 environments on each. On a CPU devices are threads of one
process; beyond the number of cores they only show what splitting costs. On GPUs or TPUs the devices are real ones.

Cost model. An iteration of T steps in E environments on each of n devices takes

    T E s + 6 w p T E / F + r (a + 2 (n - 1) / n 4 w / b)

where s is the time of an environment step, w the weights of all networks, p the passes over them (6 FLOP per weight
and sample for forward and backward), F the FLOP/s that the products reach, r the number of all-reduces (one per
minibatch), a their latency and b the bandwidth of the slowest link on the ring. The assumptions for pods stand in
`PODS`; s is taken so that the chip steps a million environments a second, which is a goal and not a measurement.
"""

import argparse
import dataclasses
import json
import math
import os
import subprocess
import sys
import time

ENVS_STRONG, ENVS_WEAK = 512, 256


@dataclasses.dataclass(frozen=True)
class Pod:
    """What is assumed of a cluster.

    Attributes:
        devices: n.
        flops: F, FLOP/s of a device in float32 on products as narrow as ours.
        latency: a, s per all-reduce.
        bandwidth: b, bytes/s.
        env_steps: environment steps per second of a device.
    """

    devices: int
    flops: float
    latency: float
    bandwidth: float
    env_steps: float = 1e6


# v5e: 2 % of the 197 TFLOP/s of bf16, for float32 on matrices of 64 columns (half of a systolic array); a torus
# of 16 x 16, 50 GB/s per link and direction, about a microsecond per hop. H100: 5 % of 67 TFLOP/s (float32, no tensor
# cores); eight per machine on NVLink, 50 GB/s per GPU between machines, 30 microseconds for NCCL over eight machines.
PODS = {
    "TPU v5e-256": Pod(256, 0.02 * 197e12, 32e-6, 50e9),
    "64 x H100": Pod(64, 0.05 * 67e12, 30e-6, 50e9),
}


def sizes(algorithm: str, env_id: str) -> dict[str, float]:
    """Weights, passes over them and all-reduces of an iteration, counted from the learner itself."""
    import jax
    import numpy as np

    import envs_mjx
    from jaxalign import dist, saferl

    env = saferl.select_costs(envs_mjx.make(env_id), ("cost",))
    row = saferl.CATALOGUE[algorithm]
    config = row.config
    refusal = SystemExit(
        f"{algorithm} is no first-order row; the cost model counts only those, such as ppo_lag or cup."
    )
    if not isinstance(config, saferl.OnPolicyConfig):
        raise refusal
    parts = row.parts()
    learner = saferl.make(algorithm, env, (25.0,), total_iterations=1, config=config, mesh=dist.make_mesh(1))
    state = jax.eval_shape(learner.init, jax.random.key(0))
    if "epochs" not in jax.eval_shape(learner.step, state)[1].extra:  # what first-order rows report
        raise refusal
    count = lambda tree: sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))
    policy, critics = count(state.policy), count(state.critic)
    first_order = {"epochs": 4, "num_minibatches": 10}  # of every first-order row, see saferl.catalogue
    passes = first_order["epochs"] * policy + parts.critic.epochs * critics
    reduces = (
        first_order["epochs"] * first_order["num_minibatches"] + parts.critic.epochs * parts.critic.num_minibatches
    )
    return {
        "weights": (policy + critics) / 2,  # of one all-reduce, on average
        "flop_per_sample": 6.0 * passes,
        "all_reduces": reduces,
        "length": config.rollout_length,
    }


def measure(algorithm: str, env_id: str, devices: int, num_envs: int, iterations: int = 5) -> float:
    """Environment steps per second of a whole training step on so many devices, in a process of its own."""
    code = f"""
import json, time, jax
jax.config.update("jax_num_cpu_devices", {devices})
import dataclasses
import envs_mjx
from jaxalign import dist, saferl
env = saferl.select_costs(envs_mjx.make({env_id!r}), ("cost",))
mesh = dist.make_mesh({devices})
config = dataclasses.replace(saferl.CATALOGUE[{algorithm!r}].config, num_envs={num_envs})
learner = saferl.make({algorithm!r}, env, (25.0,), total_iterations=100, config=config, mesh=mesh)
where = dist.shardings(jax.eval_shape(learner.init, jax.random.key(0)), mesh, saferl.SPLIT)
state = jax.jit(learner.init, out_shardings=where)(jax.random.key(0))
step = jax.jit(learner.step, in_shardings=(where,), out_shardings=(where, None), donate_argnums=0)
state, _ = jax.block_until_ready(step(state))
start = time.perf_counter()
for _ in range({iterations}):
    state, _ = step(state)
jax.block_until_ready(state)
print(json.dumps({iterations} * config.steps_per_iteration / (time.perf_counter() - start)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"scaling: {devices} devices failed:\n{done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def on_paper(pod: Pod, size: dict[str, float], num_envs: int) -> dict[str, float]:
    """Seconds of an iteration by part, and the share of the time in which devices do not communicate."""
    samples = size["length"] * num_envs
    parts = {
        "simulation": samples / pod.env_steps,
        "update": samples * size["flop_per_sample"] / pod.flops,
        "all-reduces": size["all_reduces"]
        * (pod.latency + 2 * (pod.devices - 1) / pod.devices * 4 * size["weights"] / pod.bandwidth),
    }
    total = sum(parts.values())
    return parts | {"env_steps": pod.devices * samples / total, "efficiency": 1 - parts["all-reduces"] / total}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--algorithm", default="ppo_lag", help="a first-order row")
    parser.add_argument("--env", default="SafetyPointGoal1-v0")
    args = parser.parse_args()
    begin, size = time.perf_counter(), sizes(args.algorithm, args.env)
    print(f"{args.algorithm} on {args.env}, {os.cpu_count()} cores\n")
    print("| devices | strong: env-steps/s | speed-up | weak: env-steps/s | efficiency |")
    print("|---|---|---|---|---|")
    first = {}
    for n in args.devices:
        strong = measure(args.algorithm, args.env, n, ENVS_STRONG)
        weak = measure(args.algorithm, args.env, n, ENVS_WEAK * n)
        first = first or {"strong": strong, "weak": weak / n}
        cells = f"{strong:,.0f} | {strong / first['strong']:.2f} | {weak:,.0f} | {weak / n / first['weak']:.2f}"
        print(f"| {n} | {cells} |", flush=True)
    print(
        f"\nOn paper: {size['all_reduces']:.0f} all-reduces of {4 * size['weights'] / 1024:.0f} KiB on average per "
        f"iteration of {size['length']:.0f} steps, {size['flop_per_sample'] / 1e6:.2f} MFLOP per sample\n"
    )
    print("| pod | environments per device | simulation ms | update ms | all-reduces ms | env-steps/s | efficiency |")
    print("|---|---|---|---|---|---|---|")
    for name, pod in PODS.items():
        for num_envs in (256, 4096):
            found = on_paper(pod, size, num_envs)
            times = " | ".join(f"{1e3 * found[part]:.2f}" for part in ("simulation", "update", "all-reduces"))
            rate = 10 ** round(math.log10(found["env_steps"]), 1)
            print(f"| {name} | {num_envs} | {times} | {rate:.1e} | {found['efficiency']:.2f} |")
    print(f"\n{time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
