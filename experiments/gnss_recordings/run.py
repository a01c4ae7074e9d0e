"""Real receivers in open sky and in street canyons through our readers, orbits and solver, against surveyed truth.

python experiments/gnss_recordings/run.py
"""

import sys
from pathlib import Path

import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).parent))
from config import RECORDINGS, Config, Recording

from jaxalign.core.errors import UserError
from jaxalign.gnss import evaluation, figures, frames, rinex_nav, rinex_obs, spp
from jaxalign.gnss.pvt import Status


def methods(exclusions: int) -> dict[str, spp.Options]:
    """Weights and screening by name."""
    return {
        "by elevation": spp.Options(),
        "by C/N0": spp.Options(by_cn0=True),
        f"by elevation, {exclusions} exclusions": spp.Options(max_exclusions=exclusions),
        f"by C/N0, {exclusions} exclusions": spp.Options(max_exclusions=exclusions, by_cn0=True),
    }


def errors(recording: Recording, config: Config) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Horizontal error (m) and `Status` of the epochs with truth, by method; NaN without a fix."""
    with np.load(config.folder / recording.truth) as file:
        truth = file["truth_xyz"]
    observations = rinex_obs.read(config.folder / "inputs" / recording.observations)
    navigation = rinex_nav.read(*(config.folder / "inputs" / name for name in recording.navigation))
    data = spp.measurements(observations, navigation, recording.systems)
    known = np.isfinite(truth[:, 0])
    place = frames.geodetic_from_ecef(truth[known])
    found = {}
    for name, options in methods(config.exclusions).items():
        fixes = spp.locate(data, navigation.klobuchar["G"], options)
        local = frames.enu_from_ecef(fixes.pos_ecef_m[known], place)
        found[name] = np.hypot(local[:, 0], local[:, 1]), fixes.status[known]
    return found


def row(error_m: np.ndarray, chosen: np.ndarray, block_epochs: int) -> str:
    """Number of the chosen epochs, percentiles and intervals."""
    available = f"{chosen.sum():5d} of {len(error_m):4d}"
    if not chosen.any():
        return available
    result = evaluation.summarise(error_m[chosen], np.flatnonzero(chosen) // block_epochs)
    cells = [
        f"{value:6.2f} [{low:5.2f},{high:6.2f}]"
        for value, (low, high) in zip(result.percentile_m, result.interval_m, strict=True)
    ]
    return f"{available} {' '.join(cells)} {result.rms_m:6.2f}"


def main(config: Config) -> None:
    """Writes table.txt and a picture of the distributions for each recording."""
    if not config.folder.is_dir():
        raise UserError(f"There is no folder {config.folder}; give the one of the recordings with --folder.")
    config.out.mkdir(parents=True, exist_ok=True)
    head = f"{'':30s} {'fixes':>13s} {'median m':>21s} {'68 % m':>21s} {'95 % m':>21s} {'rms':>6s}"
    lines = []
    for name, recording in RECORDINGS.items():
        lines += [f"{name} ({recording.systems})", head]
        found = errors(recording, config)
        for method, (error_m, status) in found.items():
            lines.append(f"{method:30s} {row(error_m, np.isfinite(error_m), config.block_epochs)}")
            good = status == Status.GOOD
            lines.append(f"{'  those that pass the tests':30s} {row(error_m, good, config.block_epochs)}")
        shown = {method: error_m[np.isfinite(error_m)] for method, (error_m, _) in found.items()}
        figures.distributions(shown, config.out / f"{name.replace(', ', '_').replace(' ', '_')}.png", name)
        lines.append("")
    text = "\n".join(lines)
    print(text)
    (config.out / "table.txt").write_text(text)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
