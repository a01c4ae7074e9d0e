"""Gradient descent on batches: one pure step for supervised fine-tuning, reward models and whatever has a loss.

A loss is ``(params, frozen, batch) -> (total, weight, extra totals)``: sums over the batch, to be divided by the
weight. That makes gradients over a batch cut in pieces equal to those over the whole.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from jaxalign.core.errors import UserError
from jaxalign.dist import Checkpoints
from jaxalign.lm.stream import Stream

Loss = Callable[[Any, Any, Any], tuple[Array, Array, dict[str, Array]]]


@dataclass(frozen=True)
class TrainingConfig:
    """How to descend.

    Attributes:
        learning_rate: peak of the schedule.
        total_steps: length of the schedule.
        warmup_steps: linear rise from 0; must be fewer than `total_steps`.
        schedule: after the rise: "cosine" or "linear" down to `final_fraction` of the peak, or "constant".
        final_fraction: see `schedule`.
        weight_decay: decoupled, on matrices only (leaves of two or more axes whose name says neither norm nor bias).
        beta1: of AdamW.
        beta2: of AdamW.
        epsilon: of AdamW.
        max_grad_norm: the gradient is scaled down to this global norm.
        param_dtype: in which parameters are kept; the network casts them to its own type where it uses them.
        accumulation: pieces that a batch is cut in, to fit the memory; the result is that of the whole batch.
    """

    learning_rate: float = 1e-4
    total_steps: int = 1000
    warmup_steps: int = 0
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    final_fraction: float = 0.0
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    accumulation: int = 1

    def __post_init__(self):
        for name in ("learning_rate", "total_steps", "max_grad_norm", "accumulation"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} is {getattr(self, name)}; choose a positive number.")
        if not 0 <= self.warmup_steps < self.total_steps:
            raise UserError(
                f"warmup_steps is {self.warmup_steps} of {self.total_steps} steps; choose fewer, at least 0."
            )
        if self.param_dtype not in ("float32", "bfloat16"):
            raise UserError(f"param_dtype is {self.param_dtype!r}; choose float32 or bfloat16.")
        if self.schedule not in ("cosine", "linear", "constant"):
            raise UserError(f"schedule is {self.schedule!r}; choose cosine, linear or constant.")


class TrainingState(NamedTuple):
    """What the next step needs.

    Attributes:
        params: what is trained.
        optimiser: its moments.
        step: updates made.
        position: rows of the stream consumed; where the data go on.
    """

    params: Any
    optimiser: Any
    step: Int[Array, ""]
    position: Int[Array, ""]


class Info(NamedTuple):
    """What a person wants to see of a step.

    Attributes:
        loss: mean over the batch.
        grad_norm: before clipping.
        learning_rate: that was used.
        weight: what the mean is over (target tokens, pairs).
        finite: whether loss and gradient are; if not, the state was left as it was.
        extra: further means.
    """

    loss: Float[Array, ""]
    grad_norm: Float[Array, ""]
    learning_rate: Float[Array, ""]
    weight: Float[Array, ""]
    finite: Bool[Array, ""]
    extra: dict[str, Array]


class Trainer(NamedTuple):
    """``init(params) -> state`` and ``step(state, batch, frozen) -> (state, Info)``; the state is closed under step.

    `frozen` is what the loss reads and nobody trains: the base of adapters, a reference model; `()` for none.
    """

    init: Callable[[Any], TrainingState]
    step: Callable[..., tuple[TrainingState, Info]]


def learning_rate(config: TrainingConfig) -> optax.Schedule:
    """Step to learning rate."""
    rest, final = config.total_steps - config.warmup_steps, config.final_fraction
    after = {
        "cosine": optax.cosine_decay_schedule(config.learning_rate, rest, final),
        "linear": optax.linear_schedule(config.learning_rate, final * config.learning_rate, rest),
        "constant": optax.constant_schedule(config.learning_rate),
    }[config.schedule]
    if not config.warmup_steps:
        return after
    rise = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    return optax.join_schedules([rise, after], [config.warmup_steps])


def decayed(params: Any) -> Any:
    """Which leaves weight decay acts on: all but norms and biases, by name."""

    def decays(path, leaf) -> bool:
        name = jax.tree_util.keystr(path).lower()
        return leaf.ndim >= 2 and not any(word in name for word in ("norm", "bias", "scale"))

    return jax.tree_util.tree_map_with_path(decays, params)


def make(loss: Loss, config: TrainingConfig) -> Trainer:
    """A trainer of `loss` with AdamW.

    Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101. A step whose loss or gradient is not finite changes
    nothing, says so in `Info.finite`, and the state stays fit to be saved.
    """
    rate = learning_rate(config)
    decay = {"weight_decay": config.weight_decay, "mask": decayed}
    optimiser = optax.adamw(rate, config.beta1, config.beta2, config.epsilon, **decay)

    def init(params) -> TrainingState:
        params = jax.tree.map(lambda x: jnp.array(x, config.param_dtype), params)  # a copy: steps may reuse its memory
        return TrainingState(params, optimiser.init(params), jnp.int32(0), jnp.int32(0))

    def step(state: TrainingState, batch, frozen=()) -> tuple[TrainingState, Info]:
        (total, weight, extra), gradient = accumulate(loss, config.accumulation)(state.params, frozen, batch)
        weight = jnp.maximum(weight, 1.0)  # a batch without any target: no gradient
        norm = jnp.sqrt(sum(map(_squares, jax.tree.leaves(gradient)), jnp.float32(0))) / weight
        scale = jnp.minimum(1.0, config.max_grad_norm / jnp.maximum(norm, 1e-30)) / weight
        gradient = jax.tree.map(lambda g: g * scale.astype(g.dtype), gradient)
        finite = jnp.isfinite(total) & jnp.isfinite(norm)
        updates, moments = optimiser.update(gradient, state.optimiser, state.params)
        rows = jax.tree.leaves(batch)[0].shape[0]
        new = TrainingState(optax.apply_updates(state.params, updates), moments, state.step + 1, state.position + rows)
        new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state)
        means = {name: x / weight for name, x in extra.items()}
        return new, Info(total / weight, norm, jnp.float32(rate(state.step)), weight, finite, means)

    return Trainer(init, step)


def _squares(x: Array) -> Float[Array, ""]:
    """Sum of squares, float32, as a product: a CPU takes long over reductions to one number."""
    rows = x.reshape(-1, x.shape[-1]) if x.ndim > 1 else x.reshape(1, -1)
    return jnp.einsum("ij,ij->i", rows, rows, preferred_element_type=jnp.float32).sum()


def accumulate(loss: Loss, pieces: int) -> Callable[[Any, Any, Any], tuple[tuple[Array, Array, dict], Any]]:
    """Sums and their gradient over a batch, `pieces` parts of it one after the other.

    Raises:
        UserError: the rows of the batch cannot be dealt out evenly.
    """

    def whole(params, frozen, batch):
        def total(params):
            total, weight, extra = loss(params, frozen, batch)
            return total, (total, weight, extra)

        gradient, sums = jax.grad(total, has_aux=True)(params)
        return sums, gradient

    def in_pieces(params, frozen, batch):
        rows = jax.tree.leaves(batch)[0].shape[0]
        if rows % pieces:
            raise UserError(f"A batch of {rows} rows cannot be accumulated in {pieces} pieces; choose a multiple.")

        def part(x):  # every device keeps its rows: piece i takes row i of every group of `pieces`
            return x.reshape(rows // pieces, pieces, *x.shape[1:]).swapaxes(0, 1)

        def add(sums, piece):
            return jax.tree.map(jnp.add, sums, whole(params, frozen, piece)), None

        parts = jax.tree.map(part, batch)
        shapes = jax.eval_shape(whole, params, frozen, jax.tree.map(lambda x: x[0], parts))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return jax.lax.scan(add, zeros, parts)[0]

    return whole if pieces == 1 else in_pieces


def fit(
    step: Callable[..., tuple[Any, Any]],
    state: Any,
    stream: Stream,
    steps: int,
    *,
    frozen: Any = (),
    checkpoints: Checkpoints | None = None,
    every: int = 100,
    observe: Callable[[int, Any], None] = lambda step, info: None,
) -> Any:
    """Runs a (jitted) step until `steps` updates have been made in all, from wherever the state stands.

    Args:
        step: of a `Trainer`, jitted.
        state: fresh, or restored from a checkpoint: then the run goes on as if it had never stopped. Of a `Trainer`, or
            any with its `step` and `position`.
        stream: the data.
        steps: number of the last step.
        frozen: passed on to `step`.
        checkpoints: where to save the state, None for nowhere.
        every: steps between checkpoints; the last step is saved too.
        observe: called with the number of each step and its info.

    Raises:
        UserError: a loss or gradient is not finite; the state before it is saved as the newest checkpoint.
    """
    position = int(state.position)
    for number in range(int(state.step) + 1, steps + 1):
        state, info = step(state, stream.at(position), frozen)
        position += stream.size
        if not bool(info.finite):
            raise UserError(_explain(number, info, _save(checkpoints, state)))
        observe(number, jax.device_get(info))
        if number % every == 0 or number == steps:
            _save(checkpoints, state)
    return state


def _save(checkpoints: Checkpoints | None, state: Any) -> str:
    if checkpoints is None:
        return "no checkpoints were asked for"
    if checkpoints.latest() != int(state.step):
        checkpoints.save(int(state.step), state)
    return f"the state after step {int(state.step)} is kept in {checkpoints.directory}"


def _explain(number: int, info: Info, kept: str) -> str:
    what = "loss" if not math.isfinite(float(info.loss)) else "gradient"
    return (
        f"The {what} at step {number} is not finite (loss {float(info.loss)}, gradient norm {float(info.grad_norm)}); "
        f"{kept}. Lower the learning rate, lengthen the warm-up, or look at the rows of that step."
    )
