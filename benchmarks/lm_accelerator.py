"""The accelerator side of `lm_throughput.py`: random weights of published sizes in bfloat16 on one device.

A PPO step is timed whole, and its generation and scoring (policy, reference and critic on the responses, and the
reward model) as programs of their own; what is left is the update.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from lm_throughput import Work, generation_flop, training_flop

from jaxalign import rlhf
from jaxalign.core.errors import UserError
from jaxalign.lm import ModelConfig, Sampling, generate, network, training, unembed
from jaxalign.lm.loss import cross_entropy
from jaxalign.lm.packing import Batch
from jaxalign.lm.published import published
from jaxalign.rewards import value_network
from jaxalign.rlhf.experience import Policy, look

PEAK_TFLOPS = {"H100": 989, "H200": 989, "A100": 312, "TPU v4": 275, "TPU v5 lite": 197, "TPU v5p": 459, "TPU v6": 918}
"""Dense bfloat16, from the makers' data sheets (of the SXM boards), by a part of the device's name."""


def peak_flops(given: float | None) -> float:
    """FLOP/s of this device.

    Raises:
        UserError: it is not in the table, and none was given.
    """
    kind = jax.devices()[0].device_kind
    found = given or next((tflops for name, tflops in PEAK_TFLOPS.items() if name in kind), None)
    if found is None:
        raise UserError(f"The bfloat16 peak of {kind} is not known here; give --peak-tflops.")
    return found * 1e12


def clock(function: Callable[..., Any], *args: Any, repeats: int, donated: bool = False) -> tuple[float, list[float]]:
    """Seconds of the first call, and of each later one; with `donated`, the output's first part is the next input."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        out = jax.block_until_ready(function(*args))
        seconds.append(time.perf_counter() - start)
        args = (out[0], *args[1:]) if donated else args
    return seconds[0], seconds[1:]


def report(names: list[str], work: Work, repeats: int, peak_tflops: float | None) -> None:
    """Prints a table of training and generation, and one of PPO steps."""
    peak = peak_flops(peak_tflops)
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, {work}, fastest of {repeats} (median)\n")
    print("| model | block | tokens/s | median | MFU | first call s | peak memory MB so far |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        config = dataclasses.replace(published(name), remat=True)
        blocks = {
            "SFT": (sft, work.batch * work.length, training_flop(config, work.length)),
            "generation": (write, work.prompts * work.new, generation_flop(config, work.prompt, work.new)),
        }
        for block, (run, tokens, flop) in blocks.items():
            first, seconds = run(config, work, repeats)
            best, middle = tokens / min(seconds), tokens / statistics.median(seconds)
            cells = [
                name,
                block,
                f"{best:,.0f}",
                f"{middle:,.0f}",
                f"{best * flop / peak:.1%}",
                f"{first:.1f}",
                memory(),
            ]
            print("| " + " | ".join(cells) + " |", flush=True)
    print("\n| model | PPO step s | generation s | scoring s | update s | first call s | peak memory MB so far |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        seconds = ppo(dataclasses.replace(published(name), remat=True), work, repeats)
        print(f"| {name} | " + " | ".join(f"{s:.2f}" for s in seconds) + f" | {memory()} |", flush=True)


def memory() -> str:
    """The largest use of the device's memory since the start of this process; a CPU does not say."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return f"{stats['peak_bytes_in_use'] / 2**20:,.0f}" if "peak_bytes_in_use" in stats else "unknown"


def sft(config: ModelConfig, work: Work, repeats: int) -> tuple[float, list[float]]:
    """Training steps with float32 parameters and moments; the vocabulary is read in four pieces."""
    net, random = network(config), np.random.default_rng(0)
    tokens = random.integers(1, config.vocab_size, (work.batch, work.length)).astype(np.int32)
    positions = np.broadcast_to(np.arange(work.length, dtype=np.int32), tokens.shape)
    batch = Batch(tokens, np.ones_like(tokens), positions, np.ones(tokens.shape, bool))
    trainer = training.make(cross_entropy(net, 4, functools.partial(unembed, config)), training.TrainingConfig())
    state = jax.jit(lambda key: trainer.init(net.init(key)))(jax.random.key(0))
    step = jax.jit(trainer.step, donate_argnums=0)
    return clock(step, state, batch, repeats=repeats, donated=True)


def write(config: ModelConfig, work: Work, repeats: int) -> tuple[float, list[float]]:
    """Batches of responses."""
    net = network(config)
    params = jax.jit(net.init)(jax.random.key(0))
    write = lambda p: generate(net, config, p, *_prompts(config, work), jax.random.key(1), Sampling(work.new))
    return clock(write, params, repeats=repeats)


def ppo(config: ModelConfig, work: Work, repeats: int) -> tuple[float, float, float, float, float]:
    """Seconds of a step, its generation, scoring and update; and of the first call.

    Policy, reference, critic and a scalar reward model of the same size. Large parameters are arguments, so the learner
    is built inside the compiled function.
    """
    net, values = network(config), value_network(network(config), config.hidden_size)
    pieces = max(1, work.prompts // 8)
    settings = rlhf.settings("ppo", Sampling(work.new), epochs=1, num_minibatches=pieces, param_dtype="bfloat16")
    reference = jax.jit(net.init)(jax.random.key(0))
    judge = jax.jit(values.init)(jax.random.key(1))
    prompts, mask = _prompts(config, work)

    def learner(reference: Any, judge: Any) -> rlhf.RLLearner:
        return rlhf.ppo(net, config, rlhf.scalar_reward(values, judge), reference, settings)

    init = jax.jit(lambda reference, judge: learner(reference, judge).init(jax.random.key(2), reference, judge))
    step = jax.jit(lambda state, *models: learner(*models).step(state, prompts, mask), donate_argnums=0)
    state = init(reference, judge)
    draw = jax.jit(
        lambda policy: rlhf.sampler(net, config, settings.sampling)(policy, prompts, mask, jax.random.key(3))
    )

    def score(networks: Any, reference: Any, judge: Any, completions: rlhf.Completions) -> Any:
        seen = look(Policy(net, config, reference, values), networks.policy, networks.critic, completions, settings)
        return seen, rlhf.scalar_reward(values, judge)(completions)

    _, writing = clock(draw, state.networks.policy, repeats=repeats)
    completions = draw(state.networks.policy)
    _, scoring = clock(jax.jit(score), state.networks, reference, judge, completions, repeats=repeats)
    first, whole = clock(step, state, reference, judge, repeats=repeats, donated=True)
    times = min(whole), min(writing), min(scoring)
    return *times, times[0] - times[1] - times[2], first


def _prompts(config: ModelConfig, work: Work) -> tuple[Any, Any]:
    tokens = np.random.default_rng(0).integers(1, config.vocab_size, (work.prompts, work.prompt)).astype(np.int32)
    return jax.numpy.asarray(tokens), jax.numpy.ones(tokens.shape, bool)
