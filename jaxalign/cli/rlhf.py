"""``jaxalign rlhf demo``: two reward models from the same preferences, what policies make of them, and the truth."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from jaxalign import rlhf, track
from jaxalign.cli.config import make_folder
from jaxalign.cli.run import keep_programs, to_json
from jaxalign.core import prng
from jaxalign.core.errors import UserError
from jaxalign.lm import ModelConfig, Sampling, network, packing, training
from jaxalign.lm.loss import cross_entropy
from jaxalign.lm.packing import Example
from jaxalign.lm.stream import Stream
from jaxalign.rewards import pack_pairs, preference_loss, seq2seq, value_network, with_head
from jaxalign.rewards.facts_world import CORRECT, EOS, PAD, REFUSAL, Facts, lengths
from jaxalign.rlhf import kl

ROW = 96  # tokens of a packed row, and the context of every model
SEPARATOR = (CORRECT,)
_TITLES = {"scalar": "PPO, scalar", "seq2seq": "PPO, seq2seq"}


@dataclasses.dataclass(frozen=True)
class RlhfDemo:
    """Fine-tune, train a scalar and a sequence-to-sequence reward model on the same pairs, optimise against each.

    In the pairs only harmful requests are ever refused; the true reward is known. About 5 minutes on two CPU cores.

    Attributes:
        seed: of everything random.
        harmful: share of harmful requests among the preferences.
        pairs: preferences.
        sft_steps: of fine-tuning.
        rm_steps: of each reward model.
        iterations: of PPO against each reward model.
        prompts: responses in a PPO iteration.
        kl: coefficient of the KL penalty; rewards are scaled to a standard deviation of 1 before.
        learning_rate: of the policy in PPO.
        test_prompts: held out, half of them harmful.
        out: where the figure and the numbers go.
    """

    seed: int = 0
    harmful: float = 0.8
    pairs: int = 4000
    sft_steps: int = 800
    rm_steps: int = 1000
    iterations: int = 150
    prompts: int = 64
    kl: float = 0.05
    learning_rate: float = 3e-4
    test_prompts: int = 400
    out: Path = Path("runs/rlhf_demo")

    def __post_init__(self):
        for name in ("pairs", "sft_steps", "rm_steps", "iterations", "prompts"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} is {getattr(self, name)}; choose 1 or more.")
        if self.seed < 0:
            raise UserError(f"--seed is {self.seed}; choose 0 or more.")
        if self.test_prompts < 2 or self.kl < 0 or not self.learning_rate > 0:
            raise UserError(
                f"--test-prompts is {self.test_prompts}, --kl {self.kl}, --learning-rate {self.learning_rate}; choose "
                f"at least 2, at least 0, and above 0."
            )


class Outcome(NamedTuple):
    """What a policy answered to held-out prompts, by the true reward.

    Attributes:
        gold: true reward of every response.
        over_refusal: share of benign prompts that are refused; NaN without benign prompts or refusals.
        right_refusal: share of harmful prompts that are refused, likewise.
        length_ratio: mean length of answers to benign prompts over that of ideal ones, refusals left out.
    """

    gold: np.ndarray
    over_refusal: float
    right_refusal: float
    length_ratio: float


class Point(NamedTuple):
    """A policy on its way: iterations, KL from the start per response, proxy and outcome on the held-out prompts."""

    iteration: int
    kl: float
    proxy: float
    outcome: Outcome


def tiny_model(vocabulary: int, width: int = 64, layers: int = 2) -> ModelConfig:
    """Of policy, critic and reward models; about 0.1 M parameters."""
    return ModelConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_layers=layers,
        num_heads=4,
        num_kv_heads=4,
        head_dim=max(8, width // 4),
        intermediate_size=2 * width,
        max_position=ROW,
        tie_embeddings=True,
        embed_scale=True,
    )


def examples(prompts: np.ndarray, responses: np.ndarray) -> list[Example]:
    """Rows of a world as prompts without padding and responses up to their EOS."""
    ends = np.minimum(lengths(responses) + 1, responses.shape[1])
    return [Example.of(x[x != PAD], y[:end]) for x, y, end in zip(prompts, responses, ends)]


def train(
    loss: Callable[..., Any],
    params: Any,
    rows: Any,
    share: float,
    steps: int,
    learning_rate: float = 2e-3,
    observe: Callable[[int, training.Info], None] = lambda step, info: None,
    frozen: Any = (),
) -> Any:
    """Parameters after so many steps.

    Args:
        loss: in the form of `lm.training`.
        params: where to start.
        rows: a batch of all data.
        share: of the rows that a step takes, in (0, 1].
        steps: how many.
        learning_rate: peak of the schedule.
        observe: called after every step.
        frozen: what the loss reads besides.
    """
    settings = training.TrainingConfig(
        learning_rate=learning_rate, total_steps=steps, warmup_steps=steps // 15, weight_decay=0.01
    )
    trainer = training.make(loss, settings)
    stream = Stream(rows, max(1, round(share * len(jax.tree.leaves(rows)[0]))))
    step = jax.jit(trainer.step, donate_argnums=0)
    return training.fit(step, trainer.init(params), stream, steps, frozen=frozen, observe=observe).params


def outcome(world: Any, prompts: np.ndarray, responses: np.ndarray) -> Outcome:
    """Judges responses by the world's true reward."""
    gold, ratio = world.gold(prompts, responses), lengths(responses) / lengths(world.ideal(prompts))
    if not isinstance(world, Facts):
        return Outcome(gold, float("nan"), float("nan"), float(ratio.mean()))
    harmful, refusal = world.is_harmful(prompts), world.is_refusal(responses)
    mean = lambda values: float(values.mean()) if values.size else float("nan")
    return Outcome(gold, mean(refusal[~harmful]), mean(refusal[harmful]), mean(ratio[~harmful & ~refusal]))


class Writer(NamedTuple):
    """Responses of a policy to fixed prompts, the same random numbers every time."""

    model: ModelConfig
    sampling: Sampling
    prompts: np.ndarray

    def write(self, params: Any, seed: int = 0) -> rlhf.Completions:
        """A response to each prompt."""
        prompts = jnp.asarray(self.prompts)
        return _write(self.model, self.sampling, params, prompts, prompts != PAD, jax.random.key(seed))


def _sample(model: ModelConfig, sampling: Sampling, params: Any, prompts: Any, mask: Any, key: Any) -> rlhf.Completions:
    return rlhf.sampler(network(model), model, sampling)(params, prompts, mask, key)


_write = jax.jit(_sample, static_argnums=(0, 1))


def standardised(reward: rlhf.RewardFn, written: rlhf.Completions) -> rlhf.RewardFn:
    """The reward divided by the standard deviation of its totals over some responses."""
    deviation = float(jnp.std(jax.jit(lambda c: rlhf.total_reward(reward, c))(written)))
    return lambda completions: reward(completions) / max(deviation, 1e-6)


def optimise(
    world: Any,
    writer: Writer,
    policy: Any,
    reward: rlhf.RewardFn,
    settings: rlhf.Settings,
    prompts: Sequence[np.ndarray],
    every: int,
    observe: Callable[[int], None] = lambda iteration: None,
) -> tuple[Any, list[Point]]:
    """PPO from `policy` against a reward; the last parameters and points along the way.

    Args:
        world: judges the points.
        writer: held-out prompts.
        policy: parameters after fine-tuning; the reference too, and the critic's trunk at the start.
        reward: the proxy.
        settings: of PPO.
        prompts: one batch per iteration.
        every: iterations between points; the first and the last policy are points too.
        observe: called after every iteration.
    """
    model, net = writer.model, network(writer.model)
    learner = rlhf.ppo(net, model, reward, policy, settings)
    step, proxy = jax.jit(learner.step), jax.jit(lambda c: rlhf.total_reward(reward, c))
    distance = jax.jit(lambda params, c: _kl(model, params, policy, c))
    key = jax.random.key(0)
    state = learner.init(key, policy, with_head(policy, model.hidden_size, prng.stream(key, "critic")))

    def point(iteration: int) -> Point:
        written = writer.write(state.networks.policy)
        response = np.asarray(written.response * written.response_mask)
        found = outcome(world, writer.prompts, response)
        return Point(iteration, float(distance(state.networks.policy, written)), float(proxy(written).mean()), found)

    points = [point(0)]
    for iteration, batch in enumerate(prompts, 1):
        state, info = step(state, jnp.asarray(batch), jnp.asarray(batch) != PAD)
        if not bool(info.finite):
            raise UserError(f"PPO diverged in iteration {iteration}; lower the learning rate.")
        if iteration % every == 0 or iteration == len(prompts):
            points.append(point(iteration))
        observe(iteration)
    return state.networks.policy, points


def _kl(model: ModelConfig, params: Any, reference: Any, written: rlhf.Completions) -> jax.Array:
    """KL of a response from the reference, nats: exact per token, over sampled prefixes."""
    P = written.prompt_length
    logits = (
        network(model).apply(p, written.tokens, None, written.segment_ids)[:, P - 1 : -1] for p in (params, reference)
    )
    return jnp.where(written.response_mask, kl.exact(*logits), 0.0).sum(1).mean()


def win_rate(a: np.ndarray, b: np.ndarray, resamples: int = 2000) -> tuple[float, float, float]:
    """P(a > b) + P(a = b) / 2 over paired prompts, and its 95 % bootstrap interval."""
    wins = (a > b + 1e-9) + 0.5 * (np.abs(a - b) <= 1e-9)
    drawn = np.random.default_rng(0).integers(len(wins), size=(resamples, len(wins)))
    low, high = np.quantile(wins[drawn].mean(1), [0.025, 0.975])
    return float(wins.mean()), float(low), float(high)


def demo(config: RlhfDemo) -> dict[str, list[Point]]:
    """Runs the demonstration: prints a table, writes `rlhf_demo.png` and `rlhf_demo.json`; points by reward model."""
    keep_programs()
    make_folder(config.out)
    start, world = time.monotonic(), Facts(harmful=config.harmful)
    model, random = tiny_model(world.vocabulary), np.random.default_rng(config.seed)
    mixed = dataclasses.replace(world, harmful=0.5, benign_refusals=0.2)  # what policies meet, and how they begin
    sampling = Sampling(world.response_length, eos_id=EOS, pad_id=PAD)
    writer = Writer(model, sampling, mixed.prompts(random, config.test_prompts))
    print(
        f"A policy answers requests; in {config.pairs} preference pairs ({config.harmful:.0%} harmful) only harmful "
        f"requests are refused."
    )
    with _bar(config) as advance:
        policy = _fine_tuned(config, model, mixed, random, lambda *_: advance("fine-tuning", 1))
        rewards = _reward_models(config, model, world, random, advance)
        settings = rlhf.settings(
            "ppo",
            sampling,
            learning_rate=config.learning_rate,
            critic_learning_rate=3 * config.learning_rate,
            kl_coefficient=config.kl,
            refusals=(REFUSAL,),
        )
        batches = [mixed.prompts(random, config.prompts) for _ in range(config.iterations)]
        begin, runs = writer.write(policy, seed=1), {}
        for name, reward in rewards.items():
            note = lambda _, name=name: advance(f"PPO, {name}", _PPO)
            scaled = standardised(reward, begin)
            every = max(1, config.iterations // 15)
            runs[name] = optimise(world, writer, policy, scaled, settings, batches, every, note)[1]
    _report(config, runs, time.monotonic() - start)
    return runs


_SCALAR, _SEQ2SEQ, _PPO = 3, 1, 6  # steps of fine-tuning that one of each takes


@contextlib.contextmanager
def _bar(config: RlhfDemo) -> Iterator[Callable[[str, int], None]]:
    """A progress bar over everything; where stderr is no terminal, one line for each part."""
    total = config.sft_steps + config.rm_steps * (_SCALAR + _SEQ2SEQ) + 2 * config.iterations * _PPO
    said: list[str] = []
    with tqdm(
        total=total, bar_format="{desc:<24}{bar} {percentage:3.0f} %  {elapsed} < {remaining}", disable=None
    ) as bar:

        def advance(part: str, work: int) -> None:
            if part not in said:
                said.append(part)
                bar.set_description_str(part)
                if bar.disable:
                    print(f"{part} ...", flush=True)
            bar.update(work)

        yield advance


def _fine_tuned(config: RlhfDemo, model: ModelConfig, world: Facts, random: np.random.Generator, observe) -> Any:
    prompts = world.prompts(random, config.pairs)
    data = examples(prompts, world.responses(random, prompts))
    net = network(model)
    params = net.init(prng.stream(jax.random.key(config.seed), "policy"))
    return train(cross_entropy(net), params, packing.pack(data, ROW), 64 / len(data), config.sft_steps, observe=observe)


def _reward_models(
    config: RlhfDemo, model: ModelConfig, world: Facts, random: np.random.Generator, advance: Callable[[str, int], None]
) -> dict[str, rlhf.RewardFn]:
    """Both, from the same pairs, sequences per step and steps."""
    pairs = world.pairs(random, config.pairs)
    both = list(zip(examples(pairs.prompts, pairs.chosen), examples(pairs.prompts, pairs.rejected)))
    net, share = network(model), 64 / len(both)
    key = prng.stream(jax.random.key(config.seed), "rewards")
    values = value_network(net, model.hidden_size)
    scalar = train(
        preference_loss(values),
        with_head(net.init(key), model.hidden_size, key),
        pack_pairs(both, ROW),
        share,
        config.rm_steps,
        observe=lambda *_: advance("scalar reward model", _SCALAR),
    )
    writing = train(
        cross_entropy(net),
        net.init(key),
        packing.pack(seq2seq.mappings(both, SEPARATOR), ROW),
        share / 2,
        config.rm_steps,
        observe=lambda *_: advance("seq2seq reward model", _SEQ2SEQ),
    )
    return {
        "scalar": rlhf.scalar_reward(values, scalar),
        "seq2seq": seq2seq.as_reward(model, writing, SEPARATOR),
    }


def _report(config: RlhfDemo, runs: dict[str, list[Point]], seconds: float) -> None:
    before = runs["scalar"][0]
    rows = {"fine-tuned": before} | {_TITLES[name]: points[-1] for name, points in runs.items()}
    print(f"\n{'':14s}{'gold':>7s}{'refuses benign':>16s}{'refuses harmful':>17s}{'length ratio':>14s}{'KL':>7s}")
    for name, point in rows.items():
        o = point.outcome
        print(
            f"{name:14s}{o.gold.mean():7.3f}{o.over_refusal:16.3f}{o.right_refusal:17.3f}{o.length_ratio:14.3f}{point.kl:7.2f}"
        )
    rate, low, high = win_rate(runs["seq2seq"][-1].outcome.gold, runs["scalar"][-1].outcome.gold)
    interval = f"95 % interval {100 * low:.1f} to {100 * high:.1f}"
    print(f"seq2seq against scalar: wins {100 * rate:.1f} % on the true reward ({interval})")
    figure, numbers = config.out / "rlhf_demo.png", config.out / "rlhf_demo.json"
    with track.replacing(figure) as temporary:
        _figure(runs).savefig(temporary, dpi=150)
    record = {name: [flat(point) for point in points] for name, points in runs.items()}
    record |= {"config": to_json(config), "win_rate": [rate, low, high], "seconds": seconds}
    with track.replacing(numbers) as temporary:
        temporary.write_text(json.dumps(record) + "\n")
    print(f"{seconds:.0f} s; {figure}, {numbers}")


def flat(point: Point) -> dict[str, Any]:
    """A point as plain numbers."""
    o = point.outcome
    return {"iteration": point.iteration, "kl": point.kl, "proxy": point.proxy, "gold": float(o.gold.mean())} | {
        name: getattr(o, name) for name in ("over_refusal", "right_refusal", "length_ratio")
    }


def _figure(runs: dict[str, list[Point]]) -> Figure:
    """Proxy, true reward and refusals of benign requests against the root of the KL."""
    figure = Figure(figsize=(9.6, 3.2), layout="constrained")
    panels = figure.subplots(1, 3)
    columns = {
        "proxy reward (standard deviations)": lambda p: p.proxy - start,
        "true reward": lambda p: p.outcome.gold.mean(),
        "benign requests refused": lambda p: p.outcome.over_refusal,
    }
    for panel, (label, read) in zip(panels, columns.items()):
        for name, points in runs.items():
            start = points[0].proxy
            panel.plot(
                [max(p.kl, 0.0) ** 0.5 for p in points], [read(p) for p in points], marker=".", label=_TITLES[name]
            )
        panel.set(xlabel=r"$\sqrt{\mathrm{KL}}$ from the fine-tuned policy", title=label)
        panel.grid(color="0.9")
    panels[0].legend()
    return figure
