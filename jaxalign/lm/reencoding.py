"""Responses in the tokens of another model: what a reward model with a tokenizer of its own has to read."""

from collections.abc import Sequence
from typing import Any

from jaxalign.core.errors import UserError
from jaxalign.lm.chat import Prompt, decode_response, encode_chat, encode_prompt, end_of_turn
from jaxalign.lm.packing import Example
from jaxalign.lm.tokenizer import same_tokenizer


def reencode(policy: Any, reward: Any, prompts: Sequence[Prompt], examples: Sequence[Example]) -> list[Example]:
    """What a policy wrote, as its reader would have encoded it; for rewards of whole responses, on the host.

    The text of a response goes through the reward model's own template, since templates differ as vocabularies do; the
    token that ends it is that of the reader, also where the policy was cut off before its own. A response of nothing
    but the end stays one.

    Args:
        policy: tokenizer that the examples are in.
        reward: tokenizer to encode in.
        prompts: as text or messages, before any template.
        examples: prompts and responses, the latter marked `learn`.

    Raises:
        UserError: not one prompt for each example, or as `lm.chat.encode_chat`.
    """
    if len(prompts) != len(examples):
        raise UserError(f"There are {len(prompts)} prompts and {len(examples)} responses; give one prompt for each.")
    return [_again(policy, reward, prompt, example) for prompt, example in zip(prompts, examples)]


def check_same_tokenizer(policy: Any, reward: Any) -> None:
    """Raises UserError unless a reward model reads the policy's own tokens, as rewards per token need it."""
    if same_tokenizer(policy, reward):
        return
    raise UserError(
        f"Policy and reward model have different tokenizers ({len(policy)} and {len(reward)} tokens), so a reward per "
        f"token of one has no place in the tokens of the other; train the reward model with the policy's tokenizer, or "
        f"score whole responses that lm.reencoding.reencode has put in its tokens."
    )


def _again(policy: Any, reward: Any, prompt: Prompt, example: Example) -> Example:
    text = decode_response(policy, example.tokens[example.learn])
    if not text:
        return Example.of(encode_prompt(reward, prompt), [end_of_turn(reward)])
    return Example.of(*encode_chat(reward, prompt, text))
