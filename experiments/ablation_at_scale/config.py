"""The grid: algorithms x environments x limits x learning rates x seeds."""

import dataclasses
import itertools
from pathlib import Path
from typing import NamedTuple

from jaxalign import saferl


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run.

    Attributes:
        algorithms: catalogue names.
        envs: environment ids.
        limits: highest allowed cost per episode.
        learning_rates: of the policy (actor).
        critic_learning_rates: of the critics.
        seeds: of everything random.
        together: runs side by side on one device, G; part of what is computed, so keep it when continuing.
        steps: environment steps of every run (rounded up to whole iterations).
        costs: what is constrained; one cost.
        eval_episodes: evaluated per run.
        checkpoint_seconds: time between checkpoints.
        engine: physics engine; by default the faster one on this platform.
        devices: of a process, how many to use; by default all.
        distributed: "off", or as in `jaxalign train` for several processes, which share `out`.
        on_policy: sizes.
        off_policy: sizes.
        out: where runs, table and figures go.
    """

    algorithms: tuple[str, ...] = ("ppo_lag", "cppo_pid", "focops")
    envs: tuple[str, ...] = ("SafetyPointGoal1-v0",)
    limits: tuple[float, ...] = (10.0, 25.0)
    learning_rates: tuple[float, ...] = (3e-4, 1e-3)
    critic_learning_rates: tuple[float, ...] = (1e-3,)
    seeds: tuple[int, ...] = (0, 1)
    together: int = 4
    steps: int = 1_000_000
    costs: tuple[str, ...] = ("cost",)
    eval_episodes: int = 100
    checkpoint_seconds: float = 120.0
    engine: str | None = None
    devices: int | None = None
    distributed: str = "off"
    on_policy: saferl.OnPolicyConfig = dataclasses.field(default_factory=saferl.OnPolicyConfig)
    off_policy: saferl.OffPolicyConfig = dataclasses.field(default_factory=saferl.OffPolicyConfig)
    out: Path = Path("runs/ablation_at_scale")


class Member(NamedTuple):
    """One run: where it lies in the grid, but for algorithm and environment."""

    limit: float
    learning_rate: float
    critic_learning_rate: float
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"limit{self.limit:g}-rate{self.learning_rate:g}-critic{self.critic_learning_rate:g}-seed{self.seed}"


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that are computed side by side on one device: what a checkpoint holds.

    Attributes:
        folder: where it is written.
        members: G of them; the last group of a program repeats its last run to fill up.
    """

    folder: Path
    members: tuple[Member, ...]

    @property
    def done(self) -> bool:
        """Whether every run has been evaluated."""
        return all((self.folder.parent / member.name / "evaluation.json").exists() for member in self.members)


@dataclasses.dataclass(frozen=True)
class Program:
    """An algorithm in an environment: what is compiled once."""

    config: Config
    algorithm: str
    env: str

    @property
    def folder(self) -> Path:
        """Where it is written."""
        return self.config.out / self.env.rpartition(":")[2] / self.algorithm

    @property
    def sizes(self) -> saferl.OnPolicyConfig | saferl.OffPolicyConfig:
        """Of its learner."""
        off = isinstance(saferl.CATALOGUE[self.algorithm].config, saferl.OffPolicyConfig)
        return self.config.off_policy if off else self.config.on_policy

    @property
    def iterations(self) -> int:
        """Of every run."""
        return -(-self.config.steps // self.sizes.steps_per_iteration)

    @property
    def members(self) -> tuple[Member, ...]:
        """Every run."""
        c = self.config
        axes = (c.limits, c.learning_rates, c.critic_learning_rates, c.seeds)
        return tuple(Member(*values) for values in itertools.product(*axes))

    @property
    def groups(self) -> tuple[Group, ...]:
        """The runs in groups of G."""
        G, members = self.config.together, self.members
        parts = [members[i : i + G] for i in range(0, len(members), G)]
        filled = [part + part[-1:] * (G - len(part)) for part in parts]
        return tuple(Group(self.folder / f"group{i}", part) for i, part in enumerate(filled))


def programs(config: Config) -> list[Program]:
    """The whole grid."""
    return [Program(config, saferl.resolve(name), env) for env in config.envs for name in config.algorithms]
