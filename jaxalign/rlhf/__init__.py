"""Policies from feedback: supervised fine-tuning, PPO, GRPO, RLOO, DPO, best of n, safe RLHF; rewards are per token."""

from jaxalign.rlhf.best_of_n import Best, best_of_n, expected_best, kl_bound, rejection_examples, total_reward
from jaxalign.rlhf.diagnostics import Onset, ended, hacking_onset, measure, refuses
from jaxalign.rlhf.dpo import dpo_loss, sequence_log_probs
from jaxalign.rlhf.experience import Parts, Policy, Signals
from jaxalign.rlhf.learner import Info, RLLearner, RLState, make, shardings
from jaxalign.rlhf.ppo import ROWS, algorithm, grpo, ppo, rloo, settings
from jaxalign.rlhf.rollout import (
    Completions,
    Prompts,
    RewardFn,
    at_the_end,
    pad_prompts,
    sampler,
    scalar_reward,
    to_examples,
)
from jaxalign.rlhf.safe import constrained
from jaxalign.rlhf.settings import Hyper, Settings
from jaxalign.rlhf.sft import SFTConfig, fine_tune

__all__ = [
    "ROWS",
    "Best",
    "Completions",
    "Hyper",
    "Info",
    "Onset",
    "Parts",
    "Policy",
    "Prompts",
    "RLLearner",
    "RLState",
    "RewardFn",
    "SFTConfig",
    "Settings",
    "Signals",
    "algorithm",
    "at_the_end",
    "best_of_n",
    "constrained",
    "dpo_loss",
    "ended",
    "expected_best",
    "fine_tune",
    "grpo",
    "hacking_onset",
    "kl_bound",
    "make",
    "measure",
    "pad_prompts",
    "ppo",
    "refuses",
    "rejection_examples",
    "rloo",
    "sampler",
    "scalar_reward",
    "sequence_log_probs",
    "settings",
    "shardings",
    "to_examples",
    "total_reward",
]
