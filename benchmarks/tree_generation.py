"""Response tokens per second: trees that share their beginnings beside independent responses, equally many.

    python benchmarks/tree_generation.py

A tree of depth D has 2^D leaves; both ways write 2^D responses of N tokens to each prompt, from the same model with
random weights (nothing ends a response early, so that lengths are equal), in batches of as many rows as there are
prompts: trees all at once, independent responses in 2^D turns. Tokens are counted as a reader sees them: the beginning
that leaves share counts once for each.

If a response branches after equal parts, D + 1 parts of N / (D + 1) tokens are written 1, 2, ..., 2^D times, which are
2^(D+1) - 1 parts instead of 2^D (D + 1): the bound of the ratio is 2^D (D + 1) / (2^(D+1) - 1), 2.1 for D = 3. What is
lost: responses branch where there is a separator, and rows wait for the one whose tree is largest.
"""

import argparse
import time

import jax
import numpy as np

from jaxalign.lm import Branching, ModelConfig, Sampling, generate, grow, network


def clock(fun, repeats: int) -> tuple[float, float, object]:
    """Seconds to compile, median seconds per call, and the last result."""
    start = time.perf_counter()
    out = jax.block_until_ready(fun(0))
    first, times = time.perf_counter() - start, []
    for seed in range(1, repeats + 1):
        start = time.perf_counter()
        out = jax.block_until_ready(fun(seed))
        times.append(time.perf_counter() - start)
    return first - float(np.median(times)), float(np.median(times)), out


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=64, help="rows of a batch")
    parser.add_argument("--tokens", type=int, default=128, help="of a response")
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    config = ModelConfig(
        vocab_size=4096,
        hidden_size=args.width,
        num_layers=args.layers,
        num_heads=args.width // 64,
        num_kv_heads=args.width // 64,
        head_dim=64,
        intermediate_size=4 * args.width,
        max_position=16 + args.tokens,
        tie_embeddings=True,
    )
    net, leaves = network(config), 2**args.depth
    params = jax.jit(net.init)(jax.random.key(0))
    prompts = np.random.default_rng(0).integers(1, config.vocab_size, (args.prompts, 16)).astype(np.int32)
    there, part = np.ones_like(prompts, bool), args.tokens // (args.depth + 1)
    separators = tuple(range(0, config.vocab_size, 8))  # one token in eight: clauses of eight on average
    branching = Branching(separators, args.depth, clauses=max(1, part // 8))
    sampling = Sampling(args.tokens, temperature=1.4)

    def independent(seed):
        keys = jax.random.split(jax.random.key(seed), leaves)
        return jax.tree.map(
            lambda *x: jax.numpy.stack(x, axis=1),
            *(generate(net, config, params, prompts, there, key, sampling) for key in keys),
        )

    def tree(seed):
        return grow(net, config, params, prompts, there, jax.random.key(seed), sampling, branching)

    size = f"{args.prompts} prompts x {leaves} leaves x {args.tokens} tokens"
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, {size}\n")
    print("| way | response tokens/s | ratio | tokens computed | compile s |")
    print("|---|---|---|---|---|")
    reference = 0.0
    for name, way in {"independent": independent, "tree": tree}.items():
        compiled, seconds, out = clock(way, args.repeats)
        computed = int(np.sum(out.written if hasattr(out, "written") else out.length))
        read = int(np.sum(out.length * out.leaf)) if hasattr(out, "leaf") else int(np.sum(out.length))
        rate = read / seconds
        reference = reference or rate
        print(
            f"| {name} | {rate:,.0f} | {rate / reference:.2f} | {computed:,} of {read:,} | {compiled:.1f} |", flush=True
        )


if __name__ == "__main__":
    main()
