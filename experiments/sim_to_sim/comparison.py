"""Whether two samples of episodes agree within sampling error."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from jaxalign.track import interval

Estimate = tuple[float, float]  # mean, half width of its 95 % interval


class Comparison(NamedTuple):
    """Means here and in the peer after Student, and their difference after Welch, each with its 95 % interval.

    Attributes:
        ours: mean here.
        peer: mean in the peer.
        difference: ours - peer.
        p: probability of a difference at least this large if the true means are equal.
    """

    ours: Estimate
    peer: Estimate
    difference: Estimate
    p: float


def compare(ours: Sequence[float], peer: Sequence[float]) -> Comparison:
    """Compares two independent samples, any lengths from 2.

    Source: B. L. Welch, Biometrika 34 (1947); the degrees of freedom are Satterthwaite's.
    """
    a, b = np.asarray(ours, float), np.asarray(peer, float)
    gap = float(a.mean() - b.mean())
    squares = [x.var(ddof=1) / x.size for x in (a, b)]
    error = float(np.sqrt(sum(squares)))
    if error == 0.0:  # nothing varies, such as a cost that is never had
        return Comparison(interval(a), interval(b), (gap, 0.0), float(gap == 0.0))
    freedom = sum(squares) ** 2 / sum(s**2 / (x.size - 1) for s, x in zip(squares, (a, b), strict=True))
    half = float(stats.t.ppf(0.975, freedom)) * error
    return Comparison(interval(a), interval(b), (gap, half), float(2 * stats.t.sf(abs(gap) / error, freedom)))


def table(comparisons: Mapping[str, Mapping[str, Comparison]]) -> str:
    """Rows of environment and figure; a cell is mean ± half of the 95 % interval."""
    lines = ["| environment | figure | here | Safety-Gymnasium 1.0.0 | difference | p |", "|---|---|---|---|---|---|"]
    for env, figures in comparisons.items():
        for name, row in figures.items():
            cells = [f"{mean:.2f} ± {half:.2f}" for mean, half in row[:3]]
            lines.append(f"| {env} | {name} | " + " | ".join(cells) + f" | {row.p:.2g} |")
    return "\n".join(lines)
