"""Sequence-to-sequence reward models: a language model that reads a response and writes a better one.

Zhou et al. 2024, "Sequence to sequence reward modeling: improving RLHF by language feedback",
https://arxiv.org/abs/2409.00162 (AAAI 2025). From each preference (x, y_w, y_l) the model pi learns two mappings by
maximum likelihood:

    correction  (x, y_l) -> y_w        identity  (x, y_w) -> y_w

and a response y of a policy is judged token by token against what the model writes on reading (x, y). Up to its first
difference from y the greedy output is the argmax that y itself teaches, so **one pass over [x, y, separator, y]** gives
both parts of the paper's feedback. The paper's text leaves values and normalisation of the scores open; the variants
here are named in `VARIANTS`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxalign.core.errors import UserError
from jaxalign.lm.config import ModelConfig
from jaxalign.lm.generation import generate
from jaxalign.lm.packing import Example
from jaxalign.lm.sampling import Sampling
from jaxalign.lm.transformer import network, unembed

BOTH = ("correction", "identity")


@runtime_checkable
class Responses(Protocol):
    """What is judged (`rlhf.rollout.Completions` is one): prompts in the first columns, responses from column P on."""

    @property
    def tokens(self) -> Int[Array, "B P+N"]:
        """Prompts, padded on either side, then responses, padded on the right."""
        ...

    @property
    def segment_ids(self) -> Int[Array, "B P+N"]:
        """0 for padding."""
        ...

    @property
    def prompt_length(self) -> int:
        """P."""
        ...

    @property
    def response_mask(self) -> Bool[Array, "B N"]:
        """Where a response has a token, the one that ends it included."""
        ...


class Feedback(NamedTuple):
    """What the model says of every token of a response.

    Attributes:
        match: it is the most probable one after (x, y, y_<t).
        logprob: log pi(y_t | x, y, y_<t), float32; 0 where there is no token.
        mask: there is a token.
    """

    match: Bool[Array, "B N"]
    logprob: Float[Array, "B N"]
    mask: Bool[Array, "B N"]

    @property
    def before(self) -> Bool[Array, "B N"]:
        """The token and all earlier ones match: t < tau, the first divergence."""
        return jnp.cumprod(self.match | ~self.mask, axis=1).astype(bool) & self.mask


def mappings(
    pairs: Sequence[tuple[Example, Example]], separator: Sequence[int], which: Sequence[str] = BOTH
) -> list[Example]:
    """The sequences [x, y_in, separator, y_w], of which the last part is learned: input of `lm.packing` and `lm.loss`.

    Args:
        pairs: chosen and rejected, each a prompt and a response that is to be learned up to its end.
        separator: tokens that ask for the better response; must not occur in responses.
        which: mappings; each pair gives one sequence for each.

    Raises:
        UserError: no or unknown mapping, no separator, or an example whose learned tokens are not its end.
    """
    unknown = [name for name in which if name not in BOTH]
    if unknown or not which:
        raise UserError(f"The mappings {list(which)} cannot be learned; choose from {', '.join(BOTH)}.")
    if not len(separator):
        raise UserError("The separator is empty; give at least one token between a response and its correction.")
    made = []
    for i, (chosen, rejected) in enumerate(pairs):
        target = _response(chosen, f"chosen response of pair {i}")
        _response(rejected, f"rejected response of pair {i}")
        for name in which:
            read = rejected if name == "correction" else chosen
            made.append(Example.of(np.concatenate([read.tokens, np.asarray(separator, np.int32)]), target))
    return made


def _response(example: Example, what: str) -> np.ndarray:
    count = int(np.sum(example.learn))
    if not count or not example.learn[-count:].all():
        raise UserError(f"The {what} is not the end of its sequence; build examples with Example.of(prompt, response).")
    return example.tokens[-count:]


def feedback(config: ModelConfig, params: Any, responses: Responses, separator: tuple[int, ...]) -> Feedback:
    """Judges every token of the responses in one teacher-forced pass.

    Args:
        config: of the reward model; static.
        params: of it.
        responses: in the same tokens as the reward model's; encode anew where the policy has another tokenizer.
        separator: as in training; static.

    Raises:
        UserError: prompt, response twice and separator exceed the reward model's context.
    """
    P, mask = responses.prompt_length, responses.response_mask
    response = responses.tokens[:, P:]
    read, there = _prompted(responses, separator)
    tokens = jnp.concatenate([read, response], axis=1)
    there = jnp.concatenate([there, mask], axis=1)
    positions = jnp.maximum(jnp.cumsum(there, axis=1, dtype=jnp.int32) - 1, 0)
    states = network(config).apply(params, tokens, positions, there.astype(jnp.int32), hidden=True)
    states = states[:, read.shape[1] - 1 : -1]  # those that predict the second copy of the response
    logits = unembed(config, params, states)
    chosen = jnp.take_along_axis(logits, response[..., None], axis=-1)[..., 0]
    logprob = jnp.where(mask, chosen - jax.nn.logsumexp(logits, axis=-1), 0.0)
    return Feedback((logits.argmax(-1) == response) & mask, logprob, mask)


def _prompted(responses: Responses, separator: tuple[int, ...]) -> tuple[Array, Array]:
    """The tokens of [x, y, separator] and where they are real."""
    rows = responses.tokens.shape[0]
    end = jnp.broadcast_to(jnp.array(separator, responses.tokens.dtype), (rows, len(separator)))
    there = jnp.concatenate([responses.segment_ids != 0, jnp.ones(end.shape, bool)], axis=1)
    return jnp.concatenate([responses.tokens, end], axis=1), there


def corrections(
    config: ModelConfig, params: Any, responses: Responses, separator: tuple[int, ...], settings: Sampling
) -> tuple[Int[Array, "B M"], Bool[Array, "B M"]]:
    """What the model writes on reading the responses, greedily: tokens, and where they are.

    Args:
        config: of the reward model; static.
        params: of it.
        responses: as in `feedback`.
        separator: as in training; static.
        settings: how long (M) and what ends it; the temperature is taken as 0.
    """
    read, there = _prompted(responses, separator)
    prompts, mask = _to_the_left(read, there)
    greedy = Sampling(settings.max_new_tokens, 0.0, eos_id=settings.eos_id, pad_id=settings.pad_id)
    made = generate(network(config), config, params, prompts, mask, jax.random.key(0), greedy)
    start = prompts.shape[1]
    return made.tokens[:, start:], made.mask[:, start:]


def _to_the_left(tokens: Array, mask: Array) -> tuple[Array, Array]:
    """Closes the gaps between a row's real tokens, in order."""
    order = jnp.argsort(~mask, axis=1, stable=True)
    return jnp.take_along_axis(tokens, order, axis=1), jnp.take_along_axis(mask, order, axis=1)


def decoded_feedback(
    responses: Responses, correction: Int[Array, "B M"], there: Bool[Array, "B M"]
) -> tuple[Bool[Array, "B N"], Bool[Array, "B N"]]:
    """What a decoded correction says: which tokens stand before the first divergence, and which the correction keeps.

    Kept are those of a longest common subsequence of response and correction. An insertion thus costs the inserted
    tokens alone, while the pass of `feedback` may blame those behind it too.

    Returns:
        Before the divergence; kept.
    """
    mask = responses.response_mask
    response = responses.tokens[:, responses.prompt_length :]
    width = min(response.shape[1], correction.shape[1])
    same = (
        jnp.zeros_like(mask)
        .at[:, :width]
        .set((response[:, :width] == correction[:, :width]) & there[:, :width] & mask[:, :width])
    )
    before = jnp.cumprod(same, axis=1).astype(bool)
    equal = (response[:, :, None] == correction[:, None, :]) & mask[:, :, None] & there[:, None, :]
    return before, jax.vmap(_common)(equal)


def _common(equal: Bool[Array, "N M"]) -> Bool[Array, " N"]:
    """Which rows belong to the longest common subsequence that takes every row as late as it can."""
    lengths = jnp.zeros(equal.shape[1] + 1, jnp.int32)

    def add(above, row):  # lengths for one more row, by number of columns
        new = jax.lax.cummax(above.at[1:].max(above[:-1] + row))
        return new, new

    table = jax.lax.scan(add, lengths, equal.astype(jnp.int32))[1]
    table = jnp.concatenate([lengths[None], table])

    def back(column, rows):
        above, here = rows
        kept = here[column] > above[column]
        first = jnp.argmax(here == here[column])  # fewest columns with this length: the last of them is the partner
        return jnp.where(kept, first - 1, column), kept

    return jax.lax.scan(back, jnp.int32(equal.shape[1]), (table[:-1], table[1:]), reverse=True)[1]


def signed(feedback: Feedback) -> Array:
    """+1 before the first divergence; from there on -1 for a token that does not match and 0 for one that does."""
    return jnp.where(feedback.before, 1.0, jnp.where(feedback.match, 0.0, -1.0))


def matches(feedback: Feedback) -> Array:
    """+1 for a token that matches, wherever it stands, and -1 for another."""
    return jnp.where(feedback.match, 1.0, -1.0)


def before(feedback: Feedback) -> Array:
    """The first part of `signed` alone: +1 before the first divergence, 0 from there on."""
    return feedback.before.astype(jnp.float32)


def after(feedback: Feedback) -> Array:
    """The second part of `signed` alone: -1 for what does not match, 0 otherwise."""
    return jnp.where(feedback.match, 0.0, -1.0)


def log_probability(feedback: Feedback) -> Array:
    """Log pi(y_t | x, y, y_<t)."""
    return feedback.logprob


VARIANTS: Mapping[str, Callable[[Feedback], Array]] = {
    "signed": signed,
    "matches": matches,
    "before": before,
    "after": after,
    "log_probability": log_probability,
}
"""Feedback to reward per token; `signed` is the paper's picture."""


def rewards(feedback: Feedback, variant: str = "signed", *, mean: bool = False) -> Float[Array, "B N"]:
    """Rewards per token, float32, 0 where there is no token.

    Args:
        feedback: of the reward model.
        variant: one of `VARIANTS`.
        mean: divide by the number of tokens, so that a response's total is their mean and length alone earns nothing.

    Raises:
        UserError: there is no such variant.
    """
    if variant not in VARIANTS:
        raise UserError(f"There is no token reward {variant!r}; choose one of {', '.join(VARIANTS)}.")
    values = jnp.where(feedback.mask, VARIANTS[variant](feedback), 0.0).astype(jnp.float32)
    return values / jnp.maximum(feedback.mask.sum(1, keepdims=True), 1) if mean else values


def as_reward(
    config: ModelConfig,
    params: Any,
    separator: tuple[int, ...],
    variant: str = "signed",
    *,
    mean: bool = False,
    scale: float = 1.0,
) -> Callable[[Responses], Float[Array, "B N"]]:
    """The reward of every token of a policy's responses, as `rlhf` takes it (`rlhf.rollout.RewardFn`).

    Args:
        config: of the reward model.
        params: of it.
        separator: as in training.
        variant: one of `VARIANTS`.
        mean: see `rewards`.
        scale: factor.

    Raises:
        UserError: there is no such variant.
    """
    if variant not in VARIANTS:
        raise UserError(f"There is no token reward {variant!r}; choose one of {', '.join(VARIANTS)}.")

    def reward(responses: Responses) -> Array:
        return scale * rewards(feedback(config, params, responses, separator), variant, mean=mean)

    return reward


def diagnose(feedback: Feedback) -> dict[str, Float[Array, ""]]:
    """How a sequence-to-sequence reward model can fail, as means over responses; each in [0, 1] but the last.

    - ``copy_rate``: every token matches. On responses known to be bad it should be near 0: a model that copies what it
      reads rewards everything (identity copying). On good ones near 1.
    - ``match_rate``: tokens that match.
    - ``first_divergence``: share of a response before the first divergence.
    - ``blamed_after``: tokens behind the first divergence that do not match; near 1 after a single insertion or a
      correct re-ordering (shift, surface match).
    - ``end_refused``: the last token does not match although all others do: the model would go on (omission).
    - ``length_slope``: change of the total `signed` reward per token of length, least squares: a length bias of +1 per
      token is what a model that copies has.
    """
    mask, match = feedback.mask, feedback.match & feedback.mask
    length = jnp.maximum(mask.sum(1), 1)
    blamed = mask & ~feedback.before
    first = blamed & (jnp.cumsum(blamed, axis=1) == 1)
    behind = blamed & ~first
    last = mask & (jnp.cumsum(mask, axis=1) == length[:, None])
    total = rewards(feedback).sum(1)
    spread = length - length.mean()
    return {
        "copy_rate": jnp.mean(~blamed.any(1)),
        "match_rate": match.sum() / jnp.maximum(mask.sum(), 1),
        "first_divergence": jnp.mean(feedback.before.sum(1) / length),
        "blamed_after": jnp.sum(behind & ~match) / jnp.maximum(behind.sum(), 1),
        "end_refused": jnp.mean((first & last).any(1)),
        "length_slope": jnp.sum(spread * total) / jnp.maximum(jnp.sum(jnp.square(spread)), 1e-6),
    }
