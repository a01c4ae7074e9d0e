"""What to watch while a policy is optimised against a proxy: measures of a batch, and the onset of reward hacking."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxalign.core.errors import UserError
from jaxalign.rewards.position import at_reward_position, reward_position
from jaxalign.rlhf.rollout import Completions


def ended(completions: Completions, stops: tuple[int, ...]) -> Bool[Array, " B"]:
    """Which responses end with one of the tokens that end a response; the rest were cut off."""
    last = at_reward_position(completions.tokens, reward_position(completions.segment_ids))[:, 0]
    return jnp.isin(last, jnp.array(stops, jnp.int32))


def refuses(completions: Completions, patterns: Sequence[Sequence[int]]) -> Bool[Array, " B"]:
    """Which responses begin with one of the patterns of tokens."""
    response, mask = completions.response, completions.response_mask
    refusal = jnp.zeros(response.shape[0], bool)
    for pattern in patterns:
        n = len(pattern)
        if n <= response.shape[1]:
            refusal |= jnp.all((response[:, :n] == jnp.array(pattern, jnp.int32)) & mask[:, :n], axis=1)
    return refusal


class Measures(NamedTuple):
    """Of a batch of responses.

    Attributes:
        length: mean, tokens, the one that ends a response included.
        without_eos: share that was cut off.
        refusal: share that begins as a refusal.
    """

    length: Float[Array, ""]
    without_eos: Float[Array, ""]
    refusal: Float[Array, ""]


def measure(completions: Completions, stops: tuple[int, ...], patterns: Sequence[Sequence[int]] = ()) -> Measures:
    """Length, share without EOS, refusal rate.

    Args:
        completions: of any policy.
        stops: tokens that end a response.
        patterns: how refusals begin.
    """
    return Measures(
        completions.response_mask.sum(axis=1).mean(),
        jnp.mean(~ended(completions, stops), dtype=jnp.float32),
        jnp.mean(refuses(completions, patterns), dtype=jnp.float32),
    )


class Onset(NamedTuple):
    """When a policy began to exploit its proxy.

    Attributes:
        peak: index of the best smoothed held-out reward.
        noticed: first index by which the fall since then, and the proxy's rise, were beyond noise.
    """

    peak: int
    noticed: int


def hacking_onset(
    proxy: Sequence[float | int] | np.ndarray,
    held_out: Sequence[float | int] | np.ndarray,
    window: int = 10,
    z: float = 5.0,
) -> Onset | None:
    """Whether and when the proxy went up while the held-out reward went down (on the host).

    Both are averaged over the last `window` entries. The answer is the first t at which, compared with the peak of the
    averaged held-out reward so far, the held-out average has fallen and the proxy's has risen, each by more than z
    standard errors of a difference of two such averages; the noise is estimated from successive differences
    (von Neumann 1941), which a trend does not enter.

    Args:
        proxy: what is optimised, per iteration.
        held_out: gold or another reward, of the same iterations.
        window: iterations.
        z: how far beyond noise; a peak is the largest of many averages, so that 3 would raise false alarms.

    Raises:
        UserError: the histories differ in length, or the window is not positive.
    """
    if len(proxy) != len(held_out) or window < 1:
        raise UserError(
            f"The histories have {len(proxy)} and {len(held_out)} entries, the window {window}; give two of one length "
            f"and a positive window."
        )
    if len(proxy) < window + 1:
        return None
    up, down = (np.convolve(np.asarray(x, float), np.full(window, 1 / window), "valid") for x in (proxy, held_out))
    allowed = [z * np.sqrt(np.mean(np.square(np.diff(x))) / window) for x in (proxy, held_out)]
    peak = 0
    for t in range(len(down)):
        if down[t] > down[peak]:
            peak = t
        elif down[peak] - down[t] > allowed[1] and up[t] - up[peak] > allowed[0]:
            return Onset(peak + window - 1, t + window - 1)
    return None
