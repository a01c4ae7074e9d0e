"""The whole experiment as one frozen value."""

import dataclasses
from pathlib import Path
from typing import Literal

from worlds import WORLDS, World

from jaxalign.cli.rlhf import tiny_model
from jaxalign.core.errors import UserError
from jaxalign.lm import ModelConfig

Level = Literal["rm", "policy"]

SCORES = ("scalar", "scalar_early", "likelihood", "seq2seq", "correction_only", "identity_only")
"""What is trained on the same pairs: models of `models.train_rewards`."""

POLICIES = (
    "sft",
    "dpo",
    "best_of_n_scalar",
    "best_of_n_seq2seq",
    "ppo_scalar",
    "ppo_scalar_length",
    "ppo_redistributed",
    "ppo_seq2seq",
    "ppo_seq2seq_mean",
    "ppo_seq2seq_log_probability",
    "ppo_seq2seq_sparse",
    "ppo_likelihood",
    "ppo_gold",
)
"""Rows of the policy table."""


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run; a cell is a world and a seed, at the level of reward models or of policies.

    Attributes:
        worlds: names in `worlds.WORLDS`; the claim is about refusal, length and summary.
        seeds: of everything random.
        levels: "rm" scores reward models, "policy" optimises against them (and needs their cells).
        policies: rows of the policy table.
        pairs: preferences for training.
        test_pairs: held-out ones, in the same distribution and with five facts asked for.
        test_prompts: fixed, held-out; half harmful where the world knows harm.
        cautious: share of benign prompts that the policy's demonstrations refuse.
        width: D of every model.
        layers: L of every model.
        sft_steps: of supervised fine-tuning.
        rm_steps: of every reward model.
        batch: sequences (pairs, for the scalar model) in a step.
        learning_rate: peak, of everything but PPO.
        iterations: of PPO.
        prompts_per_iteration: of PPO, one response each.
        ppo_learning_rate: of the policy.
        kl: coefficient of the penalty per token; every reward is scaled to a standard deviation of 1 before.
        length_penalty: of the row `ppo_scalar_length`, per token, in those standard deviations.
        best_of: n.
        evaluate_every: PPO iterations between points of the over-optimisation curve.
        out: where cells, tables and figures go.
    """

    worlds: tuple[str, ...] = ("refusal", "length", "summary")
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    levels: tuple[Level, ...] = ("rm", "policy")
    policies: tuple[str, ...] = POLICIES
    pairs: int = 4000
    test_pairs: int = 1000
    test_prompts: int = 400
    cautious: float = 0.2
    width: int = 64
    layers: int = 2
    sft_steps: int = 1500
    rm_steps: int = 1500
    batch: int = 64
    learning_rate: float = 2e-3
    iterations: int = 300
    prompts_per_iteration: int = 64
    ppo_learning_rate: float = 3e-4
    kl: float = 0.05
    length_penalty: float = 0.1
    best_of: int = 16
    evaluate_every: int = 30
    out: Path = Path("runs/seq2seq_rm")

    def model(self, world: World) -> ModelConfig:
        """Of every model in this world: about 0.1 M parameters by default."""
        return tiny_model(world.vocabulary, self.width, self.layers)

    def world(self, name: str) -> World:
        """The world of that name.

        Raises:
            UserError: there is none.
        """
        if name not in WORLDS:
            raise UserError(f"There is no world {name!r}; choose from {', '.join(WORLDS)}.")
        return WORLDS[name]
