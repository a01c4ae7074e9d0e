"""Tables over seeds: means with 95 % bootstrap intervals; comparisons are paired by seed and prompt."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from config import Config

from jaxalign import track

RM_COLUMNS = (
    "accuracy",
    "accuracy_five_facts",
    "correct_over_refusal",
    "best_of_gold",
    "best_of_refusals",
    "length_slope",
    "auc_substitution",
    "auc_insertion",
    "auc_omission",
    "copy_rate_on_rejected",
    "copy_rate_on_ideal",
)
POLICY_COLUMNS = ("gold", "over_refusal", "right_refusal", "length_ratio", "kl")
AGAINST = (("ppo_seq2seq", "ppo_scalar"), ("ppo_seq2seq", "ppo_likelihood"), ("ppo_seq2seq", "ppo_seq2seq_sparse"))
TASKS = ("refusal", "length", "summary")  # over which the claim averages
_RESAMPLES = 2000


def read(config: Config, world: str, name: str) -> list[Any]:
    """A result of every seed that has it."""
    paths = [config.out / world / f"seed{seed}" / f"{name}.json" for seed in config.seeds]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean over seeds and its 95 % percentile bootstrap interval (of one seed: NaN)."""
    values = np.asarray([value for value in values if value is not None and np.isfinite(value)], float)
    if values.size < 2:
        return (float(values.mean()) if values.size else float("nan")), float("nan"), float("nan")
    drawn = np.random.default_rng(0).choice(values, size=(_RESAMPLES, values.size))
    low, high = np.quantile(drawn.mean(1), [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def paired_wins(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """P(a > b) + P(a = b) / 2 over seeds and prompts, and its 95 % interval: seeds, then prompts are drawn anew.

    Args:
        a: true rewards, by seed and prompt.
        b: of the other policy, on the same prompts.
    """
    first, second = np.asarray(a, float), np.asarray(b, float)
    wins = (first > second + 1e-9) + 0.5 * (np.abs(first - second) <= 1e-9)
    random = np.random.default_rng(0)
    seeds, prompts = wins.shape
    means = [
        wins[random.integers(seeds, size=seeds)][:, random.integers(prompts, size=prompts)].mean()
        for _ in range(_RESAMPLES)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(wins.mean()), float(low), float(high)


def tables(config: Config) -> None:
    """Writes `tables.md` from whatever results there are."""
    parts = []
    for world in config.worlds:
        parts += [_rm_table(config, world), _policy_table(config, world), _wins(config, world)]
    parts.append(_claim(config))
    path = Path(config.out) / "tables.md"
    with track.replacing(path) as temporary:
        temporary.write_text("\n\n".join(part for part in parts if part) + "\n")


def _rm_table(config: Config, world: str) -> str:
    found = read(config, world, "rm")
    if not found:
        return ""
    value = lambda row, column: [seed[row].get(column) for seed in found if row in seed]
    title = f"### {world}: reward models, {len(found)} seed{'s' * (len(found) > 1)}"
    return _table(title, list(found[0]), [c for c in RM_COLUMNS if any(c in row for row in found[0].values())], value)


def _policy_table(config: Config, world: str) -> str:
    found = {name: read(config, world, f"policy-{name}") for name in config.policies}
    names = [name for name, seeds in found.items() if seeds]
    if not names:
        return ""
    value = lambda row, column: [seed[column] for seed in found[row]]
    return _table(f"### {world}: policies, {len(found[names[0]])} seeds", names, list(POLICY_COLUMNS), value)


def _table(title: str, rows: list[str], columns: list[str], value: Callable[[str, str], list[Any]]) -> str:
    heading = "|".join(column.replace("_", " ") for column in columns)
    lines = [title, "", f"| |{heading}|", "|---" * (len(columns) + 1) + "|"]
    for row in rows:
        cells = [_cell(interval(value(row, column))) for column in columns]
        lines.append(f"| {row.replace('_', ' ')} |" + "|".join(cells) + "|")
    return "\n".join(lines)


def _cell(estimate: tuple[float, float, float]) -> str:
    mean, low, high = estimate
    if np.isnan(mean):
        return "-"
    return f"{mean:.3f}" if np.isnan(low) else f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def _wins(config: Config, world: str) -> str:
    lines = []
    for a, b in AGAINST:
        rewards = _both(config, world, a, b)
        if rewards:
            lines.append(f"- {world}: {a} wins {_cell(paired_wins(*rewards))} of prompts against {b}")
    return "\n".join(lines)


def _both(config: Config, world: str, a: str, b: str) -> tuple[list, list] | None:
    """True rewards of two policies, of the seeds that have both."""
    rows = [{found["seed"]: found["each"] for found in read(config, world, f"policy-{name}")} for name in (a, b)]
    seeds = sorted(rows[0].keys() & rows[1].keys())
    return tuple([row[seed] for seed in seeds] for row in rows) if seeds else None


def _claim(config: Config) -> str:
    """The win rate of PPO with the seq2seq reward over PPO with the scalar one, averaged over the three tasks."""
    both = [_both(config, world, *AGAINST[0]) for world in TASKS]
    if not all(both):
        return ""
    rates = [paired_wins(*rewards)[0] for rewards in both if rewards]
    return f"**Claim.** Win rate of ppo_seq2seq over ppo_scalar, mean of {', '.join(TASKS)}: {np.mean(rates):.3f}"
