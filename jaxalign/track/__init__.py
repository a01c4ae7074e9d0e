"""Tracking of training runs: metric files, TensorBoard, live progress, figures and tables."""

from jaxalign.track.figures import learning_curve, learning_curves_over_seeds
from jaxalign.track.progress import Progress
from jaxalign.track.table import comparison_table, evaluation_table, interval
from jaxalign.track.tracker import Composite, Jsonl, TensorBoard, Tracker, read_jsonl, replacing

__all__ = [
    "Composite",
    "Jsonl",
    "Progress",
    "TensorBoard",
    "Tracker",
    "comparison_table",
    "evaluation_table",
    "interval",
    "learning_curve",
    "learning_curves_over_seeds",
    "read_jsonl",
    "replacing",
]
