"""From records to token sequences, by the tokenizer's own template (`lm.chat`)."""

from collections.abc import Iterable
from typing import Any

from jaxalign.core.errors import UserError
from jaxalign.lm.chat import Prompt, encode_chat
from jaxalign.lm.data.records import Demonstration, Preference, Text
from jaxalign.lm.packing import Example


def encode_demonstrations(tokenizer: Any, demonstrations: Iterable[Demonstration]) -> list[Example]:
    """Sequences whose responses, with the token that ends them, are to be learned.

    Raises:
        UserError: as `lm.chat.encode_chat`, with the number of the record.
    """
    return [_encode(tokenizer, i, d.prompt, d.response) for i, d in enumerate(demonstrations)]


def encode_preferences(tokenizer: Any, preferences: Iterable[Preference]) -> list[tuple[Example, Example]]:
    """Chosen and rejected sequences, for `rewards.pack_pairs`; ended the same way as what a policy samples.

    Raises:
        UserError: as `lm.chat.encode_chat`, with the number of the record.
    """
    return [
        (_encode(tokenizer, i, p.prompt, p.chosen), _encode(tokenizer, i, p.prompt, p.rejected))
        for i, p in enumerate(preferences)
    ]


def last_turn(prompt: Text, response: Text) -> tuple[Prompt, str]:
    """A response of several messages as its last one; the messages before it join the prompt."""
    if isinstance(response, str):
        return prompt, response
    if isinstance(prompt, str):
        prompt = ({"role": "user", "content": prompt},)
    return [*prompt, *response[:-1]], response[-1]["content"]


def _encode(tokenizer: Any, number: int, prompt: Text, response: Text) -> Example:
    try:
        encoded = encode_chat(tokenizer, *last_turn(prompt, response))
    except UserError as error:
        raise UserError(f"Record {number}: {error}") from error
    return Example.of(encoded.prompt, encoded.response)
