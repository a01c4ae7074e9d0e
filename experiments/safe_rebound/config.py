"""The whole experiment as one frozen value."""

import dataclasses
from pathlib import Path

from jaxalign import saferl


@dataclasses.dataclass(frozen=True)
class Config:
    """A life: without a limit, then with one, then without again or with another aim; all seeds in one program.

    Attributes:
        env: environment.
        limit: highest allowed cost per episode while aligned.
        seeds: of everything random.
        base_steps: of PPO, without a limit.
        aligned: steps of PPO-Lagrangian at which a policy is kept.
        perturbation: steps of PPO after that.
        sizes: of all three; the learning rate stays, since a life is no schedule.
        devices: over which environments are spread; None: all.
        engine: physics engine; by default the faster one on this platform.
        out: where phases, tables and figures go.
    """

    env: str = "SafetyPointGoal1-v0"
    limit: float = 25.0
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    base_steps: int = 500_000
    aligned: tuple[int, ...] = (500_000, 1_000_000, 3_000_000)
    perturbation: int = 500_000
    sizes: saferl.OnPolicyConfig = dataclasses.field(
        default_factory=lambda: saferl.OnPolicyConfig(decay_learning_rate=False)
    )
    devices: int | None = None
    engine: str | None = None
    out: Path = Path("runs/safe_rebound")

    def iterations(self, steps: int) -> int:
        """Whole iterations that hold so many steps."""
        return -(-steps // self.sizes.steps_per_iteration)
