"""Structural functions: how far apart responses are that share one of M clusters, before any comparison is made.

Source: arXiv 2402.10184, section 4 (F) and table 2 (the three families).
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from jaxalign.core.errors import UserError

Numbers = int | float | np.floating | Sequence[int | float] | np.ndarray
FAMILIES = ("polynomial", "logarithmic", "sublogarithmic")


@dataclasses.dataclass(frozen=True)
class Structural:
    """F(M): mean inference distance inside a cluster when the responses are cut into M clusters.

    polynomial: I M^-alpha. logarithmic: I (1 + log M)^-alpha. sublogarithmic: I (1 + log(1 + log M))^-alpha. The paper
    writes I (log M)^-alpha, which is infinite at M = 1; with 1 + log M, F(1) = I in all families.

    Attributes:
        family: how F falls, one of `FAMILIES`.
        alpha: exponent; in (0, 1) for the polynomial family, as in the paper's theorem 4.5, else above 0.
        scale: I = F(1), a variance.

    Raises:
        UserError: unknown family, alpha or scale out of range.
    """

    family: str = "polynomial"
    alpha: float = 0.5
    scale: float = 1.0

    def __post_init__(self):
        if self.family not in FAMILIES:
            raise UserError(f"There is no structural function {self.family!r}; choose from {', '.join(FAMILIES)}.")
        highest = 1.0 if self.family == "polynomial" else math.inf
        if not 0 < self.alpha < highest:
            told = "between 0 and 1, both excluded" if highest == 1 else "above 0"
            raise UserError(f"alpha is {self.alpha:g}; a {self.family} structural function needs an alpha {told}.")
        if not (self.scale > 0 and math.isfinite(self.scale)):
            raise UserError(f"The scale of the structural function is {self.scale:g}; choose a positive number.")

    def __call__(self, clusters: Numbers) -> np.ndarray:
        """F(M) for M >= 1, any shape."""
        return self.at_log(np.asarray(np.log(clusters)))

    def at_depth(self, depth: Numbers) -> np.ndarray:
        """F(2^depth): inference distance of two binary strings that share `depth` bits, any shape."""
        return self.at_log(np.asarray(np.multiply(depth, math.log(2))))

    def at_log(self, log: Numbers) -> np.ndarray:
        """F(exp(log)), any shape."""
        log = np.asarray(log, float)
        if self.family == "polynomial":
            return np.asarray(self.scale * np.exp(-self.alpha * log))
        base = 1 + log if self.family == "logarithmic" else 1 + np.log1p(log)
        return np.asarray(self.scale * base**-self.alpha)

    def __str__(self):
        scale = "" if self.scale == 1 else f"{self.scale:g} "
        base = {"polynomial": "M", "logarithmic": "(1 + log M)", "sublogarithmic": "(1 + log(1 + log M))"}[self.family]
        return f"{scale}{base}^-{self.alpha:g}"
