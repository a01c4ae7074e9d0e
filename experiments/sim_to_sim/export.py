"""Takes the policy out of a run: normalisation, weights and spread as a NumPy `policy.Policy`.

python experiments/sim_to_sim/export.py RUN_FOLDER POLICY.npz
"""

import sys
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import policy as numpy_policy

from jaxalign.cli import run as runs
from jaxalign.saferl.onpolicy import OnPolicyState

CLIP = 5.0  # what `RunningStatistics.normalise` clips to


def export(state: OnPolicyState, normalise_obs: bool) -> numpy_policy.Policy:
    """The policy of a learner's state.

    Args:
        state: of an on-policy learner.
        normalise_obs: whether that learner standardises observations.
    """
    params, statistics = jax.device_get((state.policy, state.statistics))
    layers = params["mean"]["layers"]
    names = sorted(layers, key=int)
    shift, scale, clip = np.zeros_like(statistics.mean), np.ones_like(statistics.mean), np.inf
    if normalise_obs and statistics.samples > 1:
        shift, scale = np.asarray(statistics.mean), np.asarray(statistics.std())
    if normalise_obs:
        clip = CLIP
    weights, biases = (tuple(np.asarray(layers[name][kind]) for name in names) for kind in ("kernel", "bias"))
    return numpy_policy.Policy(shift, scale, clip, weights, biases, np.asarray(params["log_std"]))


def main(folder: str, path: str) -> None:
    """Writes the policy of the last checkpoint of a run."""
    config = runs.read_config(Path(folder))
    _, state = runs.restore(Path(folder), config)
    numpy_policy.save(Path(path), export(state, config.learner.normalise_obs))


if __name__ == "__main__":
    main(*sys.argv[1:])
