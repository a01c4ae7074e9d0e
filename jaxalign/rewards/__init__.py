"""Reward models: preference losses, scalar rewards and their position, evaluation."""

from jaxalign.rewards.evaluation import SECTIONS, Benchmark, Calibration, accuracy, benchmark, calibration
from jaxalign.rewards.losses import FAMILY, PreferenceLoss, preference
from jaxalign.rewards.position import (
    RewardPosition,
    at_reward_position,
    generated_segments,
    reward_position,
    to_tokens,
)
from jaxalign.rewards.scalar import (
    PairBatch,
    Rewards,
    adapted,
    pack_pairs,
    paired,
    preference_loss,
    score,
    score_examples,
    value_network,
    with_head,
)
from jaxalign.rewards.tree_pairs import KINDS, MIXTURES, TreePairs, count_pairs, texts, tree_pairs

__all__ = [
    "FAMILY",
    "KINDS",
    "MIXTURES",
    "SECTIONS",
    "Benchmark",
    "Calibration",
    "PairBatch",
    "PreferenceLoss",
    "RewardPosition",
    "Rewards",
    "TreePairs",
    "accuracy",
    "adapted",
    "at_reward_position",
    "benchmark",
    "calibration",
    "count_pairs",
    "generated_segments",
    "pack_pairs",
    "paired",
    "preference",
    "preference_loss",
    "reward_position",
    "score",
    "score_examples",
    "texts",
    "to_tokens",
    "tree_pairs",
    "value_network",
    "with_head",
]
