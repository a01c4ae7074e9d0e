"""Supervised fine-tuning: next-token cross-entropy on the responses of packed examples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from jaxalign.core.types import Network
from jaxalign.dist import Checkpoints
from jaxalign.lm import training
from jaxalign.lm.loss import cross_entropy
from jaxalign.lm.packing import Example, pack
from jaxalign.lm.stream import Stream
from jaxalign.lm.training import TrainingConfig, TrainingState


@dataclass(frozen=True)
class SFTConfig:
    """What a run of fine-tuning is.

    Attributes:
        training: how to descend; its `total_steps` are the updates made.
        rows: packed rows in a batch.
        length: tokens of a row.
        seed: of the order of the rows.
    """

    training: TrainingConfig
    rows: int
    length: int
    seed: int = 0


def fine_tune(
    network: Network,
    params: Any,
    examples: Sequence[Example],
    config: SFTConfig,
    *,
    checkpoints: Checkpoints | None = None,
    observe: Callable[[int, training.Info], None] = lambda step, info: None,
) -> TrainingState:
    """Trains `params` on the examples; on one device (`lm.sharding.jit_step` with the same parts on several).

    With checkpoints a run that was interrupted goes on from the newest one.

    Args:
        network: of `lm.transformer`.
        params: where to start.
        examples: prompts and responses.
        config: of the run.
        checkpoints: where to save states.
        observe: called with the number of each step and its info.

    Raises:
        UserError: no example, one longer than a row, or a loss that is not finite.
    """
    stream = Stream(pack(examples, config.length), config.rows, config.seed)
    trainer = training.make(cross_entropy(network), config.training)
    state = trainer.init(params)
    if checkpoints is not None and checkpoints.latest() is not None:
        state = checkpoints.restore(state)
    step = jax.jit(trainer.step)
    return training.fit(step, state, stream, config.training.total_steps, checkpoints=checkpoints, observe=observe)
