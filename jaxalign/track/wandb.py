"""Weights & Biases as a tracker."""

import importlib
import math
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, SupportsFloat

from jaxalign.core.errors import UserError

STEP = "env_steps"


class Wandb:
    """Sends each finite metric to Weights & Biases over env-steps (https://docs.wandb.ai).

    A resumed run goes on under its identifier, which is kept in the file ``wandb-id``. Rows between its checkpoint and
    its interruption are sent twice, with the same values, as resuming continues bit for bit. The environment variables
    of `wandb` hold as always: ``WANDB_MODE=offline`` writes to the directory alone.
    """

    def __init__(
        self,
        project: str,
        directory: str | Path,
        name: str | None = None,
        config: Mapping[str, Any] | None = None,
        resume_step: int | None = None,
    ):
        """Begin a run, or go on with the one of `directory`.

        Args:
            project: where the run belongs.
            directory: where `wandb` keeps its files; made if missing.
            name: of the run as shown.
            config: what the run was started with, JSON values.
            resume_step: None for a fresh run; a number of env-steps goes on with the one that was there.

        Raises:
            UserError: `wandb` is not installed.
        """
        try:
            wandb = importlib.import_module("wandb")  # heavy, and an extra; this module has the same name
        except ImportError:
            raise UserError('Weights & Biases is not installed; run: pip install "jaxalign[wandb]".') from None
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / "wandb-id"
        if resume_step is None or not path.exists():
            path.write_text(secrets.token_hex(8))
        self._run = wandb.init(
            project=project,
            dir=str(directory),
            name=name,
            config=dict(config or {}),
            id=path.read_text(),
            resume="allow",
        )
        self._run.define_metric("*", step_metric=STEP)

    def log(self, step: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Send the finite metrics at `step` env-steps."""
        finite = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
        self._run.log({STEP: int(step)} | finite)

    def close(self) -> None:
        """Send what is left and end the run."""
        self._run.finish()
