"""The whole experiment: three policies trained here, judged here and in the original."""

import dataclasses
from pathlib import Path

from jaxalign.cli.run import TrainConfig


@dataclasses.dataclass(frozen=True)
class Task:
    """One environment and how long a policy trains on it, environment steps."""

    env: str
    steps: int


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run.

    Attributes:
        peer_python: interpreter that has safety-gymnasium==1.0.0.
        tasks: environments.
        train: settings common to all policies; environment, steps and name are filled in.
        episodes: evaluated here.
        peer_episodes: evaluated in the peer, which takes a second or more for each.
        seed: of the evaluation; the peer's episode i is reset with seed + i.
        processes: of the peer.
        out: where runs, policies, `result.json` and `table.md` go.
    """

    peer_python: str = "python3.10"
    tasks: tuple[Task, ...] = (
        Task("SafetyPointGoal1-v0", 6_000_000),
        Task("SafetyCarGoal1-v0", 1_000_000),
        Task("SafetyHalfCheetahVelocity-v1", 5_000_000),
    )
    train: TrainConfig = dataclasses.field(default_factory=lambda: TrainConfig(video=False))
    episodes: int = 1000
    peer_episodes: int = 200
    seed: int = 1000
    processes: int = 2
    out: Path = Path("runs/sim_to_sim")
