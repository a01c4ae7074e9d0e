"""Is this machine, or this cluster, ready? Devices, all-reduce bandwidth, a step of learning, a checkpoint.

    python tpu/smoke.py [--distributed auto]
    python tpu/local_multiprocess.py --processes 2 --devices 4 --script tpu/smoke.py

Prints a line per check and ends with status 0 if all pass.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from jaxalign import dist, saferl
from jaxalign.cli.run import TrainConfig, build
from jaxalign.core.errors import UserError


def devices(mesh) -> str:
    """What JAX sees."""
    kinds = sorted({device.device_kind for device in mesh.devices.flat})
    return f"{mesh.size} x {', '.join(kinds)} in {jax.process_count()} processes, jax {jax.__version__}"


def all_reduce(mesh, megabytes: int = 16) -> str:
    """Bytes per second that every device contributes to a sum over all."""
    size = megabytes * 2**20 // 4
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(dist.mesh.ENVS))
    ones = jax.make_array_from_callback((mesh.size, size), place, lambda _: np.ones((1, size), np.float32))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    total = jax.jit(lambda x: x.sum(axis=0), out_shardings=everywhere)
    np.testing.assert_array_equal(np.asarray(total(ones)[:1]), mesh.size)
    start = time.perf_counter()
    for _ in range(3):
        jax.block_until_ready(total(ones))
    seconds = (time.perf_counter() - start) / 3
    return f"{megabytes} MB per device in {1e3 * seconds:.1f} ms, {megabytes / 1024 / seconds:.2f} GB/s"


def learning(learner, mesh, config: TrainConfig) -> tuple[str, object]:
    """A step of PPO-Lagrangian with its environments spread over all devices; the state after it."""
    where = dist.shardings(jax.eval_shape(learner.init, jax.random.key(0)), mesh, saferl.SPLIT)
    data = np.asarray(jax.random.key_data(jax.random.key(0)))
    state = jax.jit(lambda data: learner.init(jax.random.wrap_key_data(data)), out_shardings=where)(data)
    start = time.perf_counter()
    state, info = jax.jit(learner.step, in_shardings=(where,), out_shardings=(where, None))(state)
    if not np.isfinite(info.episode_return):
        raise ArithmeticError("the return is not finite")
    return f"{config.learner.steps_per_iteration} steps with compilation in {time.perf_counter() - start:.0f} s", state


def checkpoint(state) -> str:
    """Saves the state and reads it again."""
    folder = Path(dist.from_first(lambda: tempfile.mkdtemp(prefix="jaxalign-smoke-")))
    checkpoints = dist.Checkpoints(folder)
    checkpoints.save(1, state)
    again = checkpoints.restore(
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    )
    for x, y in zip(jax.tree.leaves(state.policy), jax.tree.leaves(again.policy), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
    return f"written to {folder} and read again"


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--distributed", default="off", help="as of jaxalign train")
    args = parser.parse_args()
    config = TrainConfig(env="SafetySwimmerVelocity-v1", steps=1, distributed=args.distributed)
    try:
        _, learner, mesh = build(config)
        say = print if dist.is_first() else (lambda *_, **__: None)
        say("devices     ", devices(mesh), flush=True)
        say("all-reduce  ", all_reduce(mesh), flush=True)
        text, state = learning(learner, mesh, config)
        say("learning    ", text, flush=True)
        say("checkpoint  ", checkpoint(state), flush=True)
    except UserError as error:
        print(f"smoke: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
