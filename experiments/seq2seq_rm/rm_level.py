"""Reward models by themselves: on held-out pairs, under stress, token by token, and when the best of n is chosen."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from config import Config
from judges import apply, judges
from models import demonstrations
from scipy.stats import rankdata
from worlds import World

from jaxalign.cli.rlhf import SEPARATOR
from jaxalign.rewards import accuracy, seq2seq
from jaxalign.rewards.facts_world import Facts, lengths
from jaxalign.rlhf.rollout import RewardFn

FURTHER = range(5)  # facts or fillers added to an ideal answer
CORRUPTIONS = ("substitution", "insertion", "omission")
_PROMPTS = 150


def measure(config: Config, world: World, params: Mapping[str, Any], seed: int) -> dict[str, dict[str, Any]]:
    """Every reading of the reward models by name: all of the RM table's numbers."""
    model = config.model(world)
    copies = {name: _copying(config, world, p, seed) for name, p in params.items() if _reads_responses(name)}
    rows = {}
    for name, judge in judges(model, params).items():
        rows[name] = _measure(config, world, judge, seed) | copies.get(name, {})
    return rows


def _reads_responses(name: str) -> bool:
    return name in ("seq2seq", "correction_only", "identity_only")


def _measure(config: Config, world: World, judge: RewardFn, seed: int) -> dict[str, Any]:
    per_token = jax.jit(judge)
    total = lambda prompts, responses: apply(per_token, prompts, responses).sum(1)
    random = np.random.default_rng([seed, 2])
    row: dict[str, Any] = {"accuracy": _pair_accuracy(total, world, random, config.test_pairs)}
    benign = _benign(world).prompts(random, config.test_prompts)
    ideal = world.ideal(benign)
    best = total(benign, ideal)
    if isinstance(world, Facts):
        more = dataclasses.replace(world, asked=(5,))
        row["accuracy_five_facts"] = _pair_accuracy(total, more, random, config.test_pairs)
        row["correct_over_refusal"] = accuracy(best, total(benign, world.refusals(len(benign))))
        row["further_facts"] = [float(total(benign, world.ideal(benign, j)).mean()) for j in range(3)]
    spread = float(np.std(total(benign, world.responses(random, benign))))
    further = [total(benign, world.lengthened(random, benign, j)).mean() for j in FURTHER]
    row["further_tokens"] = [float(x) for x in further]
    row["length_slope"] = float(np.polyfit(FURTHER, further, 1)[0] / max(spread, 1e-6))
    for kind in CORRUPTIONS:
        row[f"auc_{kind}"] = _credit(per_token, world, benign, kind, random)
    return row | _best_of(config, world, total, random)


def _pair_accuracy(total, world: World, random: np.random.Generator, count: int) -> float:
    pairs = world.pairs(random, count)
    return accuracy(total(pairs.prompts, pairs.chosen), total(pairs.prompts, pairs.rejected))


def _benign(world: World) -> World:
    return dataclasses.replace(world, harmful=0.0) if isinstance(world, Facts) else world


def _credit(per_token, world: World, prompts: np.ndarray, kind: str, random: np.random.Generator) -> float:
    """Area under the ROC curve of the rewards of right tokens against wrong ones, in answers with one known error.

    An omission has no token to blame: there, the EOS of whole answers against that of answers that lack something.
    """
    responses = world.corrupted(random, prompts, kind)
    rewards, right = apply(per_token, prompts, responses), world.right(prompts, responses)
    columns = np.arange(responses.shape[1])
    if kind != "omission":
        valid = columns < lengths(responses)[:, None]
        return auc(rewards[valid], right[valid])
    whole = world.ideal(prompts)
    ends, last = (columns == lengths(y)[:, None] for y in (responses, whole))
    scores = np.concatenate([rewards[ends], apply(per_token, prompts, whole)[last]])
    return auc(scores, np.arange(len(scores)) >= ends.sum())


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """P(score of a positive > score of a negative) + P(tie) / 2; NaN without either."""
    count, others = int(positive.sum()), int((~positive).sum())
    if not count or not others:
        return float("nan")
    return float((rankdata(scores)[positive].sum() - count * (count + 1) / 2) / (count * others))


def _best_of(config: Config, world: World, total, random: np.random.Generator) -> dict[str, float]:
    """Gold reward of the best of n answers of a cautious annotated policy, by this reward and by the gold itself."""
    source = _benign(demonstrations(world, config.cautious))
    prompts = np.repeat(source.prompts(random, _PROMPTS), config.best_of, axis=0)
    responses = source.responses(random, prompts)
    gold, shape = world.gold(prompts, responses), (_PROMPTS, config.best_of)
    chosen = total(prompts, responses).reshape(shape).argmax(1) + config.best_of * np.arange(_PROMPTS)
    row = {
        "best_of_gold": float(gold[chosen].mean()),
        "best_of_length_ratio": float((lengths(responses) / lengths(world.ideal(prompts)))[chosen].mean()),
        "mean_gold": float(gold.mean()),
        "oracle_gold": float(gold.reshape(shape).max(1).mean()),
    }
    if isinstance(world, Facts):
        row["best_of_refusals"] = float(world.is_refusal(responses[chosen]).mean())
    return row


def _copying(config: Config, world: World, params: Any, seed: int) -> dict[str, float]:
    """Does the model copy what it reads: rejected answers (it should not), ideal ones (it should)."""
    model, random = config.model(world), np.random.default_rng([seed, 3])
    judge = jax.jit(lambda completions: seq2seq.feedback(model, params, completions, SEPARATOR))
    pairs = world.pairs(random, config.test_pairs)
    benign = _benign(world).prompts(random, config.test_prompts)
    found = {}
    for name, prompts, responses in (
        ("rejected", pairs.prompts, pairs.rejected),
        ("chosen", pairs.prompts, pairs.chosen),
        ("ideal", benign, world.ideal(benign)),
    ):
        diagnosis = jax.device_get(seq2seq.diagnose(apply(judge, prompts, responses)))
        found |= {f"{key}_on_{name}": float(value) for key, value in diagnosis.items()}
    return found
