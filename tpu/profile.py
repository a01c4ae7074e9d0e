"""A trace of some iterations of a training run, to be looked at with xprof or Perfetto.

    python tpu/profile.py --out trace [--algorithm ppo_lag] [--env SafetyPointGoal1-v0] [--iterations 3]

Compilation and the first iteration stay outside. `pip install xprof`, then `xprof --logdir trace` shows it.
"""

import argparse
import sys

import jax

from jaxalign import dist, saferl
from jaxalign.cli.run import TrainConfig, build
from jaxalign.core.errors import UserError


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithm", default="ppo_lag")
    parser.add_argument("--env", default="SafetyPointGoal1-v0")
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    try:
        _, learner, mesh = build(TrainConfig(algorithm=args.algorithm, env=args.env))
    except UserError as error:
        print(f"profile: {error}", file=sys.stderr)
        return 2
    where = dist.shardings(jax.eval_shape(learner.init, jax.random.key(0)), mesh, saferl.SPLIT)
    state = jax.jit(learner.init, out_shardings=where)(jax.random.key(0))
    step = jax.jit(learner.step, in_shardings=(where,), out_shardings=(where, None), donate_argnums=0)
    state, _ = jax.block_until_ready(step(state))
    with jax.profiler.trace(args.out):
        for _ in range(args.iterations):
            state, _ = step(state)
        jax.block_until_ready(state)
    print(f"written to {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
