"""Runs inside the Python that has Safety-Gymnasium: whole episodes of a policy in the original simulator.

    PEER_PYTHON peer.py ENV_ID POLICY.npz EPISODES.jsonl --episodes 100 --seed 0 --processes 2

POLICY.npz is what `jaxalign export` writes, with `numpy_policy.py` beside it. Every episode is appended to
EPISODES.jsonl as soon as it is over; those already there are not repeated. Needs NumPy and
safety-gymnasium==1.0.0 only.
"""

import argparse
import json
import multiprocessing
import sys
from pathlib import Path

import numpy as np


def episode(env, policy, seed):
    """Return, cost and length of one episode with sampled actions.

    Args:
        env: an environment of Safety-Gymnasium (six values per step).
        policy: `numpy_policy.Policy`.
        seed: of the environment and of the actions.
    """
    random = np.random.RandomState(seed)
    obs, _ = env.reset(seed=seed)
    total, cost, length, over = 0.0, 0.0, 0, False
    while not over:
        obs, reward, violation, terminated, truncated, _ = env.step(policy.sample(obs, random))
        total, cost, length = total + float(reward), cost + float(violation), length + 1
        over = terminated or truncated
    return {"seed": seed, "return": total, "cost": cost, "length": length}


def read(path):
    """The episodes in a file by seed; none if there is no file, without a last line that was cut."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return {row["seed"]: row for row in (json.loads(line) for line in lines if line.endswith("\n"))}


class Player:
    """What each process keeps: its environment and the policy."""

    def __init__(self, env_id, path):
        import safety_gymnasium

        sys.path.insert(0, str(path.parent))
        import numpy_policy

        self.env, self.policy = safety_gymnasium.make(env_id), numpy_policy.load(path)


_kept = []


def _prepare(env_id, path):
    _kept.append(Player(env_id, path))


def _play(seed):
    return episode(_kept[0].env, _kept[0].policy, seed)


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("env_id")
    parser.add_argument("policy", type=Path)
    parser.add_argument("episodes_file", type=Path)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    done = read(args.episodes_file)
    seeds = [seed for seed in range(args.seed, args.seed + args.episodes) if seed not in done]
    context = multiprocessing.get_context("spawn")
    with context.Pool(args.processes, _prepare, (args.env_id, args.policy)) as pool:
        args.episodes_file.write_text("".join(json.dumps(row) + "\n" for row in done.values()))
        with args.episodes_file.open("a", buffering=1) as file:
            for row in pool.imap_unordered(_play, seeds):
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
