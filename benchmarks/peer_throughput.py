"""Runs inside the Python that has Safety-Gymnasium: environment steps per second with random actions.

Prints one JSON object: steps/s of a single environment, of the best vector environment, and seconds per reset. Resets
are left out of the steps/s (each costs the original about a second). Called by `env_throughput.py`; no dependencies.
"""

import argparse
import json
import time


def single(safety_gymnasium, env_id, steps):
    """Steps/s of one environment without resets, and seconds per reset."""
    env = safety_gymnasium.make(env_id)
    start = time.perf_counter()
    env.reset(seed=0)
    reset = time.perf_counter() - start
    actions = [env.action_space.sample() for _ in range(steps)]
    seconds = 0.0
    for action in actions:
        start = time.perf_counter()
        out = env.step(action)
        seconds += time.perf_counter() - start
        if out[3] or out[4]:
            env.reset()
    env.close()
    return steps / seconds, reset


def vector(safety_gymnasium, env_id, num_envs, steps):
    """Steps/s of asynchronous environments, one process each."""
    env = safety_gymnasium.vector.make(env_id, num_envs=num_envs, asynchronous=True)
    env.reset(seed=0)
    actions = [env.action_space.sample() for _ in range(steps)]
    env.step(actions[0])
    start = time.perf_counter()
    for action in actions:
        env.step(action)
    rate = steps * num_envs / (time.perf_counter() - start)
    env.close()
    return rate


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("env_id")
    parser.add_argument("--steps", type=int, default=900, help="per environment; below the horizon of 1000")
    parser.add_argument("--num-envs", type=int, nargs="+", default=[2, 4])
    args = parser.parse_args()
    import safety_gymnasium

    rate, reset = single(safety_gymnasium, args.env_id, args.steps)
    vectors = {n: vector(safety_gymnasium, args.env_id, n, args.steps) for n in args.num_envs}
    print(json.dumps({"single": rate, "reset_seconds": reset, "vector": vectors}))


if __name__ == "__main__":
    main()
