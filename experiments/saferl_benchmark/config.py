"""The grid: algorithms x environments x seeds x limits x learning rates."""

import dataclasses
from pathlib import Path

from jaxalign import saferl

ON_POLICY = tuple(name for name, row in saferl.CATALOGUE.items() if isinstance(row.config, saferl.OnPolicyConfig))
OFF_POLICY = tuple(name for name, row in saferl.CATALOGUE.items() if isinstance(row.config, saferl.OffPolicyConfig))


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run; the full size is ``--steps 10000000 --seeds 0 1 2 3 4`` over all environments.

    Attributes:
        algorithms: catalogue names; by default every on-policy row.
        envs: environment ids.
        seeds: of everything random.
        limits: highest allowed cost per episode.
        learning_rates: of the policy, where it descends a gradient; None: the default alone.
        steps: environment steps of every member of the grid (rounded up to whole iterations).
        costs: what is constrained; one cost.
        eval_episodes: evaluated per member.
        checkpoint_seconds: time between checkpoints of a cell.
        engine: physics engine; by default the faster one on this platform.
        on_policy: sizes.
        off_policy: sizes.
        out: where cells, tables and figures go.
    """

    algorithms: tuple[str, ...] = ON_POLICY
    envs: tuple[str, ...] = ("SafetyPointGoal1-v0", "SafetyHalfCheetahVelocity-v1")
    seeds: tuple[int, ...] = (0, 1)
    limits: tuple[float, ...] = (25.0,)
    learning_rates: tuple[float | None, ...] = (None,)
    steps: int = 1_000_000
    costs: tuple[str, ...] = ("cost",)
    eval_episodes: int = 100
    checkpoint_seconds: float = 120.0
    engine: str | None = None
    on_policy: saferl.OnPolicyConfig = dataclasses.field(default_factory=saferl.OnPolicyConfig)
    off_policy: saferl.OffPolicyConfig = dataclasses.field(default_factory=saferl.OffPolicyConfig)
    out: Path = Path("runs/saferl_benchmark")
