"""Best of n: write n responses, keep the one of the highest reward; and fine-tuning on what was kept.

No gradient, no instability: the yardstick that every policy optimised against the same reward is held to. Expectations
over all subsets of n responses come from one set of samples (`expected_best`).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import gammaln

from jaxalign.core.errors import UserError
from jaxalign.core.types import Network, PRNGKey
from jaxalign.lm.config import ModelConfig
from jaxalign.lm.packing import Example
from jaxalign.lm.sampling import Sampling
from jaxalign.rlhf.rollout import Completions, Prompts, RewardFn, sampler, score_tokens, to_examples


class Best(NamedTuple):
    """The best response to each prompt.

    Attributes:
        completions: the best ones, one row per prompt.
        reward: of all n responses to each prompt, sums over their tokens.
        all: all n responses to each prompt, in consecutive rows.
    """

    completions: Completions
    reward: Float[Array, "B n"]
    all: Completions


def total_reward(reward: RewardFn, completions: Completions) -> Float[Array, " B"]:
    """Sum of the rewards of a response's tokens; what stands on padding does not count."""
    return jnp.where(completions.response_mask, score_tokens(reward, completions), 0.0).sum(axis=1)


def best_of_n(
    network: Network, config: ModelConfig, sampling: Sampling, reward: RewardFn, n: int
) -> Callable[[Any, Array, Array, PRNGKey], Best]:
    """``(params, prompts [B, P], prompt_mask [B, P], key) -> Best``; pure, all n B responses in one batch.

    Args:
        network: of `lm.transformer`.
        config: of it.
        sampling: how responses are written.
        reward: of tokens; the sum decides, the first of equals wins.
        n: responses per prompt.

    Raises:
        UserError: n is not positive, or as `rollout.sampler`.
    """
    write = sampler(network, config, sampling, n)

    def choose(params: Any, prompts: Array, prompt_mask: Array, key: PRNGKey) -> Best:
        written = write(params, prompts, prompt_mask, key)
        rewards = total_reward(reward, written).reshape(-1, n)
        best = jnp.arange(rewards.shape[0]) * n + jnp.argmax(rewards, axis=1)
        return Best(jax.tree.map(lambda x: x[best], written), rewards, written)

    return choose


def rejection_examples(
    choose: Callable[[Any, Array, Array, PRNGKey], Best], params: Any, prompts: Prompts, size: int, key: PRNGKey
) -> tuple[list[Example], np.ndarray]:
    """The best response to every prompt as examples for `sft.fine_tune`, and their rewards (on the host).

    Rejection fine-tuning is this and then that, as often as one likes (Dong et al. 2023, RAFT,
    https://arxiv.org/abs/2304.06767).

    Args:
        choose: of `best_of_n`, jitted.
        params: of the policy.
        prompts: any number.
        size: prompts in a batch, all of one shape.
        key: of the draws.
    """
    number = len(prompts.tokens)
    places = np.arange(-(-number // size) * size) % number  # the last batch is filled up from the front
    examples, rewards = [], []
    for i, at in enumerate(places.reshape(-1, size)):
        best = choose(
            params, jnp.asarray(prompts.tokens[at]), jnp.asarray(prompts.mask[at]), jax.random.fold_in(key, i)
        )
        examples += to_examples(best.completions)
        rewards.append(np.asarray(best.reward.max(axis=1)))
    return examples[:number], np.concatenate(rewards)[:number]


def expected_best(proxy: np.ndarray, k: int, gold: np.ndarray | None = None) -> np.ndarray:
    """Mean, over all subsets of k of n responses, of the gold reward of the one with the highest proxy reward; [B].

        sum_i C(i - 1, k - 1) / C(n, k) gold_(i),   i = rank by proxy, from 1

    Unbiased for best-of-k at every k <= n from one set of n samples (Nakano et al. 2021,
    https://arxiv.org/abs/2112.09332, section on rejection sampling); equal proxies are ranked in the given order.

    Args:
        proxy: rewards that decide, [B, n].
        k: of best-of-k.
        gold: rewards that are averaged, [B, n]; None: the proxy's.

    Raises:
        UserError: k is not from 1 to n.
    """
    n = proxy.shape[1]
    if not 1 <= k <= n:
        raise UserError(f"k is {k} of {n} samples; choose from 1 to {n}.")
    order = np.argsort(proxy, axis=1, kind="stable")
    ranked = np.take_along_axis(np.asarray(proxy if gold is None else gold, float), order, axis=1)
    rank = np.arange(1, n + 1)
    log_choose = lambda a, b: gammaln(a + 1) - gammaln(b + 1) - gammaln(np.maximum(a - b, 0) + 1)
    weight = np.where(rank >= k, np.exp(log_choose(rank - 1, k - 1) - log_choose(n, k)), 0.0)
    return ranked @ weight


def kl_bound(n: int) -> float:
    """Upper bound log n - (n - 1) / n on KL(best of n || policy), nats; equality where no two responses are equal.

    Beirami et al. 2024, https://arxiv.org/abs/2401.01879.
    """
    return math.log(n) - (n - 1) / n
