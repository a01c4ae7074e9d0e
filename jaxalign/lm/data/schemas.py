"""The schemas by name, for configs and the command line."""

from collections.abc import Mapping
from typing import Any

from jaxalign.core.errors import UserError
from jaxalign.lm.data.demonstrations import beavertails, demonstration, imdb, tldr, truthfulqa
from jaxalign.lm.data.loading import Schema
from jaxalign.lm.data.preferences import hh, plain, rewardbench, saferlhf, summarize_from_feedback, ultrafeedback

SCHEMAS: Mapping[str, Schema[Any]] = {
    "preference": plain,
    "saferlhf-helpful": saferlhf("helpful"),
    "saferlhf-harmless": saferlhf("harmless"),
    "hh": hh("text"),
    "hh-messages": hh("messages"),
    "summarize-from-feedback": summarize_from_feedback,
    "ultrafeedback": ultrafeedback(),
    "ultrafeedback-binarized": plain,
    "rewardbench": rewardbench,
    "demonstration": demonstration,
    "imdb-positive": imdb(True),
    "imdb-negative": imdb(False),
    "beavertails-safe": beavertails(True),
    "beavertails-unsafe": beavertails(False),
    "truthfulqa-true": truthfulqa(True),
    "truthfulqa-false": truthfulqa(False),
    "tldr": tldr,
}


def schema(name: str) -> Schema[Any]:
    """The schema called `name`.

    Raises:
        UserError: there is none of that name.
    """
    if name not in SCHEMAS:
        raise UserError(f"There is no schema {name!r}; choose one of {', '.join(SCHEMAS)}.")
    return SCHEMAS[name]
