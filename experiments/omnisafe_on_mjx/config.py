"""The whole experiment: one OmniSafe algorithm, the same settings, on Safety-Gymnasium and on our worlds."""

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run; every field is an option of `run.py`.

    Attributes:
        python: interpreter that has `envs_mjx`.
        algorithm: OmniSafe's name of it.
        env: environment id, the same in both.
        num_envs: environments side by side. Safety-Gymnasium runs each in a process of its own.
        epochs: policy updates.
        steps_per_epoch: environment steps per update, over all environments; at least one episode of each.
        threads: of torch.
        seed: of OmniSafe.
        worlds: "original", "ours", or both.
        out: where OmniSafe's records, `result.json` and `table.md` go.
    """

    python: str = "python3.11"
    algorithm: str = "PPOLag"
    env: str = "SafetyPointGoal1-v0"
    num_envs: int = 10
    epochs: int = 2
    steps_per_epoch: int = 10_000
    threads: int = 1
    seed: int = 0
    worlds: tuple = ("original", "ours")
    out: Path = Path("runs/omnisafe_on_mjx")
