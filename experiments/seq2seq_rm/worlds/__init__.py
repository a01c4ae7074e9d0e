"""The worlds of the experiment, by name."""

from worlds.catalogue import WORLDS, World
from worlds.summaries import Summaries

__all__ = ["WORLDS", "Summaries", "World"]
