"""How much the twin helps receivers that it never saw, with the controls that every claim needs.

Methods that only see the fix: ``none`` (the fix), ``street`` (control: snap to outdoor cells, no simulation), ``naive``
(control: subtract the error of the cell under the fix), ``twin`` (posterior from the horizontal fix), ``twin+height``
(from the fix with its height), ``look-up`` (the inverse product), ``wrong time`` and ``shuffled`` (controls: the same
posterior with a database of another hour, or with its cells exchanged), ``oracle`` (subtract the error of the true
cell). Methods that see pseudoranges and C/N0: ``shadow``, ``ranging``. A fix that a method does not correct counts as
it is, so that all methods are compared on the same receivers.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from jaxalign.core.prng import stream
from jaxalign.core.types import PRNGKey
from jaxalign.gnss import correction, filtering, matching
from jaxalign.gnss.constellation import Constellation
from jaxalign.gnss.correction import Corrected
from jaxalign.gnss.database import Database
from jaxalign.gnss.heldout import Epoch
from jaxalign.gnss.twin import Signals, Statistics

INSIDE_68, INSIDE_95 = 2.2789, 5.9915  # chi-square of two degrees of freedom
PERCENTILES = (50.0, 68.0, 95.0)


class Errors(NamedTuple):
    """Horizontal errors of receivers with a fix; R rows.

    Attributes:
        method: name -> errors ``[R]``, m.
        receiver: number of each row, for the bootstrap.
        available: share of receivers and epochs with a fix.
        covered: name -> squared Mahalanobis distance of the truth ``[R]``, NaN where there was no correction.
    """

    method: dict[str, Float[np.ndarray, " R"]]
    receiver: Float[np.ndarray, " R"]
    available: float
    covered: dict[str, Float[np.ndarray, " R"]]


def shuffled(database: Database, seed: int = 0) -> Database:
    """Control: the statistics of the cells exchanged at random."""
    order = np.random.default_rng(seed).permutation(database.statistics.availability.shape[1])
    return database._replace(statistics=Statistics(*(field[:, order] for field in database.statistics)))


def position_methods(database: Database, slice_: int, wrong_slice: int) -> dict[str, Callable[[Epoch], Corrected]]:
    """Methods that see fixes only, by name; each takes an epoch.

    Args:
        database: the twin's.
        slice_: of the epoch.
        wrong_slice: of another hour, for the control.
    """
    product = correction.product(database, slice_)
    mixed = shuffled(database.at(slice_))
    return {
        "street": lambda epoch: correction.street_prior(database, slice_, epoch.fix_m),
        "naive": lambda epoch: correction.naive(database, slice_, epoch.fix_m),
        "shuffled": lambda epoch: correction.correct(mixed, 0, epoch.spatial_m),
        "wrong time": lambda epoch: correction.correct(database, wrong_slice, epoch.spatial_m),
        "oracle": lambda epoch: _oracle(database, slice_, epoch),
        "look-up": lambda epoch: product.look_up(epoch.fix_m),
        "twin": lambda epoch: correction.correct(database, slice_, epoch.fix_m),
        "twin+height": lambda epoch: correction.correct(database, slice_, epoch.spatial_m),
    }


def ranging_methods(
    database: Database, signals: Signals, sky: Constellation, slice_: int
) -> dict[str, Callable[[Epoch], Corrected]]:
    """Methods that see pseudoranges and C/N0, by name.

    Args:
        database: whose grid is searched.
        signals: predicted for its outdoor cells, ``[N, S]``.
        sky: the satellites.
        slice_: of the epoch, in `sky`.
    """
    view = sky.at(slice_)

    def search(ranging, options):
        return lambda epoch: matching.match(
            database.grid, signals, epoch.fix_m, epoch.observed, view, options, ranging=ranging
        )

    return {
        "shadow": search(False, matching.Matching(shadow=1.0)),
        "ranging": search(True, matching.Matching()),
    }


def evaluate(epochs: list[tuple[Epoch, dict[str, Callable[[Epoch], Corrected]]]]) -> Errors:
    """Errors of every method over epochs, each with its own methods (of the same names)."""
    rows: dict[str, list] = {}
    covered: dict[str, list] = {}
    receivers, have = [], []
    for epoch, methods in epochs:
        keep = epoch.has_fix
        have.append(keep)
        receivers.append(np.flatnonzero(keep))
        rows.setdefault("none", []).append(epoch.error_m[keep])
        for name, method in methods.items():
            answer = method(epoch)
            rows.setdefault(name, []).append(horizontal_error(answer, epoch.truth_m)[keep])
            covered.setdefault(name, []).append(normalised_square(answer, epoch.truth_m)[keep])
    joined = {name: np.concatenate(parts) for name, parts in rows.items()}
    squares = {name: np.concatenate(parts) for name, parts in covered.items()}
    return Errors(joined, np.concatenate(receivers), float(np.mean(have)), squares)


class TrackErrors(NamedTuple):
    """Horizontal errors along tracks: method -> errors ``[R]``, and the track of each row."""

    method: dict[str, Float[np.ndarray, " R"]]
    track: Float[np.ndarray, " R"]


class Followed(NamedTuple):
    """One track: what was measured and how it was corrected, places ``[E, 2]`` by method."""

    epoch: Epoch
    places: dict[str, Float[np.ndarray, "E 2"]]


def follow(database: Database, epoch: Epoch, slice_: int) -> Followed:
    """The receivers of `epoch`, taken as one walk, corrected one by one and filtered, within one slice."""
    slices = np.full(len(epoch.fix_m), slice_)
    hmm = filtering.follow(database, slices, epoch.spatial_m)
    street = filtering.follow(database, slices, epoch.fix_m, likelihood=correction.street_likelihood)
    places = {
        "none": epoch.fix_m,
        "averaged fixes": averaged(epoch.fix_m),
        "street HMM": street.filtered.pos_m,
        "twin+height": correction.correct(database, slice_, epoch.spatial_m).pos_m,
        "twin HMM": hmm.filtered.pos_m,
        "twin HMM, smoothed": hmm.smoothed.pos_m,
    }
    return Followed(epoch, places)


def track_errors(tracks: list[Followed]) -> TrackErrors:
    """Errors along tracks at epochs with a fix."""
    rows: dict[str, list] = {}
    numbers = []
    for k, track in enumerate(tracks):
        keep = track.epoch.has_fix
        numbers.append(np.full(keep.sum(), k))
        for name, place in track.places.items():
            rows.setdefault(name, []).append(np.hypot(*(place - track.epoch.truth_m).T)[keep])
    return TrackErrors({name: np.concatenate(parts) for name, parts in rows.items()}, np.concatenate(numbers))


def averaged(fix_m: Float[np.ndarray, "E 2"], gain: float = 0.3) -> Float[np.ndarray, "E 2"]:
    """Control: exponential averaging of the fixes; an epoch without a fix keeps the last place."""
    first = fix_m[np.isfinite(fix_m).all(axis=1)]
    place = first[0] if len(first) else np.full(2, np.nan)
    places = []
    for fix in fix_m:
        if np.isfinite(fix).all():
            place = place + gain * (fix - place)
        places.append(place)
    return np.array(places)


def horizontal_error(answer: Corrected, truth_m: Float[np.ndarray, "M 2"]) -> Float[np.ndarray, " M"]:
    """Distance (m) of the places from the truth."""
    return np.hypot(*(answer.pos_m - truth_m).T)


def normalised_square(answer: Corrected, truth_m: Float[np.ndarray, "M 2"]) -> Float[np.ndarray, " M"]:
    """Squared error in units of the reported covariance; NaN where there is none."""
    x, y = (answer.pos_m - truth_m).T
    a, b, d = np.asarray(answer.covariance_m2, float).T
    with np.errstate(invalid="ignore", divide="ignore"):
        return (d * x * x - 2 * b * x * y + a * y * y) / (a * d - b * b)


class Summary(NamedTuple):
    """Of the errors of one method: percentiles 50, 68, 95 with 95 % bootstrap intervals, root mean square, m.

    Attributes:
        percentile_m: ``[3]``.
        interval_m: lower and upper ends, ``[3, 2]``.
        rms_m: root mean square.
        rows: number of errors.
    """

    percentile_m: Float[np.ndarray, "3"]
    interval_m: Float[np.ndarray, "3 2"]
    rms_m: float
    rows: int


def summarise(error_m: Float[np.ndarray, " R"], cluster: np.ndarray, resamples: int = 300, seed: int = 0) -> Summary:
    """Percentiles and their intervals; whole clusters (receivers, tracks) are resampled, for their rows are alike."""
    rng = np.random.default_rng(seed)
    _, member = np.unique(cluster, return_inverse=True)
    count = member.max() + 1
    order = np.argsort(error_m)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=resamples)[:, member[order]]
    share = np.cumsum(drawn, axis=1)
    ranks = [np.argmax(share >= share[:, -1:] * p / 100, axis=1) for p in PERCENTILES]
    spread = np.stack([np.percentile(error_m[order][rank], [2.5, 97.5]) for rank in ranks])
    return Summary(np.percentile(error_m, PERCENTILES), spread, float(np.sqrt((error_m**2).mean())), len(error_m))


def coverage(square: Float[np.ndarray, " R"]) -> tuple[float, float, float]:
    """Share of truths inside the reported 68 % and 95 % ellipses, and share of fixes that were corrected."""
    given = np.isfinite(square)
    inside: Bool[np.ndarray, " R"] = square[given]
    return float((inside < INSIDE_68).mean()), float((inside < INSIDE_95).mean()), float(given.mean())


def table(errors: dict[str, Float[np.ndarray, " R"]], cluster: np.ndarray, resamples: int = 300) -> str:
    """One line per method: median, 68 % and 95 % with intervals, root mean square, median against none."""
    lines = [f"{'':20s} {'median m':>16s} {'68 % m':>18s} {'95 % m':>18s} {'rms m':>7s} {'gain':>6s}"]
    base = np.median(errors["none"])
    for name, values in errors.items():
        result = summarise(values, cluster, resamples)
        cells = [
            f"{value:5.1f} [{low:4.1f},{high:5.1f}]"
            for value, (low, high) in zip(result.percentile_m, result.interval_m, strict=True)
        ]
        gain = 100 * (1 - result.percentile_m[0] / base)
        lines.append(f"{name:20s} {cells[0]:>16s} {cells[1]:>18s} {cells[2]:>18s} {result.rms_m:7.1f} {gain:5.0f}%")
    return "\n".join(lines)


def rows(errors: dict[str, Float[np.ndarray, " R"]], cluster: np.ndarray) -> list[dict]:
    """The table as JSON values."""
    found = []
    for name, values in errors.items():
        result = summarise(values, cluster)
        found.append(
            {
                "method": name,
                "median_m": float(result.percentile_m[0]),
                "p68_m": float(result.percentile_m[1]),
                "p95_m": float(result.percentile_m[2]),
                "intervals_m": result.interval_m.tolist(),
                "rms_m": result.rms_m,
                "rows": result.rows,
            }
        )
    return found


def _oracle(database: Database, slice_: int, epoch: Epoch) -> Corrected:
    """Subtract the simulated mean error of the cell that the receiver is really in."""
    from scipy.spatial import cKDTree

    known = np.flatnonzero(database.statistics.availability[slice_] > 0)
    _, nearest = cKDTree(database.grid.cells_m()[known, :2]).query(epoch.truth_m)
    cell = known[nearest]
    covariance = np.asarray(database.statistics.covariance_m2[slice_][cell, :3])
    pos = epoch.fix_m - database.statistics.mean_m[slice_][cell, :2]
    reason = np.where(epoch.has_fix, correction.Reason.CORRECTED, correction.Reason.NO_FIX)
    return Corrected(pos, covariance, reason)


def streams(seed: int, name: str, count: int) -> list[PRNGKey]:
    """Keys of a seed for `count` epochs."""
    return list(jax.random.split(stream(jax.random.key(seed), name), count))
