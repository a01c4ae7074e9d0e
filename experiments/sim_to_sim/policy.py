"""A trained policy as plain NumPy: nothing else is needed, so it runs beside any simulator."""

from pathlib import Path
from typing import NamedTuple

import numpy as np


class Policy(NamedTuple):
    """Gaussian policy on raw observations: a tanh perceptron gives the mean, the standard deviation is constant.

    ``action = W_n tanh(... tanh(W_1 clip((obs - shift) / scale, +-clip) + b_1) ...) + b_n + exp(log_std) * normal``,
    float32; not clipped: environments clip actions themselves.

    Attributes:
        shift: mean of each observation component, ``[O]``.
        scale: standard deviation of each, ``[O]``.
        clip: largest standardised magnitude.
        weights: of the layers, first to last, ``[in, out]`` each.
        biases: of the layers, ``[out]`` each.
        log_std: ``[A]``.
    """

    shift: np.ndarray
    scale: np.ndarray
    clip: float
    weights: "tuple[np.ndarray, ...]"
    biases: "tuple[np.ndarray, ...]"
    log_std: np.ndarray

    def mean(self, obs: np.ndarray) -> np.ndarray:
        """Mean action.

        Args:
            obs: ``[..., O]``.

        Returns:
            ``[..., A]``.
        """
        x = np.clip((np.float32(obs) - self.shift) / self.scale, -self.clip, self.clip)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1]):
            x = np.tanh(x @ weight + bias)
        return x @ self.weights[-1] + self.biases[-1]

    def sample(self, obs: np.ndarray, random: np.random.RandomState) -> np.ndarray:
        """One action, as in training."""
        mean = self.mean(obs)
        return mean + np.exp(self.log_std) * random.standard_normal(mean.shape).astype(np.float32)


def save(path: Path, policy: Policy) -> None:
    """Writes `policy` as a compressed ``.npz``."""
    layers = {f"weight{i}": w for i, w in enumerate(policy.weights)}
    layers.update({f"bias{i}": b for i, b in enumerate(policy.biases)})
    rest = {k: getattr(policy, k) for k in ("shift", "scale", "clip", "log_std")}
    np.savez_compressed(path, **layers, **rest)


def load(path: Path) -> Policy:
    """What `save` wrote.

    Raises:
        ValueError: the file is something else.
    """
    with np.load(path) as file:
        if "weight0" not in file:
            raise ValueError(f"{path} holds {', '.join(file.files)} but no policy; write one with export.py.")
        number = sum(name.startswith("weight") for name in file.files)
        weights, biases = (tuple(file[f"{kind}{i}"] for i in range(number)) for kind in ("weight", "bias"))
        return Policy(file["shift"], file["scale"], float(file["clip"]), weights, biases, file["log_std"])
