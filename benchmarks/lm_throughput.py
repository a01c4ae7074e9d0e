"""Language models: training and generation tokens per second, beside torch + transformers in the same run.

    python benchmarks/lm_throughput.py                                     on a CPU
    python benchmarks/lm_throughput.py --accelerator qwen2.5-0.5b llama-3.2-1b     on a GPU or TPU, without the peer

Each side runs in a process of its own (memory apart, no shared thread pools) and only one works at a time: blocks of
work alternate, so that a drift of the machine meets both. Same architecture, float32, batch, optimiser (AdamW, clipped
to norm 1) and sampling (temperature 1, whole vocabulary, no end). A training step is everything from tokens to new
parameters, a generated batch everything from prompts to responses; the first call of each, which compiles, is given
apart. "torch.compile" compiles the peer's training step; its `generate` is the same in both rows.

The arithmetic that bounds it. With N weights in matrices (the output matrix counts, looking up an embedding does not),
L layers of H heads of width d and T columns, a token costs 6 N + 6 L H d T FLOP in training (forward, and twice that
backward; each token sees half of the columns) and 2 N + 4 L H d t to generate as the t-th. On a CPU the bound is what a
large matrix product reaches, printed in the same table. Generating a batch of B reads all weights once per column,
4 N bytes for 2 N B FLOP: with B = 32, 16 FLOP per byte, which two cores can just feed from their caches. On devices
the share of the dense bfloat16 peak that these FLOP amount to is the model FLOP utilisation (recomputing layers in the
backward pass counts as nothing gained).
"""

import argparse
import dataclasses
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np
from lm_peer import Torch

from jaxalign.lm.config import ModelConfig

SIZES = {
    "4M": ModelConfig(4096, 256, 4, 4, 2, 64, 704, tie_embeddings=True),
    "10M": ModelConfig(8192, 320, 6, 5, 5, 64, 864, tie_embeddings=True),
}
SIDES = ("jaxalign", "torch", "torch.compile")


@dataclasses.dataclass(frozen=True)
class Work:
    """Work: `batch` rows of `length` tokens to learn from, `prompts` of `prompt` tokens to write `new` after."""

    batch: int = 16
    length: int = 128
    prompts: int = 32
    prompt: int = 64
    new: int = 128


def training_flop(config: ModelConfig, length: int) -> float:
    """Per token."""
    return 6 * matrix_weights(config) + 6 * config.num_layers * config.num_heads * config.head_dim * length


def generation_flop(config: ModelConfig, prompt: int, new: int) -> float:
    """Per new token; the prompt is read once for all of them."""
    attention = 4 * config.num_layers * config.num_heads * config.head_dim
    total = 2 * matrix_weights(config) * (prompt + new) + attention * (prompt + new) ** 2 / 2
    return total / new


def matrix_weights(config: ModelConfig) -> int:
    """Weights that multiply every token."""
    from jaxalign.lm import count_parameters

    return count_parameters(config) - (0 if config.tie_embeddings else config.vocab_size * config.hidden_size)


class Ours:
    """Blocks of work: `seconds` of "train" or "generate", `first` calls that compile, and a bare matrix product."""

    def __init__(self, config: ModelConfig, work: Work):
        import jax

        from jaxalign.lm import Sampling, generate, network, training
        from jaxalign.lm.loss import cross_entropy
        from jaxalign.lm.packing import Batch

        random, net = np.random.default_rng(0), network(config)
        tokens = random.integers(1, config.vocab_size, (work.batch, work.length)).astype(np.int32)
        positions = np.broadcast_to(np.arange(work.length, dtype=np.int32), tokens.shape)
        batch = Batch(tokens, np.ones_like(tokens), positions, np.ones(tokens.shape, bool))
        prompts = random.integers(1, config.vocab_size, (work.prompts, work.prompt)).astype(np.int32)
        trainer = training.make(cross_entropy(net), training.TrainingConfig(total_steps=1_000_000))
        step = jax.jit(trainer.step, donate_argnums=0)
        params = jax.jit(net.init)(jax.random.key(0))
        self.state = jax.jit(trainer.init)(params)
        sampling = Sampling(work.new)
        mask = np.ones(prompts.shape, bool)

        def train() -> None:
            self.state, info = step(self.state, batch)
            if not info.finite:
                raise RuntimeError("the loss is not finite")

        def write() -> None:
            jax.block_until_ready(generate(net, config, params, prompts, mask, jax.random.key(1), sampling))

        self._blocks = {"train": train, "generate": write}
        self.first = {name: self.seconds(name, 1) for name in self._blocks}

    def seconds(self, name: str, times: int) -> float:
        """Wall seconds of one of so many training steps, or batches of responses."""
        start = time.perf_counter()
        for _ in range(times):
            self._blocks[name]()
        return (time.perf_counter() - start) / times

    def matmul(self) -> float:
        """FLOP/s of a large float32 product: what the machine can give."""
        import jax
        import jax.numpy as jnp

        a, product = jnp.ones((2048, 2048)), jax.jit(jnp.matmul)
        product(a, a).block_until_ready()
        start = time.perf_counter()
        product(a, a).block_until_ready()
        return 2 * 2048**3 / (time.perf_counter() - start)


def serve(side: str, size: str, work: Work) -> None:
    """A side's process: answers lines ``[block, times]`` on its input with seconds on its output."""
    config = SIZES[size]
    worker = Ours(config, work) if side == "jaxalign" else Torch(config.to_hf(), work, side == "torch.compile")
    print(json.dumps(worker.first), flush=True)
    for line in sys.stdin:
        block, times = json.loads(line)
        print(worker.matmul() if block == "matmul" else worker.seconds(block, times), flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, flush=True)


class Side:
    """The other end of `serve`."""

    def __init__(self, name: str, size: str, work: Work):
        command = [sys.executable, __file__, "--serve", name, size, json.dumps(dataclasses.asdict(work))]
        self.name = name
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.first: dict[str, float] = self._answer()
        self.seconds: dict[str, list[float]] = {"train": [], "generate": [], "matmul": []}

    def _answer(self) -> Any:
        line = self._process.stdout.readline()  # pyright: ignore[reportOptionalMemberAccess]
        if not line:
            raise SystemExit(f"The process of {self.name} ended; its message stands above.")
        return json.loads(line)

    def run(self, block: str, times: int = 1) -> None:
        """One block."""
        print(json.dumps([block, times]), file=self._process.stdin, flush=True)
        self.seconds[block].append(self._answer())

    def close(self) -> float:
        """Peak memory, MB."""
        self._process.stdin.close()  # pyright: ignore[reportOptionalMemberAccess]
        peak = self._answer()
        self._process.wait()
        return peak


def compare(names: list[str], size: str, work: Work, repeats: int) -> None:
    """Prints the rows of one size: fastest and median of the blocks, and ratios to the fastest peer."""
    config, sides = SIZES[size], [Side(name, size, work) for name in names]
    for _ in range(repeats):
        for block, times in (("train", 3), ("generate", 1), ("matmul", 1)):
            for side in sides:
                side.run(block, times)
    machine = max(max(side.seconds["matmul"]) for side in sides)
    tokens = {"train": work.batch * work.length, "generate": work.prompts * work.new}
    flop = {"train": training_flop(config, work.length), "generate": generation_flop(config, work.prompt, work.new)}
    for side in sides:
        cells = [size, side.name]
        for block, count in tokens.items():
            best, middle = min(side.seconds[block]), statistics.median(side.seconds[block])
            share = flop[block] * count / best / machine
            cells += [f"{count / best:,.0f}", f"{count / middle:,.0f}", f"{share:.0%}", f"{side.first[block]:.1f}"]
        print("| " + " | ".join([*cells, f"{side.close():,.0f}"]) + " |", flush=True)
    ours, peers = sides[0], sides[1:]
    for pick in (min, statistics.median) if peers else ():
        text = [f"{b} {min(pick(p.seconds[b]) for p in peers) / pick(ours.seconds[b]):.2f}" for b in tokens]
        print(f"ratio to the faster peer, {size}, {pick.__name__} of {repeats} blocks: {', '.join(text)}")
    print(f"a matrix product of 2048 x 2048 reaches {machine / 1e9:,.0f} GFLOP/s\n", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES), help="jaxalign is always there")
    parser.add_argument("--repeats", type=int, default=7)
    for field in dataclasses.fields(Work):
        parser.add_argument(f"--{field.name}", type=int, help="see the class Work")
    parser.add_argument("--accelerator", nargs="+", metavar="MODEL", help="names of lm.published; no peer")
    parser.add_argument("--peak-tflops", type=float, help="dense bfloat16 peak, for devices not known here")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        side, size, work = args.serve
        serve(side, size, Work(**json.loads(work)))
        return
    given = {f.name: getattr(args, f.name) for f in dataclasses.fields(Work) if getattr(args, f.name) is not None}
    if args.accelerator:
        import lm_accelerator

        work = Work(**({"batch": 8, "length": 2048, "prompts": 64, "prompt": 256, "new": 256} | given))
        lm_accelerator.report(args.accelerator, work, args.repeats, args.peak_tflops)
        return
    print(f"{Work(**given)}, float32; tokens/s as fastest and median block; share: of the matrix product's FLOP/s\n")
    cells = [f"{what} tokens/s | median | share | first call s" for what in ("training", "generated")]
    print(f"| size | side | {' | '.join(cells)} | peak MB |")
    print("|" + "---|" * 11)
    names = ["jaxalign", *(name for name in args.sides if name != "jaxalign")]
    for size in args.sizes:
        compare(names, size, Work(**given), args.repeats)


if __name__ == "__main__":
    main()
