"""Scalar reward models: a transformer, and one number read from its state at the reward position."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxalign.core.errors import UserError
from jaxalign.core.prng import stream
from jaxalign.core.types import Network, PRNGKey
from jaxalign.lm.lora import LoraConfig, attach
from jaxalign.lm.packing import Batch, Example, first_fit_decreasing, layout, pad
from jaxalign.rewards.losses import PreferenceLoss, bradley_terry
from jaxalign.rewards.position import RewardPosition, at_reward_position, reward_position


class Rewards(NamedTuple):
    """Rewards of the sequences of every row, and where they stand; float32, 0 where there is no sequence."""

    value: Float[Array, "B S"]
    position: RewardPosition


def value_network(network: Network, width: int) -> Network:
    """A transformer with a linear head in place of its vocabulary: one number per token.

    ``apply(params, tokens, positions=None, segment_ids=None) -> [B, T]`` in float32. Serves as critic too.

    Parameters: ``{"trunk": those of `network`, "head": [D]}``; the head starts normal with variance 1 / (D + 1)
    (Stiennon et al. 2020, https://arxiv.org/abs/2009.01325). It has no bias: preferences could not determine it.

    Args:
        network: of `lm.transformer`.
        width: D, of its hidden states.
    """

    def init(key: PRNGKey):
        return with_head(network.init(stream(key, "trunk")), width, key)

    def apply(params, tokens, positions=None, segment_ids=None):
        states = network.apply(params["trunk"], tokens, positions, segment_ids, hidden=True)
        head = params["head"].astype(jnp.float32)
        return jnp.einsum("btd,d->bt", states.astype(jnp.float32), head, precision="highest")

    return Network(init, apply)


def with_head(trunk: Any, width: int, key: PRNGKey) -> dict[str, Any]:
    """Parameters of a value network on a trained language model's parameters."""
    head = jax.random.normal(stream(key, "head"), (width,), jnp.float32) * (width + 1) ** -0.5
    return {"trunk": trunk, "head": head}


def score(values: Network, params: Any, batch: Batch, sequences: int = 1) -> Rewards:
    """Rewards of the sequences of a batch, padded on either side or packed.

    Args:
        values: of `value_network`.
        params: of it.
        batch: rows; `learn` is not looked at.
        sequences: S, the largest number of sequences in a row.
    """
    tokens, segments, positions = map(jnp.asarray, (batch.tokens, batch.segment_ids, batch.positions))
    per_token = values.apply(params, tokens, positions, segments)
    position = reward_position(segments, sequences)
    return Rewards(at_reward_position(per_token, position), position)


def paired(rewards: Float[Array, "B S"]) -> tuple[Float[Array, "B P"], Float[Array, "B P"]]:
    """Chosen and rejected of the rewards of a `PairBatch`'s rows."""
    return rewards[:, 0::2], rewards[:, 1::2]


_score = jax.jit(score, static_argnums=0)


def score_examples(
    values: Network, params: Any, examples: Sequence[Example], length: int, size: int = 32
) -> np.ndarray:
    """Rewards [N] of any number of sequences, float32, in batches of one shape.

    Args:
        values: of `value_network`.
        params: of it.
        examples: prompts and responses, ended as in training.
        length: tokens of the padded rows.
        size: rows in a batch.

    Raises:
        UserError: there is no example, or one is longer than a row.
    """
    rows = pad(examples, length)
    places = np.arange(-(-len(examples) // size) * size) % len(examples)  # the last batch is filled up from the front
    batches = (Batch(*(x[at] for x in rows)) for at in places.reshape(-1, size))
    return np.concatenate([_score(values, params, batch).value[:, 0] for batch in batches])[: len(examples)]


class PairBatch(NamedTuple):
    """Rows that hold pairs: sequence 2p + 1 of a row is the chosen, 2p + 2 the rejected one of its pair p.

    Attributes:
        rows: tokens.
        margin: of each pair, 0 where there is none.
    """

    rows: Batch
    margin: Float[Array | np.ndarray, "B P"]


def pack_pairs(
    pairs: Sequence[tuple[Example, Example]], length: int, margins: Sequence[float | None] | None = None
) -> PairBatch:
    """Packs pairs, the chosen first, into as few rows of `length` tokens as first-fit decreasing finds.

    Args:
        pairs: prompt and response of either side.
        length: of a row; must hold both sides of any pair.
        margins: of the pairs; None is 0.

    Raises:
        UserError: there is no pair, or one is longer than a row.
    """
    groups = first_fit_decreasing([len(a.tokens) + len(b.tokens) for a, b in pairs], length)
    flat = [example for pair in pairs for example in pair]
    rows = layout(flat, [[j for i in group for j in (2 * i, 2 * i + 1)] for group in groups], length)
    margin = np.zeros((len(groups), max(map(len, groups))), np.float32)
    for row, group in enumerate(groups):
        for p, i in enumerate(group):
            margin[row, p] = (margins[i] or 0.0) if margins is not None else 0.0
    return PairBatch(rows, margin)


def preference_loss(
    values: Network, preference: PreferenceLoss = bradley_terry, *, centering: float = 0.0, smoothing: float = 0.0
) -> Callable[[Any, Any, PairBatch], tuple[Array, Array, dict[str, Array]]]:
    """The loss of a reward model on pairs, in the form that `lm.training` takes (sums, and the number of pairs).

        sum over pairs of (1 - e) f(r_w - r_l, m) + e f(r_l - r_w, -m) + c (r_w + r_l)^2

    With f = -log sigmoid(difference - margin) it is the maximum likelihood of Bradley and Terry. The last term keeps
    rewards around 0, which pairs leave open (Eisenstein et al. 2023, https://arxiv.org/abs/2312.09244).

    Args:
        values: of `value_network`.
        preference: f, one of `losses.FAMILY`.
        centering: c.
        smoothing: e, the share of labels believed wrong.

    Raises:
        UserError: `smoothing` is not in [0, 0.5), or `centering` negative.
    """
    if not 0 <= smoothing < 0.5 or centering < 0:
        raise UserError(
            f"smoothing is {smoothing} and centering {centering}; choose smoothing at least 0 and below 0.5, and "
            f"centering at least 0."
        )

    def loss(params, frozen, batch: PairBatch):
        del frozen
        rewards, position = score(values, params, batch.rows, 2 * batch.margin.shape[1])
        chosen, rejected = paired(rewards)
        there = position.present[:, 0::2].astype(jnp.float32)
        difference, margin = chosen - rejected, jnp.asarray(batch.margin)
        each = (1 - smoothing) * preference(difference, margin) + smoothing * preference(-difference, -margin)
        each = each + centering * jnp.square(chosen + rejected)
        sums = {
            "accuracy": jnp.sum(there * ((difference > 0) + 0.5 * (difference == 0))),
            "difference": jnp.sum(there * difference),
            "reward": jnp.sum(there * (chosen + rejected)) / 2,
        }
        return jnp.sum(there * each), there.sum(), sums

    return loss


def adapted(config: LoraConfig, loss: Callable[..., Any]) -> Callable[..., Any]:
    """A loss of ``{"adapters": ..., "head": [D]}`` with the trunk frozen, from a loss of a value network."""

    def of_adapters(trained, trunk, batch):
        return loss({"trunk": attach(config, trunk, trained["adapters"]), "head": trained["head"]}, (), batch)

    return of_adapters
