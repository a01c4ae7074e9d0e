"""The whole experiment: four algorithms, three seeds, 1e7 environment steps each."""

import dataclasses
from pathlib import Path

from jaxalign.cli.run import TrainConfig


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run.

    Attributes:
        algorithms: catalogue names.
        seeds: one run each per algorithm.
        train: settings common to all runs; algorithm, seed and name are filled in.
        out: where runs, table and figure go.
    """

    algorithms: tuple[str, ...] = ("ppo", "ppo_lag", "cpo", "trpo_lag")
    seeds: tuple[int, ...] = (0, 1, 2)
    train: TrainConfig = dataclasses.field(default_factory=lambda: TrainConfig(video=False))
    out: Path = Path("runs/safe_navigation")


# OmniSafe, on-policy benchmark, 1e7 steps, 5 seeds, cost limit 25: return and cost, mean and standard deviation
PUBLISHED = {
    "ppo": ((25.44, 5.43), (55.72, 35.55)),
    "ppo_lag": ((12.96, 6.95), (25.80, 34.99)),
    "cpo": ((20.46, 1.38), (28.84, 7.76)),
    "pcpo": ((18.57, 1.71), (22.98, 6.56)),
    "trpo": ((27.20, 0.44), (45.88, 11.27)),
    "trpo_lag": ((18.51, 3.83), (22.98, 8.45)),
}
