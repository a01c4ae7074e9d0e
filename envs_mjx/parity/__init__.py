"""Replays recorded Safety-Gymnasium transitions: ``python -m envs_mjx.parity FILE.npz...``."""

from envs_mjx.parity.recording import Check, CorruptRecordingError, Spread
from envs_mjx.parity.report import main, replay

__all__ = ["Check", "CorruptRecordingError", "Spread", "main", "replay"]
