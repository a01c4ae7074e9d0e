"""Preference and demonstration data: published data sets and plain files in one form."""

from jaxalign.lm.data.demonstrations import beavertails, demonstration, imdb, tldr, truthfulqa
from jaxalign.lm.data.loading import Schema, load
from jaxalign.lm.data.preferences import hh, plain, rewardbench, saferlhf, summarize_from_feedback, ultrafeedback
from jaxalign.lm.data.records import (
    Broken,
    BrokenRow,
    Demonstration,
    DroppedRow,
    Loaded,
    Messages,
    Preference,
    Text,
)
from jaxalign.lm.data.schemas import SCHEMAS, schema
from jaxalign.lm.data.sources import rows

__all__ = [
    "SCHEMAS",
    "Broken",
    "BrokenRow",
    "Demonstration",
    "DroppedRow",
    "Loaded",
    "Messages",
    "Preference",
    "Schema",
    "Text",
    "beavertails",
    "demonstration",
    "hh",
    "imdb",
    "load",
    "plain",
    "rewardbench",
    "rows",
    "saferlhf",
    "schema",
    "summarize_from_feedback",
    "tldr",
    "truthfulqa",
    "ultrafeedback",
]
