"""The whole experiment as one frozen value."""

import dataclasses
from pathlib import Path
from typing import Literal

from world import VOCABULARY

from jaxalign.cli.rlhf import tiny_model
from jaxalign.lm import ModelConfig

Topology = Literal["chain", "pool", "tree"]


@dataclasses.dataclass(frozen=True)
class Data:
    """A preference data set.

    Attributes:
        topology: "chain": two fresh responses per pair; "pool": 8 independent responses to a prompt, all 28 pairs;
            "tree": up to 8 leaves that share beginnings, all pairs.
        pairs: how many; 0: as many as `tokens` allow.
        tokens: that may be generated; 0: as many as the pairs need.
        mixture: of complete and unfinished responses (trees only), see `rewards.MIXTURES`.
        expertise: q; an annotator's scale of noise is the share of the text that differs, to this power.
        paper: the paper's temperatures (chains 1.2; trees from 1.4, cooling by 0.2 a level) instead of 1 for all.
    """

    topology: Topology
    pairs: int = 0
    tokens: int = 0
    mixture: str = "complete"
    expertise: float = 0.0
    paper: bool = False

    @property
    def name(self) -> str:
        """Unique."""
        size = f"{self.pairs}" if self.pairs else f"{self.tokens // 1000}k-tokens"
        extras = [f"-{self.mixture}"] * (self.mixture != "complete") + [f"-q{self.expertise:g}"] * (self.expertise > 0)
        return f"{self.topology}-{size}{''.join(extras)}{'-paper' * self.paper}"


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run; a cell is a seed and a data set.

    Attributes:
        seeds: of everything random.
        pairs: sizes of the curve over pairs.
        middle: size at which variants are compared and policies made.
        tokens: budget of the comparison at equal tokens; about what a chain of the least pairs takes.
        sharpness: beta of the annotator: P(a preferred to b) = sigmoid(beta (gold a - gold b) / noise).
        sft_texts: demonstrations.
        sft_steps: of the policy's fine-tuning.
        width: D of every model.
        layers: L of every model.
        batch: pairs in a step of the scalar model; mappings, of which a pair has two, in one of the sequence model.
        passes: over the pairs, within the next two bounds; equal for every topology at equal pairs.
        fewest_steps: of a reward model.
        most_steps: of a reward model.
        learning_rate: peak, of everything but PPO.
        test_pairs: of each kind, noise-free, on held-out prompts.
        best_of: n.
        test_texts: per held-out prompt, by which policies are judged.
        rft_prompts: whose best responses are learned by rejection fine-tuning.
        rft_steps: of that.
        iterations: of PPO.
        prompts_per_iteration: of PPO, one response each.
        ppo_learning_rate: of the policy.
        kl: coefficient per token; rewards are scaled to a standard deviation of 1 before.
        out: where cells, tables and figures go.
    """

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    pairs: tuple[int, ...] = (512, 2048, 8192)
    middle: int = 2048
    tokens: int = 18_000
    sharpness: float = 2.0
    sft_texts: int = 8000
    sft_steps: int = 800
    width: int = 64
    layers: int = 2
    batch: int = 64
    passes: int = 6
    fewest_steps: int = 100
    most_steps: int = 600
    learning_rate: float = 2e-3
    test_pairs: int = 2000
    best_of: int = 32
    test_texts: int = 25
    rft_prompts: int = 1280
    rft_steps: int = 200
    iterations: int = 60
    prompts_per_iteration: int = 64
    ppo_learning_rate: float = 3e-4
    kl: float = 0.05
    out: Path = Path("runs/tree_rm")

    @property
    def model(self) -> ModelConfig:
        """Of policy, critic and reward models: about 0.1 M parameters by default."""
        return tiny_model(VOCABULARY, self.width, self.layers)

    @property
    def data(self) -> tuple[Data, ...]:
        """All data sets: the curve over pairs, equal tokens, and the controls."""
        topologies: tuple[Topology, ...] = ("chain", "pool", "tree")
        curve = [Data(topology, n) for n in self.pairs for topology in topologies]
        budget = [Data(topology, tokens=self.tokens) for topology in topologies]
        n = self.middle
        expert = [Data("tree", n, expertise=q) for q in (0.5, 1.0)]
        mixed = [Data("tree", n, mixture=mixture) for mixture in ("half", "thirds")]
        paper = [Data("chain", n, paper=True), Data("tree", n, paper=True)]
        return tuple(dict.fromkeys([*curve, *budget, *expert, *mixed, *paper]))

    def steps(self, pairs: int) -> int:
        """Of a reward model on so many pairs."""
        return min(max(self.passes * pairs // self.batch, self.fewest_steps), self.most_steps)

    def makes_policies(self, data: Data) -> bool:
        """Whether policies are optimised against reward models of this data."""
        plain = data.mixture == "complete" and not data.paper and data.expertise in (0.0, 1.0)
        return plain and (data.tokens > 0 or data.pairs == self.middle)
