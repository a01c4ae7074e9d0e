"""Preferences without a reward model: the policy's own log-ratio to its reference is the reward.

    rho(y) = beta log(pi(y | x) / q(y | x)),   loss = f(rho(y_w) - rho(y_l), margin)

With f = -log sigmoid it is DPO (Rafailov et al. 2023, https://arxiv.org/abs/2305.18290), whose optimum under
Bradley-Terry preferences of a reward r is pi = q exp(r / beta) / Z. Other f of `rewards.losses.FAMILY` give the rest of
the family (Tang et al. 2024, https://arxiv.org/abs/2402.05749): "hinge" is SLiC, "ipo" is IPO with tau = beta (times
beta^2). Without reference and per token it is SimPO (Meng et al. 2024, https://arxiv.org/abs/2405.14734).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxalign.core.errors import UserError
from jaxalign.core.types import Network
from jaxalign.lm.loss import targets, token_log_probs
from jaxalign.lm.packing import Batch
from jaxalign.rewards.losses import PreferenceLoss, bradley_terry
from jaxalign.rewards.position import reward_position
from jaxalign.rewards.scalar import PairBatch, paired


def sequence_log_probs(
    network: Network, params: Any, batch: Batch, sequences: int, *, average: bool = False
) -> Float[Array, "B S"]:
    """Log-probability of the targets of the sequences 1 to S of every row, padded or packed; float32.

    Args:
        network: of `lm.transformer`.
        params: of it.
        batch: rows.
        sequences: S, static.
        average: per target in place of their sum.
    """
    tokens, segments, positions = map(jnp.asarray, (batch.tokens, batch.segment_ids, batch.positions))
    each = token_log_probs(network.apply(params, tokens, positions, segments), tokens)
    own = (segments[..., None] == jnp.arange(1, sequences + 1)) & targets(batch)[..., None]
    total = jnp.sum(jnp.where(own, each[..., None], 0.0), axis=1)
    return total / jnp.maximum(own.sum(axis=1), 1) if average else total


def dpo_loss(
    network: Network,
    beta: float = 0.1,
    preference: PreferenceLoss = bradley_terry,
    *,
    smoothing: float = 0.0,
    reference: bool = True,
    average: bool = False,
) -> Callable[[Any, Any, PairBatch], tuple[Array, Array, dict[str, Array]]]:
    """The loss in the form that `lm.training` takes (sums, and the number of pairs); `frozen` is the reference.

        sum over pairs of (1 - e) f(rho_w - rho_l, m) + e f(rho_l - rho_w, -m)

    Args:
        network: of `lm.transformer`, for policy and reference.
        beta: of the log-ratios.
        preference: f, one of `rewards.losses.FAMILY`.
        smoothing: e, the share of labels believed wrong (conservative DPO).
        reference: whether log-ratios are to the reference, or plain log-probabilities.
        average: log-probabilities per token in place of their sums.

    Returns:
        Loss with the extra means "accuracy" (pairs in the right order), "difference" (of the implied rewards),
        "chosen" and "rejected" (implied rewards).

    Raises:
        UserError: `beta` is not positive, or `smoothing` not in [0, 0.5).
    """
    if not beta > 0 or not 0 <= smoothing < 0.5:
        raise UserError(
            f"beta is {beta} and smoothing {smoothing}; choose beta above 0, smoothing at least 0 and below 0.5."
        )

    def implied(params: Any, frozen: Any, batch: PairBatch) -> tuple[Array, Array]:
        sequences = 2 * batch.margin.shape[1]
        log_ratio = sequence_log_probs(network, params, batch.rows, sequences, average=average)
        if reference:
            before = sequence_log_probs(network, frozen, batch.rows, sequences, average=average)
            log_ratio = log_ratio - jax.lax.stop_gradient(before)
        return paired(beta * log_ratio)

    def loss(params: Any, frozen: Any, batch: PairBatch) -> tuple[Array, Array, dict[str, Array]]:
        chosen, rejected = implied(params, frozen, batch)
        position = reward_position(jnp.asarray(batch.rows.segment_ids), 2 * batch.margin.shape[1])
        there = position.present[:, 0::2].astype(jnp.float32)
        difference, margin = chosen - rejected, jnp.asarray(batch.margin)
        each = (1 - smoothing) * preference(difference, margin) + smoothing * preference(-difference, -margin)
        sums = {
            "accuracy": jnp.sum(there * ((difference > 0) + 0.5 * (difference == 0))),
            "difference": jnp.sum(there * difference),
            "chosen": jnp.sum(there * chosen),
            "rejected": jnp.sum(there * rejected),
        }
        return jnp.sum(there * each), there.sum(), sums

    return loss
