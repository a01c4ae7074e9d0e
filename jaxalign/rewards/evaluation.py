"""How good a reward model is: accuracy, calibration, and RewardBench's tables of subsets and sections."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from jaxalign.core.errors import UserError

_CODE = tuple(f"hep-{language}" for language in ("cpp", "go", "java", "js", "python", "rust"))

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Chat": ("alpacaeval-easy", "alpacaeval-length", "alpacaeval-hard", "mt-bench-easy", "mt-bench-med"),
    "Chat Hard": (
        "mt-bench-hard",
        "llmbar-natural",
        *(f"llmbar-adver-{kind}" for kind in ("neighbor", "GPTInst", "GPTOut", "manual")),
    ),
    "Safety": (
        "refusals-dangerous",
        "refusals-offensive",
        "xstest-should-refuse",
        "xstest-should-respond",
        "donotanswer",
    ),
    "Reasoning": ("math-prm", *_CODE),
}
"""The sections of RewardBench, Lambert et al. 2024, https://arxiv.org/abs/2403.13787."""


def accuracy(chosen: ArrayLike, rejected: ArrayLike) -> float:
    """Share of pairs whose chosen response has the larger reward; a tie is half right.

    Raises:
        UserError: no pair, unequal numbers, or rewards that are not finite.
    """
    return float(_right(_difference(chosen, rejected)).mean())


def _right(difference: np.ndarray) -> np.ndarray:
    return (difference > 0) + 0.5 * (difference == 0)


def _difference(chosen: ArrayLike, rejected: ArrayLike) -> np.ndarray:
    chosen, rejected = np.asarray(chosen, np.float64), np.asarray(rejected, np.float64)
    if chosen.shape != rejected.shape or chosen.ndim != 1 or not chosen.size:
        raise UserError(
            f"Rewards of shapes {chosen.shape} and {rejected.shape} are no pairs; give two equally long lists."
        )
    difference = chosen - rejected
    if not np.isfinite(difference).all():
        bad = int(np.flatnonzero(~np.isfinite(difference))[0])
        raise UserError(f"Pair {bad} has the rewards {chosen[bad]} and {rejected[bad]}; they must be finite.")
    return difference


@dataclass(frozen=True)
class Calibration:
    """How far the probabilities sigmoid(r_chosen - r_rejected) can be believed.

    Attributes:
        ece: expected calibration error, sum over bins of share * |accuracy - confidence|, in [0, 1].
        nll: mean -log probability of the label, nats; log 2 for a model that knows nothing.
        brier: mean squared error of the probability.
        confidence: mean per bin, NaN for empty bins.
        accuracy: likewise.
        count: pairs per bin.
    """

    ece: float
    nll: float
    brier: float
    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray


def calibration(chosen: ArrayLike, rejected: ArrayLike, bins: int = 10) -> Calibration:
    """Calibration of the Bradley-Terry probabilities of a reward model.

    The model predicts the response with the larger reward with confidence p = sigmoid(|r_chosen - r_rejected|) in
    [1/2, 1]; bins are of equal width there. Source: Guo et al. 2017, https://arxiv.org/abs/1706.04599.

    Raises:
        UserError: no pair, unequal numbers, rewards that are not finite, or no bin.
    """
    if bins < 1:
        raise UserError(f"Calibration in {bins} bins is not possible; choose at least 1.")
    difference = _difference(chosen, rejected)
    confidence = 1.0 / (1.0 + np.exp(-np.abs(difference)))
    right = _right(difference)
    place = np.minimum(((confidence - 0.5) * 2 * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(place, confidence, bins) / count
        mean_right = np.bincount(place, right, bins) / count
    gap = np.abs(np.bincount(place, confidence - right, bins)).sum() / difference.size
    nll = np.logaddexp(0.0, -difference)
    return Calibration(
        float(gap), float(nll.mean()), float(np.square(-np.expm1(-nll)).mean()), mean_confidence, mean_right, count
    )


@dataclass(frozen=True)
class Benchmark:
    """The table of a benchmark.

    Attributes:
        subsets: accuracy and number of pairs by subset.
        sections: score by section, of those that have any pair.
        score: mean of the sections; NaN if there is none.
        accuracy: over all pairs alike.
        calibration: over all pairs alike.
    """

    subsets: Mapping[str, tuple[float, int]]
    sections: Mapping[str, float]
    score: float
    accuracy: float
    calibration: Calibration

    def table(self) -> str:
        """Score, sections, then subsets with their numbers of pairs; one per line, per cent."""
        rows = [("score", self.score, None), *((name, x, None) for name, x in self.sections.items())]
        rows += [(f"  {name}", x, n) for name, (x, n) in self.subsets.items()]
        width = max(len(name) for name, _, _ in rows)
        return "\n".join(
            f"{name:<{width}}  {100 * x:6.2f} %" + ("" if n is None else f"  ({n})") for name, x, n in rows
        )


def benchmark(
    chosen: ArrayLike,
    rejected: ArrayLike,
    subsets: Sequence[str | None],
    sections: Mapping[str, Sequence[str]] = SECTIONS,
) -> Benchmark:
    """Scores pairs as RewardBench does.

    A section's score is the mean over its pairs, except that `math-prm` weighs as much as the code subsets together;
    the benchmark's score is the mean of the sections. Deviation: the older preference sets, which its first version
    counted at half weight, are no section.

    Args:
        chosen: rewards of the chosen responses.
        rejected: likewise.
        subsets: of the pairs; those in no section appear in `Benchmark.subsets` only.
        sections: names of subsets by section.

    Raises:
        UserError: no pair, unequal numbers, rewards that are not finite.
    """
    difference = _difference(chosen, rejected)
    if len(subsets) != difference.size:
        raise UserError(f"There are {len(subsets)} subset names for {difference.size} pairs; give one each.")
    names = np.array(["none" if name is None else name for name in subsets])
    right = _right(difference)
    found = {str(name): (float(right[names == name].mean()), int(np.sum(names == name))) for name in np.unique(names)}
    scores = {section: _section(found, members) for section, members in sections.items() if {*members} & {*found}}
    return Benchmark(
        found,
        scores,
        float(np.mean([*scores.values()])) if scores else float("nan"),
        float(right.mean()),
        calibration(chosen, rejected),
    )


def _section(found: Mapping[str, tuple[float, int]], members: Sequence[str]) -> float:
    weights = {name: float(found[name][1]) for name in members if name in found}
    code = sum(weights.get(name, 0.0) for name in _CODE)
    if "math-prm" in weights and code:
        weights["math-prm"] = code
    return sum(weight * found[name][0] for name, weight in weights.items()) / sum(weights.values())
