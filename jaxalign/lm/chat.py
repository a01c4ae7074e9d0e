"""From text to token ids, the same way for training, generation and scoring.

A pair of prompt and response becomes two lists of ids whose concatenation is what a model is trained on, and what a
reward model reads; the first alone is what generation starts from. A response always ends with exactly one token that
ends the turn, `end_of_turn`, which is also where generation stops.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxalign.core.errors import UserError
from jaxalign.lm.config import ModelConfig
from jaxalign.lm.tokenizer import special_ids

Message = dict[str, str]
Prompt = str | Sequence[Message]

_PROBE = "a"


class Encoded(NamedTuple):
    """Token ids of a prompt and of the response to it, the latter with its end."""

    prompt: list[int]
    response: list[int]

    @property
    def tokens(self) -> list[int]:
        """Both, one after the other."""
        return self.prompt + self.response


def encode_prompt(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Ids from which a response is to be generated.

    A string becomes one turn of the user where the tokenizer has a chat template, and plain text where it has none.

    Raises:
        UserError: an empty prompt, or messages for a tokenizer without a template.
    """
    if not prompt:
        raise UserError("A prompt is empty; give at least one message or one character.")
    if tokenizer.chat_template is None:
        return tokenizer(_plain(prompt))["input_ids"]
    return _ids(tokenizer, _rendered(tokenizer, _messages(prompt), add_generation_prompt=True))


def encode_chat(tokenizer: Any, prompt: Prompt, response: str) -> Encoded:
    """Ids of a prompt and a response to it, the response closed as the template closes a turn.

    What the template writes behind the end of the turn (a line break, as a rule) is left out: no model writes it.

    Raises:
        UserError: as `encode_prompt`, an empty response, or a template that renders a prompt otherwise once it is
            answered.
    """
    if not response:
        raise UserError("A response is empty; drop the pair or give it at least one character.")
    start = encode_prompt(tokenizer, prompt)
    if tokenizer.chat_template is None:
        end = end_of_turn(tokenizer)
        whole = tokenizer(_plain(prompt) + response)["input_ids"]
        return Encoded(start, [*_without_end(_behind(tokenizer, start, whole, response), end), end])
    text, answer = _turn(tokenizer, _messages(prompt), response)
    return Encoded(start, _closed(tokenizer, _behind(tokenizer, start, _ids(tokenizer, text + answer), answer)))


def _behind(tokenizer: Any, start: list[int], whole: list[int], text: str) -> list[int]:
    """Ids of a text that follows a prompt: behind its ids, or on its own where a token would span both.

    SentencePiece puts a blank in front of what it reads on its own.
    """
    return whole[len(start) :] if whole[: len(start)] == start else _ids(tokenizer, text)


def decode_response(tokenizer: Any, ids: Sequence[int] | np.ndarray) -> str:
    """Text of a response, without the token that ends it and what follows."""
    ids = [int(i) for i in ids]
    end = end_of_turn(tokenizer)
    return tokenizer.decode(ids[: ids.index(end)] if end in ids else ids, skip_special_tokens=True)


def end_of_turn(tokenizer: Any) -> int:
    """The token that closes a response: that of the chat template, or the tokenizer's EOS.

    Raises:
        UserError: the tokenizer has neither.
    """
    if tokenizer.chat_template is not None:
        _, answer = _turn(tokenizer, [{"role": "user", "content": _PROBE}], _PROBE)
        return _closed(tokenizer, _ids(tokenizer, answer))[-1]
    return _eos(tokenizer)


def pad_left(
    rows: Sequence[Sequence[int]], pad_id: int | None, width: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ids as one array [B, P] int32 with padding on the left, and the mask of where the ids are.

    Args:
        rows: of any lengths.
        pad_id: filler, which nothing reads; None, of a tokenizer without a padding token: 0.
        width: P; None: the longest row. A fixed width saves compilations.

    Raises:
        UserError: no row, an empty one, or one that is longer than `width`.
    """
    lengths = [len(row) for row in rows]
    if not lengths or min(lengths) == 0:
        raise UserError("There is no prompt, or one without tokens; every row needs at least one.")
    width = max(lengths) if width is None else width
    if max(lengths) > width:
        raise UserError(f"Prompt {int(np.argmax(lengths))} has {max(lengths)} tokens, but {width} fit; shorten it.")
    mask = np.arange(width) >= width - np.array(lengths)[:, None]
    tokens = np.full((len(rows), width), pad_id or 0, np.int32)
    tokens[mask] = np.concatenate([np.asarray(row, np.int32) for row in rows])
    return tokens, mask


def check_length(rows: Sequence[Sequence[int]], config: ModelConfig, max_new_tokens: int = 0) -> None:
    """Raises UserError if a row and what is to be generated exceed the model's context, naming the row."""
    room = config.max_position - max_new_tokens
    for i, row in enumerate(rows):
        if len(row) > room:
            raise UserError(
                f"Row {i} has {len(row)} tokens, but the context of {config.max_position} leaves {room} beside "
                f"{max_new_tokens} new ones; shorten it or ask for fewer new tokens."
            )


def _plain(prompt: Prompt) -> str:
    if not isinstance(prompt, str):
        raise UserError("The prompt has messages, but this tokenizer has no chat template; set one or give plain text.")
    return prompt


def _messages(prompt: Prompt) -> list[Message]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


def _rendered(tokenizer: Any, messages: list[Message], *, add_generation_prompt: bool) -> str:
    from jinja2 import TemplateError

    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
    except TemplateError as error:  # how templates refuse a system message, or two turns of one side
        roles = ", ".join(str(message.get("role")) for message in messages)
        raise UserError(
            f"The chat template refuses messages of {roles}: {error}; change them or the template."
        ) from None


def _turn(tokenizer: Any, messages: list[Message], response: str) -> tuple[str, str]:
    """What the template writes for a prompt, and for a response from the end of the prompt on."""
    start = _rendered(tokenizer, messages, add_generation_prompt=True)
    answered = [*messages, {"role": "assistant", "content": response}]
    whole = _rendered(tokenizer, answered, add_generation_prompt=False)
    if not whole.startswith(start):
        raise UserError(
            f"The chat template renders the prompt otherwise once it is answered (prompt ends {start[-40:]!r}); use a "
            f"template in which an answer only adds text."
        )
    return start, whole[len(start) :]


def _closed(tokenizer: Any, ids: list[int]) -> list[int]:
    """Ids up to the last special token if only blank text follows it; else with EOS appended."""
    special = special_ids(tokenizer)
    last = max((i for i, token in enumerate(ids) if token in special), default=-1)
    if last < 0 or tokenizer.decode(ids[last + 1 :]).strip():
        return [*ids, _eos(tokenizer)]
    return [*_without_end(ids[:last], ids[last]), ids[last]]


def _without_end(ids: list[int], end: int) -> list[int]:
    """Ids without the ends that a text already wrote."""
    while ids and ids[-1] == end:
        ids = ids[:-1]
    return ids


def _eos(tokenizer: Any) -> int:
    if tokenizer.eos_token_id is None:
        raise UserError("The tokenizer has neither an EOS token nor a chat template that ends a turn; set eos_token.")
    return tokenizer.eos_token_id


def _ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]
