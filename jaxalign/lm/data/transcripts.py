r"""Dialogues written as one text, turns begun by `"\n\nHuman:"` and `"\n\nAssistant:"`."""

import re

from jaxalign.lm.data.records import BrokenRow, Messages

TURN = {"user": "\n\nHuman:", "assistant": "\n\nAssistant:"}
_MARK = re.compile("(" + "|".join(map(re.escape, TURN.values())) + ")")


def as_messages(transcript: str) -> Messages:
    """The turns as messages, contents stripped.

    Raises:
        BrokenRow: text before the first turn.
    """
    before, *rest = _MARK.split(transcript)
    if before.strip():
        raise BrokenRow(f"its transcript begins with {before.strip()[:30]!r}, not with a turn")
    roles = {mark: role for role, mark in TURN.items()}
    return tuple(
        {"role": roles[m], "content": content.strip()} for m, content in zip(rest[::2], rest[1::2], strict=True)
    )
