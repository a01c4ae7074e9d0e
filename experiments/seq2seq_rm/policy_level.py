"""Policies optimised against each reward, judged by the true one on the same held-out prompts."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from config import Config
from judges import gold, judges, with_length_penalty
from models import demonstrations
from worlds import World

from jaxalign import rlhf
from jaxalign.cli.rlhf import ROW, Point, Writer, examples, flat, optimise, outcome, standardised, train
from jaxalign.lm import Sampling, network
from jaxalign.rewards import pack_pairs
from jaxalign.rewards.facts_world import EOS, PAD, Pairs
from jaxalign.rlhf.rollout import RewardFn

_PPO = "ppo_"
_BEST = "best_of_n_"
_DPO_BETA, _DPO_RATE = 0.1, 5e-4


@dataclasses.dataclass(frozen=True)
class Start:
    """What all policies of a seed share.

    Attributes:
        config: of the experiment.
        world: where they live.
        seed: of everything random.
        policy: parameters after fine-tuning.
        judges: rewards by name.
        pairs: that the reward models were trained on.
    """

    config: Config
    world: World
    seed: int
    policy: Any
    judges: Mapping[str, RewardFn]
    pairs: Pairs

    @property
    def writer(self) -> Writer:
        """Held-out prompts, the same for all rows and seeds of the table."""
        sampling = Sampling(self.world.response_length, eos_id=EOS, pad_id=PAD)
        prompts = demonstrations(self.world, 0.0).prompts(np.random.default_rng(99), self.config.test_prompts)
        return Writer(self.config.model(self.world), sampling, prompts)


def start(config: Config, world: World, seed: int, policy: Any, rewards: Mapping[str, Any], pairs: Pairs) -> Start:
    """With every reward that can be read from `rewards`, and the true one."""
    return Start(config, world, seed, policy, judges(config.model(world), rewards) | {"gold": gold(world)}, pairs)


def measure(begin: Start, name: str) -> dict[str, Any]:
    """The row `name` of the policy table: its outcome on the held-out prompts and, for PPO, the way there."""
    if name == "sft":
        return _record(begin, [_still(begin, begin.policy)])
    if name == "dpo":
        return _record(begin, [_still(begin, _dpo(begin))])
    if name.startswith(_BEST):
        return _best_of_n(begin, name.removeprefix(_BEST))
    return _record(begin, _ppo(begin, name.removeprefix(_PPO)))


def _still(begin: Start, params: Any) -> Point:
    response = _response(begin.writer.write(params))
    return Point(0, float("nan"), float("nan"), outcome(begin.world, begin.writer.prompts, response))


def _response(written: rlhf.Completions) -> np.ndarray:
    return np.asarray(written.response * written.response_mask)


def _ppo(begin: Start, name: str) -> list[Point]:
    config, writer = begin.config, begin.writer
    penalised = name == "scalar_length"
    reward = standardised(begin.judges["scalar" if penalised else name], writer.write(begin.policy, seed=1))
    if penalised:
        reward = with_length_penalty(reward, config.length_penalty)
    settings = rlhf.settings(
        "ppo",
        writer.sampling,
        learning_rate=config.ppo_learning_rate,
        critic_learning_rate=3 * config.ppo_learning_rate,
        kl_coefficient=config.kl,
    )
    random, source = np.random.default_rng([begin.seed, 4]), demonstrations(begin.world, 0.0)
    batches = [source.prompts(random, config.prompts_per_iteration) for _ in range(config.iterations)]
    return optimise(begin.world, writer, begin.policy, reward, settings, batches, config.evaluate_every)[1]


def _dpo(begin: Start) -> Any:
    """Direct preference optimisation on the same pairs, as many steps as a reward model."""
    pairs, config = begin.pairs, begin.config
    both = list(zip(examples(pairs.prompts, pairs.chosen), examples(pairs.prompts, pairs.rejected)))
    loss = rlhf.dpo_loss(network(config.model(begin.world)), _DPO_BETA)
    share = config.batch / len(both)
    return train(loss, begin.policy, pack_pairs(both, ROW), share, config.rm_steps, _DPO_RATE, frozen=begin.policy)


def _best_of_n(begin: Start, name: str) -> dict[str, Any]:
    """No optimisation: of n responses of the fine-tuned policy, the one that the reward prefers."""
    writer, config = begin.writer, begin.config
    n, model = config.best_of, writer.model
    choose = jax.jit(rlhf.best_of_n(network(model), model, writer.sampling, begin.judges[name], n))
    prompts = jnp.asarray(writer.prompts)
    best = choose(begin.policy, prompts, prompts != PAD, jax.random.key(begin.seed))
    found = outcome(begin.world, writer.prompts, _response(best.completions))
    return _record(begin, [Point(0, rlhf.kl_bound(n), float(best.reward.max(1).mean()), found)])


def _record(begin: Start, points: list[Point]) -> dict[str, Any]:
    """As JSON: the last point in full, the way there in short."""
    last: dict[str, Any] = flat(points[-1])
    return last | {"seed": begin.seed, "each": points[-1].outcome.gold.tolist(), "points": [flat(p) for p in points]}
