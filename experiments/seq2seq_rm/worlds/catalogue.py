"""What each world is there to show."""

from collections.abc import Mapping

from jaxalign.rewards.facts_world import Facts
from worlds.summaries import Summaries

World = Facts | Summaries

WORLDS: Mapping[str, World] = {
    # the three tasks
    "refusal": Facts(harmful=0.8),
    "length": Facts(harmful=0.0, omit=0.5, extra=0.1),
    "summary": Summaries(),
    # what decides: coverage of refusals, and whether knowing the response helps
    "covered": Facts(harmful=0.5, benign_refusals=0.1),
    "half": Facts(harmful=0.5),
    "mostly": Facts(harmful=0.95),
    "synonyms": Facts(synonyms=3, shared_style=True),
    "free_order": Facts(free_order=True, shared_style=True),
}
"""The claim is about the first three; the others vary one condition each."""
